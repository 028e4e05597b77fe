import re
from xml.etree import ElementTree

import cv2
import numpy as np

from lightssl.reports.plots import BINS, SERIES, Point, curve, levels, operator_bars


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


def test_operators_of_several_settings_make_one_picture():
    one = [{"node": f"a_name_that_is_long_{i}", "operator": f"Op{i % 3}", "ms": i / 7} for i in range(40)]
    two = [{"node": "b", "operator": "Op0", "ms": 1.0}]  # a runtime may make another graph for other threads
    content = operator_bars({"threads: 1": one, "threads: 2": two}, title="model.onnx on a <device> & $x$")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (675, 1500, 3)
    assert picture.std() > 0


def test_models_are_levels_with_a_point_for_each_device():
    points = [Point("model.onnx", 0, "measured", 3.0, 80.0), Point("model.onnx", 7, "browser", 30.0, 80.0)]
    points += [Point("a <b> $c$", 2, "predicted", 9.0, 80.01, interval=(5.0, 14.0))]
    svg = levels(points, name="accuracy", x_label="ms", y_label="kNN, %")
    ElementTree.fromstring(svg)
    assert {colour for colour in SERIES if colour in svg} == {SERIES[0], SERIES[1], SERIES[2]}
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert "a &lt;b&gt; $c$" in svg


def test_names_of_levels_do_not_cover_each_other():
    points = [Point(f"model {i}", 0, "measured", 3.0, 80 + i / 1000) for i in range(8)]
    svg = levels(points, name="accuracy", x_label="ms", y_label="kNN, %")
    places = sorted(float(y) for y in re.findall(r' y="([\d.]+)"[^>]*>model \d', svg))
    assert len(places) == 8
    assert min(np.diff(places)) > 8
