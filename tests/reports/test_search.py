"""The page about a search, and its picture."""

from pathlib import Path

import cv2
import numpy as np

from lightssl.reports.plots import Spot, _front, pareto
from lightssl.reports.search import Part, write_search_page
from tests.reports.html import Page

HOSTILE = "<script>alert('&')</script>$\\frac$"


def spots(*pairs: tuple[float, float]) -> list[Spot]:
    return [Spot({"flops": cost, "parameters": 5 - cost}, score) for cost, score in pairs]


def test_the_front_is_what_none_beats() -> None:
    looked_at = spots((3.0, 0.5), (1.0, 0.2), (2.0, 0.4), (2.5, 0.3), (2.0, 0.1), (4.0, 0.5))
    assert [(spot.costs["flops"], spot.score) for spot in _front(looked_at, "flops")] == [
        (1.0, 0.2),
        (2.0, 0.4),
        (3.0, 0.5),
    ]


def test_the_picture_shows_every_cost_whatever_networks_are_called() -> None:
    looked_at = spots((1.0, 0.2), (2.0, 0.4))
    known = [Spot({"flops": 1.5, "parameters": 2.0}, 0.3, HOSTILE)]
    picture = pareto(looked_at, known, looked_at[1], limits={"flops": 2.1}, y_label=HOSTILE)
    one = pareto(looked_at, [], Spot({"flops": 2.0}, 0.4), limits={}, y_label="score")
    wide, narrow = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape for png in (picture, one))
    assert wide[1] == 2 * narrow[1]


def test_the_picture_and_the_page_show_latency(tmp_path: Path) -> None:
    looked_at = [Spot({"flops": 2e8, "parameters": 2e6, "latency_ms": ms}, ms / 10) for ms in (0.5, 0.9)]
    picture = pareto(looked_at, [], looked_at[1], limits={"latency_ms": 1.0}, y_label="score")
    two = pareto(spots((1.0, 0.2)), [], spots((1.0, 0.2))[0], limits={}, y_label="score")
    shown, without = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[1] for png in (picture, two))
    assert shown == 3 * without / 2
    write_search_page(
        tmp_path / "page.html",
        title="",
        asked={},
        verdict="",
        picture=picture,
        networks={"winner": [Part("before", "", 10_000_000, 1.25), Part("1", "24x1-k5e1", 40_000_000, 12.5)]},
        best=[{"score": "0.9"}],
        recipe="",
        commands=[],
    )
    assert "before 10.0 · 1.25 ms 1 24x1-k5e1 40.0 · 12.50 ms" in Page(tmp_path / "page.html").text


def test_the_page_holds_text_as_text_and_loads_nothing(tmp_path: Path) -> None:
    write_search_page(
        tmp_path / "page.html",
        title=HOSTILE,
        asked={"limits": {"flops": 3e8}, HOSTILE: HOSTILE},
        verdict=HOSTILE,
        picture=b"\x89PNG\r\n\x1a\n",
        networks={
            "winner": [Part("before", "", 10_000_000), Part("1", "24x1-k5e1", 40_000_000)],
            "stock": [Part("before", "", 10_000_000), Part("1", "16x1-k3e1", 20_000_000)],
        },
        best=[{"candidate": HOSTILE, "score": "0.9"}],
        recipe=HOSTILE,
        commands=[HOSTILE],
    )
    page = Page(tmp_path / "page.html")
    assert "script" not in page.tags
    assert page.events == []
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert "1 24x1-k5e1 40.0 16x1-k3e1 20.0" in page.text
    assert "width: 50.0%" in (tmp_path / "page.html").read_text()
