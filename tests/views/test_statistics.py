from itertools import product

import numpy as np
import pytest
import yaml

from lightssl.resources import resource
from lightssl.views.augment import Augmentations
from lightssl.views.crops import Box
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan
from lightssl.views.statistics import Spread, intersection, view_statistics

AUGMENT = Augmentations.model_validate(yaml.safe_load(resource("recipes", "augment", "dino.yaml").read_text()))


def make(plan: str, *, aspect: tuple[float, float] = (3 / 4, 4 / 3), **local: object) -> ViewMaker:
    keys = yaml.safe_load(resource("recipes", "views", f"{plan}.yaml").read_text())
    keys["local"].update(local)
    return ViewMaker(ViewPlan.model_validate({**keys, "aspect": aspect}), AUGMENT, seed=0)


def drawn(maker: ViewMaker, size: tuple[int, int], draws: int = 2000):
    return view_statistics(maker, [size] * draws, [(0, index) for index in range(draws)])


def mean_area_that_fits(scale: tuple[float, float], aspect: tuple[float, float], image_aspect: float) -> float:
    """The mean of areas from U(scale), given that a box of log-uniform aspect fits into the image, on a fine grid."""
    area = np.linspace(*scale, 2001)[:, None]
    ratio = np.exp(np.linspace(*np.log(aspect), 2001))[None]
    fits = (area * ratio <= image_aspect) & (area / ratio <= 1 / image_aspect)
    return float((area * fits).sum() / fits.sum())


@pytest.mark.parametrize(
    ("plan", "local_size", "published"),
    [
        ("baseline", 96, 1.05),
        ("sslight", 128, 1.10),
        ("baseline_vit", 96, 0.87),
        ("sslight_vit", 128, 1.10),
        ("sslight", 96, 0.83),
    ],
)
def test_ratios_are_the_published_ones(plan: str, local_size: int, published: float) -> None:
    # Boxes of the image's own aspect fit at any area: what is drawn is what the closed form says.
    maker = make(plan, aspect=(1, 1), size=local_size)
    assert maker.plan.pixel_scale_ratio == pytest.approx(published, abs=0.005)
    assert drawn(maker, (1000, 1000)).pixel_scale_ratio == pytest.approx(maker.plan.pixel_scale_ratio, rel=0.01)


@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (750, 1000), (1500, 1000)])
@pytest.mark.parametrize("plan", ["baseline", "sslight"])
def test_areas_and_ratio_are_those_of_the_boxes_that_fit(plan: str, height: int, width: int) -> None:
    maker = make(plan)
    found, plan_ = drawn(maker, (height, width)), maker.plan
    global_area = mean_area_that_fits(plan_.global_.scale, plan_.aspect, width / height)
    local_area = mean_area_that_fits(plan_.local.scale, plan_.aspect, width / height)
    assert found.global_area.mean() == pytest.approx(global_area, rel=0.02)
    assert found.local_area.mean() == pytest.approx(local_area, rel=0.02)
    ratio = plan_.local.size / plan_.global_.size * np.sqrt(global_area / local_area)
    assert found.pixel_scale_ratio == pytest.approx(ratio, rel=0.015)
    assert found.pixel_scale_ratio < plan_.pixel_scale_ratio


def test_each_figure_is_that_of_counted_pixels() -> None:
    maker = make("sslight", count=2)
    sizes = [(40, 60), (31, 20), (100, 50)]
    keys = [(0, 3), (2, 1), (1, 1)]
    found = view_statistics(maker, sizes, keys)
    for n, ((height, width), (epoch, index)) in enumerate(zip(sizes, keys, strict=True)):
        masks = []
        for top, left, box_height, box_width in maker.boxes(height, width, epoch, index):
            mask = np.zeros((height, width), bool)
            mask[top : top + box_height, left : left + box_width] = True
            masks.append(mask)
        first, second, *local = masks
        assert found.global_area[n] == pytest.approx([first.mean(), second.mean()])
        assert found.local_area[n] == pytest.approx([mask.mean() for mask in local])
        assert found.global_pixel_scale[n] == pytest.approx([224 / mask.sum() ** 0.5 for mask in (first, second)])
        assert found.local_pixel_scale[n] == pytest.approx([128 / mask.sum() ** 0.5 for mask in local])
        assert found.global_iou[n] == pytest.approx([(first & second).sum() / (first | second).sum()])
        for (i, inner), (g, outer) in product(enumerate(local), enumerate((first, second))):
            assert found.local_inside_global[n, i, g] == pytest.approx((inner & outer).sum() / inner.sum())


def test_boxes_that_do_not_meet_share_nothing() -> None:
    boxes = np.array([Box(0, 0, 10, 10), Box(10, 0, 5, 5), Box(20, 20, 1, 1), Box(2, 3, 4, 5)], np.float64)
    assert intersection(boxes[:1], boxes).tolist() == [100, 0, 0, 20]


def test_without_local_views_there_is_no_ratio() -> None:
    found = drawn(make("cifar"), (28, 28), draws=5)
    assert found.pixel_scale_ratio is None
    assert found.local_inside_global.shape == (5, 0, 2)
    assert Spread.of(found.local_area) is None


def test_spread() -> None:
    assert Spread.of(np.arange(101.0)) == (50, 5, 50, 95)
