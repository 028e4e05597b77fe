"""The page about a sweep, and its picture."""

from pathlib import Path

import cv2
import numpy as np

from lightssl.reports.effects import Level, effects
from lightssl.reports.sweep import write_sweep_page
from tests.reports.html import Page

HOSTILE = "<script>alert('&')</script>$\\frac$"


def test_the_picture_has_a_panel_for_each_axis_whatever_values_are_called() -> None:
    levels = [Level("0.14", 40.0, 39.0, 41.0, False), Level(HOSTILE, 42.0, 42.0, 42.0, True)]
    four = effects({"a": levels, "b": levels[:1], HOSTILE: levels, "none": []}, y_label=HOSTILE)
    two = effects({"a": levels, "b": levels}, y_label="knn")
    wide, narrow = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape for png in (four, two))
    assert wide[1] == 2 * narrow[1]


def test_the_page_holds_text_as_text_and_loads_nothing(tmp_path: Path) -> None:
    write_sweep_page(
        tmp_path / "page.html",
        title=HOSTILE,
        verdict=HOSTILE,
        picture=b"\x89PNG\r\n\x1a\n",
        notes=[HOSTILE, "How to read it."],
        points=[{"point": "recipe", "score": "40.1"}, {"point": HOSTILE, "score": "41.2"}],
        recommended=HOSTILE,
        asked={"axes": HOSTILE},
        command=HOSTILE,
        repeats=["lightssl views sweep --resume run --point recipe-seed0", HOSTILE],
        recipe=HOSTILE,
    )
    page = Page(tmp_path / "page.html")
    assert "script" not in page.tags
    assert page.events == []
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert "How to read it." in page.text
    assert "recipe 40.1" in page.text
    assert "--point recipe-seed0" in page.text
    assert (tmp_path / "page.html").read_text().count('class="baseline"') == 1
