import re
from xml.etree import ElementTree

import numpy as np

from lightssl.reports.plots import BINS, curve


def path_points(svg: str) -> int:
    return max(len(re.findall(r"[ML] ", d)) for d in re.findall(r'<path d="([^"]*)"', svg))


def test_a_curve_is_an_svg_element_with_the_colours_of_the_page():
    svg = curve([0, 1, 2], [3.0, 2.0, 1.0], name="loss", x_label="epoch & more")
    ElementTree.fromstring(svg)
    assert "var(--accent)" in svg
    assert "epoch &amp; more" in svg
    # No other colour is left, so that nothing vanishes on a dark page.
    assert not re.findall(r"#[0-9a-f]{6}", svg)


def test_long_series_are_reduced():
    svg = curve(np.arange(100_000), np.random.default_rng(0).normal(size=100_000), name="loss", x_label="step")
    assert path_points(svg) <= 2 * BINS + 10
    assert len(svg) < 100_000


def test_gaps_and_single_points_can_be_drawn():
    ElementTree.fromstring(curve([0, 1, 2], [1.0, float("nan"), float("inf")], name="loss", x_label="step"))
    ElementTree.fromstring(curve([0], [1.0], name="loss", x_label="step"))


def test_a_name_cannot_break_out_of_an_attribute():
    svg = curve([0, 1], [1, 2], name='"><script>', x_label="step")
    assert "<script>" not in svg
    ElementTree.fromstring(svg)
