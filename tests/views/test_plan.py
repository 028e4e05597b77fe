import pytest
from pydantic import ValidationError

from lightssl.views.plan import ViewPlan, resize_plan

CNN_BASELINE = {
    "global": {"count": 2, "size": 224, "scale": [0.14, 1.0]},
    "local": {"count": 6, "size": 96, "scale": [0.05, 0.14]},
    "balance": "pairs",
}
CNN_SSLIGHT = {
    "global": {"count": 2, "size": 224, "scale": [0.3, 1.0]},
    "local": {"count": 6, "size": 128, "scale": [0.05, 0.3]},
    "balance": {"global": 0.4, "local": 0.6},
}
VIT_BASELINE = {
    "global": {"count": 2, "size": 224, "scale": [0.25, 1.0]},
    "local": {"count": 10, "size": 96, "scale": [0.05, 0.25]},
    "balance": "pairs",
}
VIT_SSLIGHT = {**CNN_SSLIGHT, "local": {**CNN_SSLIGHT["local"], "count": 10}}
WIDENED = {**CNN_SSLIGHT, "local": {**CNN_SSLIGHT["local"], "size": 96}}


def changed(plan: dict, kind: str, **values: object) -> dict:
    return {**plan, kind: {**plan[kind], **values}}


@pytest.mark.parametrize(
    ("plan", "ratio", "weights"),
    [
        (CNN_BASELINE, 1.05, (1 / 7, 6 / 7)),
        (CNN_SSLIGHT, 1.10, (0.4, 0.6)),
        (VIT_BASELINE, 0.87, (1 / 11, 10 / 11)),
        (VIT_SSLIGHT, 1.10, (0.4, 0.6)),
        (WIDENED, 0.83, (0.4, 0.6)),
    ],
)
def test_published_plans(plan: dict, ratio: float, weights: tuple[float, float]) -> None:
    resolved = ViewPlan.model_validate(plan)
    assert round(resolved.pixel_scale_ratio, 2) == ratio
    assert resolved.weights == pytest.approx(weights)


def test_pairs_is_the_plain_mean_over_all_pairs() -> None:
    resolved = ViewPlan.model_validate(changed(changed(CNN_BASELINE, "global", count=3), "local", count=5))
    global_pairs, local_pairs = 3 * 2, 3 * 5
    terms = {"global": 2.0, "local": 7.0}
    plain = (global_pairs * terms["global"] + local_pairs * terms["local"]) / (global_pairs + local_pairs)
    w_global, w_local = resolved.weights
    assert w_global * terms["global"] + w_local * terms["local"] == pytest.approx(plain)


@pytest.mark.parametrize("plan", [CNN_BASELINE, CNN_SSLIGHT])
def test_without_local_views_the_global_terms_are_the_loss(plan: dict) -> None:
    resolved = ViewPlan.model_validate(changed(plan, "local", count=0))
    assert resolved.weights == (1.0, 0.0)
    assert resolved.describe() == f"2 global views of 224 px (area {plan['global']['scale'][0]:g}-1), no local views"


def test_description_of_the_published_plan() -> None:
    assert ViewPlan.model_validate(CNN_SSLIGHT).describe() == (
        "2 global views of 224 px (area 0.3-1), 6 local views of 128 px (area 0.05-0.3), "
        "loss weights 0.4 / 0.6, pixel-scale ratio 1.10"
    )


def test_a_moving_plan_goes_from_its_start_to_what_it_says() -> None:
    moving = ViewPlan.model_validate({**CNN_SSLIGHT, "start": {"boundary": 0.14, "local_size": 96, "until": 0.5}})
    baseline, sslight = (ViewPlan.model_validate(plan) for plan in (CNN_BASELINE, CNN_SSLIGHT))
    assert moving.varies
    assert not sslight.varies
    first, half, last = (moving.at(fraction) for fraction in (0.0, 0.25, 0.5))
    assert (first.global_, first.local) == (baseline.global_, baseline.local)
    assert (half.local.size, half.local.scale) == (112, (0.05, pytest.approx(0.22)))
    assert half.global_.scale == (pytest.approx(0.22), 1.0)
    assert last == moving.at(1.0) == sslight
    assert half.at(0.9) is half, "a moment does not move"
    assert moving.describe() == (
        f"{sslight.describe()}; reached after 50 % of the training, from a boundary at 0.14 and local views of 96 px, "
        "ratio 1.05"
    )


@pytest.mark.parametrize(
    ("start", "scales", "size"),
    [({"boundary": 0.2}, (0.2, 0.2), 128), ({"local_size": 64}, (0.3, 0.3), 64), ({"boundary": 1}, (1.0, 1.0), 128)],
)
def test_one_thing_may_move_alone(start: dict, scales: tuple[float, float], size: int) -> None:
    first = ViewPlan.model_validate({**CNN_SSLIGHT, "start": start}).at(0.0)
    assert (first.global_.scale[0], first.local.scale[1], first.local.size) == (*scales, size)


def test_the_first_global_view_may_be_drawn_from_areas_of_its_own() -> None:
    plan = ViewPlan.model_validate(changed(CNN_SSLIGHT, "global", first_scale=[0.5, 1.0]))
    assert [plan.global_.scale_of(view) for view in range(2)] == [(0.5, 1.0), (0.3, 1.0)]
    assert plan.global_.pixel_scale == pytest.approx(224 / ((0.75 + 0.65) / 2) ** 0.5)
    assert plan.describe().startswith("2 global views of 224 px (area 0.3-1, 0.5-1 of the first), ")


def test_the_number_of_local_views_may_be_drawn() -> None:
    plan = ViewPlan.model_validate(changed(CNN_SSLIGHT, "local", min_count=2))
    assert list(plan.local.counts) == [2, 3, 4, 5, 6]
    assert plan.varies
    assert ", 2 to 6 local views of 128 px" in plan.describe()


@pytest.mark.parametrize(
    ("plan", "where", "message"),
    [
        (changed(CNN_SSLIGHT, "local", scale=[0.3, 0.05]), ("local", "scale"), r"must ascend .* got \[0.3, 0.05\]"),
        (changed(CNN_SSLIGHT, "global", scale=[0.0, 1.0]), ("global", "scale"), "must ascend from above 0"),
        (changed(CNN_SSLIGHT, "global", scale=[0.3, 1.2]), ("global", "scale", 1), "less than or equal to 1"),
        (changed(CNN_SSLIGHT, "global", count=0), (), "global.count must be at least 1"),
        (changed(CNN_SSLIGHT, "local", size=0), ("local", "size"), "greater than 0"),
        (changed(CNN_SSLIGHT, "local", sizes=3), ("local", "sizes"), "Extra inputs"),
        ({**CNN_SSLIGHT, "aspect": [2, 0.5]}, (), r"aspect must ascend, got \[2, 0.5\]"),
        ({**CNN_SSLIGHT, "balance": {"global": 0, "local": 0}}, (), "both 0"),
        (changed(CNN_SSLIGHT, "global", first_scale=[1, 0.5]), ("global", "first_scale"), "must ascend"),
        (changed(CNN_SSLIGHT, "local", min_count=7), (), "local.min_count must be at most local.count, which is 6"),
        (changed(CNN_SSLIGHT, "local", min_count=0), ("local", "min_count"), "greater than 0"),
        (changed(CNN_BASELINE, "local", min_count=2), (), "local.min_count needs a balance with weights"),
        ({**CNN_SSLIGHT, "start": {}}, ("start",), "start needs a boundary, a local_size, or both"),
        ({**CNN_SSLIGHT, "start": {"boundary": 0.04}}, (), "start.boundary must be from 0.05 to 1, between"),
        ({**CNN_SSLIGHT, "start": {"boundary": 0.2, "until": 0}}, ("start", "until"), "greater than 0"),
        ({**changed(CNN_SSLIGHT, "local", count=0), "start": {"boundary": 0.2}}, (), "start needs local views"),
    ],
)
def test_rejected(plan: dict, where: tuple, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        ViewPlan.model_validate(plan)
    assert any(error["loc"] == where for error in caught.value.errors())


@pytest.mark.parametrize(("size", "local"), [(224, 128), (448, 256), (64, 37), (32, 18), (1, 1)])
def test_resized_plan_keeps_its_proportions(size: int, local: int) -> None:
    resized = resize_plan(CNN_SSLIGHT, size)
    assert (resized["global"]["size"], resized["local"]["size"]) == (size, local)
    assert CNN_SSLIGHT["global"]["size"] == 224, "the plan that was handed in must stay as it was"
    ratio = ViewPlan.model_validate(resized).pixel_scale_ratio
    published = ViewPlan.model_validate(CNN_SSLIGHT).pixel_scale_ratio
    assert abs(ratio / published - 1) <= 0.5 / (128 / 224 * size)  # half a pixel of the local size


def test_where_a_resized_plan_starts_keeps_its_proportions_too() -> None:
    resized = resize_plan({**CNN_SSLIGHT, "start": {"boundary": 0.14, "local_size": 96}}, 112)
    assert resized["start"] == {"boundary": 0.14, "local_size": 48}
    unmoved = {"boundary": 0.14}
    assert resize_plan({**CNN_SSLIGHT, "start": unmoved}, 112)["start"] == unmoved
