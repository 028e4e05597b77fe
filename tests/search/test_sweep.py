"""Axes are read and checked, designs enumerate what they should, and points cost what is counted."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightssl.backbones.cost import count_cost
from lightssl.config.load import load_recipe
from lightssl.errors import ConfigError
from lightssl.pipeline import build_backbone
from lightssl.search.sweep import (
    AXES,
    Point,
    check_axes,
    factor_points,
    flops_per_image,
    grid_points,
    ordered,
    own_values,
    parse_axes,
    plan_at,
    steps_of_equal_cost,
)
from lightssl.views.plan import ViewPlan

RECIPE = load_recipe("mobilenetv2_dino", scale="quick")
PLAN = RECIPE.views
OWN = own_values(PLAN)

values = {
    "boundary": st.sampled_from([0.1, 0.14, 0.2, 0.3, 0.4]),
    "local_size": st.integers(4, 32),
    "local_count": st.integers(1, 8),
    "balance": st.sampled_from([0.2, 0.4, 0.6, 0.8, "pairs"]),
}
axes_of_any_kind = st.fixed_dictionaries(
    {}, optional={axis: st.lists(value, min_size=1, max_size=4, unique=True) for axis, value in values.items()}
).filter(bool)


def everything(point: Point) -> dict[str, Any]:
    """Where a point lies on every axis."""
    return {**OWN, **dict(point.changes)}


def test_the_recipe_lies_where_its_plan_says() -> None:
    assert OWN == {"boundary": 0.3, "local_size": 18, "local_count": 4, "balance": 0.6}
    assert own_values(load_recipe("mobilenetv2_dino_baseline").views)["balance"] == "pairs"
    unusual = PLAN.model_dump(by_alias=True)
    unusual["local"]["scale"] = (0.05, 0.2)  # and global views begin at 0.3
    unusual["balance"] = {"global": 1.0, "local": 1.0}
    assert own_values(ViewPlan.model_validate(unusual)) | {"local_size": 0, "local_count": 0} == {
        "boundary": None,
        "local_size": 0,
        "local_count": 0,
        "balance": None,
    }


@given(axes_of_any_kind)
def test_a_factor_design_changes_one_thing_at_a_time_to_every_value(axes: dict[str, list[Any]]) -> None:
    points = factor_points(axes, OWN)
    assert points[0] == Point()
    assert len(set(points)) == len(points) == 1 + sum(len(set(v) - {OWN[axis]}) for axis, v in axes.items())
    assert all(len(point.changes) == 1 for point in points[1:])
    for axis, wanted in axes.items():
        assert {dict(point.changes)[axis] for point in points[1:] if axis in dict(point.changes)} == {
            value for value in wanted if value != OWN[axis]
        }


@given(axes_of_any_kind)
def test_a_grid_has_every_combination_once_and_the_recipe(axes: dict[str, list[Any]]) -> None:
    points = grid_points(axes, OWN)
    assert len(set(points)) == len(points)
    wanted = {tuple(everything(Point())[axis] for axis in axes), *product(*axes.values())}
    assert {tuple(everything(point)[axis] for axis in axes) for point in points} == wanted
    assert all(everything(point)[axis] == OWN[axis] for point in points for axis in AXES if axis not in axes)


@given(axes_of_any_kind)
def test_a_point_changes_what_it_says_and_nothing_else(axes: dict[str, list[Any]]) -> None:
    for point in grid_points(axes, OWN):
        plan = plan_at(PLAN, point)
        assert own_values(plan) == everything(point)
        assert plan.local.scale[0] == PLAN.local.scale[0]
        assert plan.global_.scale[1] == PLAN.global_.scale[1]
        assert (plan.global_.count, plan.global_.size, plan.aspect) == (2, 32, PLAN.aspect)
        assert sum(plan.weights) == pytest.approx(1)
    names = [point.name for point in grid_points(axes, OWN)]
    assert len(set(names)) == len(names)
    assert all("/" not in name and " " not in name for name in names)


def test_the_published_plans_are_points_of_each_other() -> None:
    sslight, baseline = (load_recipe(f"mobilenetv2_dino{name}").views for name in ("", "_baseline"))
    point = Point.of(own_values(sslight), own_values(baseline))  # type: ignore[arg-type]
    assert point.name == "boundary-0.3,local_size-128,balance-0.6"
    assert plan_at(baseline, point) == sslight


def test_equal_cost_is_counted_at_each_size() -> None:
    network = build_backbone(RECIPE)
    own = flops_per_image(PLAN, lambda size: count_cost(network, size).flops)
    assert own == 2 * count_cost(network, 32).flops + 4 * count_cost(network, 18).flops
    fewer = plan_at(PLAN, Point((("local_size", 12), ("local_count", 2))))
    flops = flops_per_image(fewer, lambda size: count_cost(network, size).flops)
    assert flops == 2 * count_cost(network, 32).flops + 2 * count_cost(network, 12).flops
    steps = steps_of_equal_cost(1000, own, flops)
    assert steps > 1000
    assert abs(steps * flops - 1000 * own) <= flops / 2  # no whole number of steps comes nearer
    without = plan_at(PLAN, Point((("local_count", 0),)))
    assert flops_per_image(without, lambda size: size) == 64
    assert steps_of_equal_cost(1, 1, 100) == 1


def test_values_are_in_their_order() -> None:
    assert ordered(["pairs", 0.6, 0.05]) == [0.05, 0.6, "pairs"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "A sweep needs an axis"),
        (["boundry=0.1,0.2"], "unknown axis 'boundry'. Did you mean 'boundary'?"),
        (["boundary=0.1,0.2", "boundary=0.3"], "boundary is given twice"),
        (["boundary=0.1", "local_size=18"], "every axis has one value only"),
        (["local_size=18.5,20"], "local_size: '18.5' is not a value. Write whole pixels"),
        (["boundary="], "boundary: '' is not a value"),
        (["boundary"], "boundary: '' is not a value"),
        (["balance=pears,0.5"], "'pears' is not a value. Write a weight from 0 to 1"),
        (["local_count=2,4,2"], "local_count: 2 is given twice"),
    ],
)
def test_axes_that_cannot_be_read_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        parse_axes(texts)


def test_axes_are_read_in_one_order() -> None:
    assert parse_axes(["balance = 0.6, pairs", "boundary=.2,0.3"]) == {
        "boundary": [0.2, 0.3],
        "balance": [0.6, "pairs"],
    }


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"boundary": [0.3, 1.2]}, "boundary=1.2 does not lie between the least area of local views, 0.05, and"),
        ({"boundary": [0.04]}, "boundary=0.04 does not lie between"),
        ({"local_size": [7]}, "local_size=7: the backbone needs at least 8 pixels"),
        ({"local_size": [96, 128]}, "128 pixels at 224 are 18 here"),
        ({"local_count": [-1]}, "local_count=-1 is less than 0"),
        ({"balance": [1.5]}, "balance=1.5 is no weight from 0 to 1"),
    ],
)
def test_values_that_the_plan_cannot_take_are_named(axes: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_axes(PLAN, axes, design="factor", smallest_image=8)


@pytest.mark.parametrize("axis", [{"balance": [0.4, 0.6]}, {"local_size": [12, 16]}])
def test_no_local_views_is_a_point_of_its_own_but_no_combination(axis: dict[str, list[Any]]) -> None:
    axes = {"local_count": [0, 4], **axis}
    check_axes(PLAN, axes, design="factor", smallest_image=8)
    assert plan_at(PLAN, Point((("local_count", 0),))).weights == (1.0, 0.0)
    for design in ("grid", "guided"):
        with pytest.raises(ConfigError, match=f"no local views, for which {next(iter(axis))} would mean nothing"):
            check_axes(PLAN, axes, design=design, smallest_image=8)


def test_a_plan_that_varies_over_the_training_is_refused() -> None:
    moving = ViewPlan.model_validate({**PLAN.model_dump(by_alias=True), "start": {"boundary": 0.2}})
    with pytest.raises(ConfigError, match=r"varies over the steps of a training.*leave out views.start"):
        check_axes(moving, {"boundary": [0.2, 0.4]}, design="factor", smallest_image=8)


def test_a_plan_without_local_views_has_nothing_to_vary_but_their_number() -> None:
    plan = load_recipe("mobilenetv2_simsiam_cifar").views
    check_axes(plan, {"local_count": [2, 4]}, design="factor", smallest_image=1)
    check_axes(plan, {"local_count": [2, 4], "balance": [0.4, 0.6]}, design="grid", smallest_image=1)
    with pytest.raises(ConfigError, match="has no local views, so balance would mean nothing"):
        check_axes(plan, {"local_count": [2, 4], "balance": [0.4, 0.6]}, design="factor", smallest_image=1)
