from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from lightssl.reports.view_plots import distributions, draw_distributions
from lightssl.resources import resource
from lightssl.views.augment import Augmentations
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan
from lightssl.views.statistics import ViewStatistics, view_statistics


def statistics(plan: str, sizes: list[tuple[int, int]]) -> ViewStatistics:
    read = {
        kind: yaml.safe_load(resource("recipes", kind, f"{name}.yaml").read_text())
        for kind, name in (("views", plan), ("augment", "dino"))
    }
    maker = ViewMaker(ViewPlan.model_validate(read["views"]), Augmentations.model_validate(read["augment"]), seed=0)
    return view_statistics(maker, sizes, [(0, index) for index in range(len(sizes))])


LONG = (
    "2 global views of 224 px (area 0.25-1), 10 local views of 128 px (area 0.05-0.25), loss weights 0.0909 / 0.909, "
    "pixel-scale ratio 0.87, as drawn 0.79"
)
PHOTOGRAPHS = [(375, 500), (500, 333), (1200, 1600)] * 30
TINY, HUGE, MIXED = [(28, 28)] * 50, [(3000, 4000)] * 50, [(2, 2), (9000, 9000)] * 20


def drawn_texts(figure: Figure) -> Iterator[Text]:
    for part in (figure, *figure.subfigs):
        yield from part.texts
    for axes in figure.axes:
        yield from axes.texts
        yield from axes.get_legend().get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            yield axis.label
            yield from (tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)


@pytest.mark.parametrize(
    ("plans", "sizes"),
    [
        (["sslight", "baseline"], PHOTOGRAPHS),
        (["sslight_vit", "baseline_vit"], TINY),
        (["baseline", "sslight"], HUGE),
        (["sslight", "baseline"], MIXED),
        (["cifar"], PHOTOGRAPHS),
        (["sslight"], [(300, 300)]),
    ],
)
def test_no_two_texts_touch(plans: list[str], sizes: list[tuple[int, int]]) -> None:
    figure = draw_distributions(
        {f"{plan}, changed: {LONG}": statistics(plan, sizes) for plan in plans}, title="Views of 2,000 draws"
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = {text: text.get_window_extent(renderer) for text in drawn_texts(figure) if text.get_text().strip()}
    assert len(texts) > 20 * len(plans)
    for box in texts.values():
        assert all(figure.bbox.contains(*corner) for corner in (box.min, box.max))
    for (a, box), (b, other) in combinations(texts.items(), 2):
        assert not box.overlaps(other), (a, b)


def test_a_picture_is_written() -> None:
    picture = distributions({"a $x$ plan": statistics("sslight", PHOTOGRAPHS)}, title="$draws$ of 50 % _images_")
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[1] == 1320
