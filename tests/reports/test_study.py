"""The page about a study, and its pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lightssl.reports.study import Picture, Section, Table, write_study_page
from lightssl.reports.study_plots import (
    COLOURS,
    Dot,
    HeatMap,
    Line,
    Palette,
    Panel,
    Scales,
    correlation_maps,
    heat_map,
    panels,
    shortened,
)
from tests.reports.html import Page

HOSTILE = "<script>alert('&')</script>$\\frac$"


def opened(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def colours_in(image: np.ndarray, colour: str) -> int:
    """Count the pixels of a colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (5, 3, 1)]
    return int((np.abs(image.astype(int) - wanted).max(axis=2) <= 2).sum())


def dots(count: int = 5, *, colour: int = 0) -> list[Dot]:
    return [Dot(1e8 * (n + 1), 50.0 + n + 10 * colour, colour=colour, ringed=True) for n in range(count)]


def test_scenarios_have_a_panel_each_three_in_a_row() -> None:
    scales = Scales("FLOPs", "top-1", logarithmic=True)
    one, three, four = (opened(panels([Panel(HOSTILE, dots())] * n, scales)) for n in (1, 3, 4))
    assert three.shape[1] == 3 * one.shape[1]
    assert (four.shape[1], four.shape[0] > three.shape[0]) == (three.shape[1], True)


def test_families_have_their_colours_and_are_named_if_there_are_several() -> None:
    both = [Panel("s", [*dots(colour=0), *dots(colour=1)], [Line([1e8, 5e8], [50, 54])])]
    alone = opened(panels(both, Scales("x", "y"), colours=["a"]))
    named = opened(panels(both, Scales("x", "y"), colours=["a", HOSTILE], markers=["b", "c"], ring="best"))
    for image in (alone, named):
        assert colours_in(image, COLOURS[0]) > 100
        assert colours_in(image, COLOURS[1]) > 100
    assert colours_in(named, COLOURS[1]) > colours_in(alone, COLOURS[1])


def test_the_diagonal_is_where_both_are_equal() -> None:
    drawn = opened(panels([Panel("s", [Dot(50, 60), Dot(60, 50)], diagonal=True)], Scales("x", "y")))
    assert colours_in(drawn, "#a3acb9") > 100


@pytest.mark.parametrize("same", [1e8, 0.0])
def test_networks_that_are_all_alike_are_drawn(same: float) -> None:
    drawn = [Panel("s", [Dot(same, 50.0)] * 3)]
    opened(panels(drawn, Scales("x", "y", logarithmic=same > 0, ticks=() if same else (0.0,))))


@pytest.mark.parametrize("palette", ["ranks", "correlations", "losses"])
def test_tables_of_any_size_become_pictures_that_fit_on_a_page(palette: Palette) -> None:
    def drawn(rows: int, columns: int, *, written: bool = True) -> np.ndarray:
        values = np.linspace(0, 1, rows * columns).reshape(rows, columns)
        values[0, 0] = np.nan
        texts = [["x"] * columns] * rows if written else ()
        return opened(heat_map(HeatMap([HOSTILE] * rows, [HOSTILE] * columns, values, texts), palette, label="what"))

    drawn(1, 1)
    drawn(3, 2)
    assert drawn(116, 11, written=False).shape[0] == drawn(500, 11, written=False).shape[0] - 90 < 21 * 150


def test_matrices_of_groups_stand_beside_each_other() -> None:
    values = np.array([[np.nan, 0.5, -1], [0.5, np.nan, np.nan], [-1, np.nan, np.nan]])
    one = HeatMap(["a", "b", HOSTILE], ["a", "b", HOSTILE], values, [["", ".50", "-1.00"]] * 3)
    narrow, wide = (opened(correlation_maps(dict.fromkeys(titles, one))) for titles in (["x"], ["x", HOSTILE]))
    assert wide.shape[1] == pytest.approx(2 * narrow.shape[1], abs=2)


def test_long_names_keep_their_ends() -> None:
    assert shortened("photos") == "photos"
    assert len(shortened("a" * 100 + "/end")) <= 36
    assert shortened("a" * 100 + "/end").endswith("/end")


def test_the_page_holds_text_as_text_and_loads_nothing(tmp_path: Path) -> None:
    png = panels([Panel("s", dots())], Scales("x", "y"))
    table = Table([HOSTILE, "top-1"], [[HOSTILE, "41.2"]], title=HOSTILE, folded=True)
    write_study_page(
        tmp_path / "page.html",
        title=HOSTILE,
        facts=HOSTILE,
        verdict=[{"claim": HOSTILE, "state": "open", "text": HOSTILE}],
        sections=[
            Section("first", "First", [Picture(png, HOSTILE)], [HOSTILE], [table]),
            Section("second", "Second", tables=[Table(["a"], [["1"]])]),
        ],
        asked={HOSTILE: HOSTILE},
    )
    page = Page(tmp_path / "page.html")
    assert "script" not in page.tags
    assert page.events == []
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert page.ids == ["verdict", "first", "second", "asked"]
    assert page.tags.count("table") == 2
    assert page.tags.count("details") == 1


def test_a_page_without_what_was_asked_says_nothing_of_it(tmp_path: Path) -> None:
    write_study_page(tmp_path / "page.html", title="A study", facts="", verdict=[], sections=[], asked={})
    assert Page(tmp_path / "page.html").ids == ["verdict"]
