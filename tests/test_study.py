"""``study grid``: members, costs and the estimate, as a function and as a command."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightssl
from lightssl.backbones.cost import Cost
from lightssl.cli import study_grid as command
from lightssl.errors import ConfigError
from lightssl.pipeline import step_timing, studying
from lightssl.pipeline.step_timing import StepTiming
from lightssl.study.members import Member

Program = Callable[..., subprocess.CompletedProcess[str]]
TINY = ["train.batch_size=8", "train.duration=12 steps", "data.workers=0", "method.hidden=16", "method.bottleneck=8"]


def names(**options: Any) -> list[str]:
    return [row["name"] for row in lightssl.study_grid("one-network-116", timing=False, **options)["members"]]


def test_all_members_are_listed_with_their_costs() -> None:
    found = lightssl.study_grid("one-network-116", timing=False)
    assert len(found["members"]) == 116
    (resnet,) = [row for row in found["members"] if row["name"] == "resnet18"]
    assert resnet == {
        "name": "resnet18",
        "backbone": {"name": "resnet", "block": "basic", "topology": "64x2 128x2 256x2 512x2"},
        "depths": [2, 2, 2, 2],
        "flops": pytest.approx(1.81e9, rel=0.01),  # as published, with a classifier of half a million
        "parameters": 11_689_512 - 513_000,  # torchvision's less its classifier
    }
    assert found["estimate"] is None


def test_conditions_and_a_limit_choose_members() -> None:
    small = names(where=["flops<2G"])
    assert len(small) == 33
    assert small[:2] == ["resnet18", "mobilenetv2-23433"]
    assert names(where=["flops<2G", "params>10M"]) == ["resnet18"]
    assert names(where=["flops<2G"], limit=2) == small[:2]
    assert len(names(limit=200)) == 116


def test_members_beyond_the_limit_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def count(member: Member, _size: int) -> Cost:
        counted.append(member.name)
        return Cost(1, 1)

    monkeypatch.setattr(studying, "count_member", count)
    lightssl.study_grid("revisiting", timing=False, limit=1)
    assert len(counted) == 1
    for refused in ({"where": ["flop<1M"]}, {"where": ["flops<2X"]}, {"limit": 0}):
        with pytest.raises(ConfigError):
            lightssl.study_grid("revisiting", timing=False, **refused)
    assert len(counted) == 1


def test_flops_are_of_the_stated_size() -> None:
    large, small = (
        lightssl.study_grid("basic-81", timing=False, limit=1, image_size=size)["members"][0] for size in (224, 112)
    )
    assert large["flops"] == pytest.approx(4 * small["flops"], rel=0.1)
    assert large["parameters"] == small["parameters"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"where": ["flops<10M"]},
            r"No member is left by flops<10M.\nThey have flops from 299,494,272 to 4,087,136,256",
        ),
        ({"limit": 0}, "leaves no member"),
        ({"image_size": 0}, "Images of 0 pixels"),
    ],
)
def test_what_leaves_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        names(**options)


def test_networks_that_cannot_be_built_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "- {name: a, backbone: timm:resnet81}\n- {name: b, backbone: vit_tiny}\n- {name: c, backbone: resnet18}\n"
    )
    with pytest.raises(ConfigError, match="Of the members, 2 cannot be used at 8 pixels") as caught:
        lightssl.study_grid(str(path), image_size=8, timing=False)
    first, second = caught.value.problems
    assert "a: timm has no network 'resnet81'" in first
    assert "b: 8 pixels are too few" in second


# ------------------------------------------------------------------------------------------------------------ estimate


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What a step takes, by member: stands for the timing. Fails where another member is timed."""
    seconds: dict[str, float] = {}

    def time_steps(recipe: Any, data: str) -> StepTiming:
        return StepTiming(seconds[recipe.name], memory_gib=10 * seconds[recipe.name], device_memory_gib=None)

    monkeypatch.setattr(step_timing, "time_steps", time_steps)
    return seconds


def test_the_smallest_and_the_largest_of_each_family_are_timed(timings: dict[str, float]) -> None:
    timings |= {"bottleneck-2222": 0.1, "bottleneck-4444": 0.1, "resnet18": 0.1, "resnet34": 0.1}
    timings |= {"mobilenetv2-23433": 0.1, "mobilenetv2-34544": 0.3}
    estimate = lightssl.study_grid("one-network-116", scale="quick", overrides=["train.duration=50 steps"])["estimate"]
    assert [row["name"] for row in estimate["timed"]] == list(timings)
    assert {row["steps"] for row in estimate["timed"]} == {50}
    # Of MobileNetV2, each choice adds the same FLOPs to half of the members: the mean of all is that of the ends.
    assert estimate["hours"] == pytest.approx(50 * (84 * 0.1 + 32 * 0.2) / 3600)
    assert estimate["memory_gib"] == pytest.approx(3)


def test_between_them_time_goes_with_flops(timings: dict[str, float]) -> None:
    timings |= {"basic-2222": 1.0, "basic-2224": 2.0}
    found = lightssl.study_grid("basic-81", limit=3, scale="quick", overrides=["train.duration=36 steps"])
    first, second, third = (row["flops"] for row in found["members"])
    assert second - first == third - second
    assert found["estimate"]["hours"] == pytest.approx(36 * (1 + 1.5 + 2) / 3600)


def test_where_flops_are_equal_the_mean_counts(timings: dict[str, float], tmp_path: Path) -> None:
    timings |= {"third": 1.0, "fourth": 2.0}
    path = tmp_path / "mine.yaml"
    # A block of either stage has as many FLOPs, and one of the fourth more parameters.
    path.write_text(
        "- {name: fourth, backbone: {name: resnet, topology: 64x2 128x2 256x2 512x3}}\n"
        "- {name: third, backbone: {name: resnet, topology: 64x2 128x2 256x3 512x2}}\n"
    )
    found = lightssl.study_grid(str(path), scale="quick", overrides=["train.duration=36 steps"])
    assert found["members"][0]["flops"] == found["members"][1]["flops"]
    assert found["estimate"]["hours"] == pytest.approx(36 * (1.5 + 1.5) / 3600)


def test_members_are_trained_as_they_are_whatever_the_recipe_and_the_scale_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "- {name: small-stem, backbone: {name: resnet, topology: 64x1 64x1 64x1 64x1, stem: small}}\n"
        "- {name: stock, backbone: mobilenetv2}\n"
    )
    trained: dict[str, Any] = {}

    def time_steps(recipe: Any, data: str) -> StepTiming:
        trained[recipe.name] = recipe.backbone
        return StepTiming(1.0, None, None)

    monkeypatch.setattr(step_timing, "time_steps", time_steps)
    # The recipe has a mobilenetv2 with a small stem, and the scale gives every resnet the standard one.
    found = lightssl.study_grid(str(path), recipe="mobilenetv2_simclr_cifar", scale="quick")
    assert (trained["small-stem"].stem, trained["stock"].stem) == ("small", "standard")
    assert trained["small-stem"].init == "near_linear"  # the member leaves it open
    assert found["estimate"]["memory_gib"] is None


def test_an_override_may_not_change_what_makes_a_member(timings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"backbone.block of basic-2222 cannot be set"):
        lightssl.study_grid("basic-81", scale="quick", overrides=["backbone.block=bottleneck"])
    with pytest.raises(ConfigError, match=r"backbone.topology: missing"):
        lightssl.study_grid("basic-81", scale="quick", overrides=["backbone={name: vit}"])


def test_steps_are_timed_in_another_process() -> None:
    found = lightssl.study_grid("basic-81", limit=1, scale="quick", overrides=TINY)["estimate"]
    (row,) = found["timed"]
    assert row["steps"] == 12
    assert row["step_seconds"] > 0
    assert row["images_per_s"] == pytest.approx(8 / row["step_seconds"])
    assert found["hours"] == pytest.approx(12 * row["step_seconds"] / 3600)
    if Path("/proc/self/status").exists():
        # Weights, gradients and momentum of 11.2 million parameters, and torch; not the memory of a large machine.
        assert 3 * 4 * 11.2e6 / 2**30 < found["memory_gib"] < 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.duration=2 steps", "A training of 2 steps is too short"),
        ("method.widht=3", "method.widht: unknown key"),
    ],
)
def test_a_recipe_that_cannot_be_timed_is_an_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lightssl.study_grid("basic-81", limit=1, scale="quick", overrides=[*TINY, override])


@pytest.mark.slow
def test_what_stops_the_timed_process_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- {name: of-one-size, backbone: timm:levit_128s}\n")
    with pytest.raises(ConfigError, match=r"of-one-size cannot be trained: views\.global\.size is 32 pixels"):
        lightssl.study_grid(str(tmp_path / "mine.yaml"), scale="quick", overrides=TINY)


# ------------------------------------------------------------------------------------------------------------- command


@pytest.mark.slow
def test_the_command_prints_members_and_the_estimate(program: Program) -> None:
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    done = program("study", "grid", "basic-81", "--limit", "2", "--scale", "quick", *settings)
    assert "2 members of basic-81, at 224 pixels" in done.stdout
    assert "basic-2223" in done.stdout
    assert "1,813.6M" in done.stdout
    assert "Pre-training all 2, one after the other on this machine: about" in done.stdout
    assert "minutes" in done.stdout
    assert "Timing steps" in done.stderr


def test_the_command_prints_json_alone(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- {name: half, backbone: {name: mobilenetv2, width: 0.5}}\n")
    found = json.loads(program("study", "grid", "mine.yaml", "--no-timing", "--json").stdout)
    assert found["estimate"] is None
    (row,) = found["members"]
    assert row["backbone"] == {"name": "mobilenetv2", "width": 0.5}
    assert row["depths"] is None


def test_what_is_wrong_is_said_without_a_traceback(program: Program) -> None:
    done = program("study", "grid", "one-network", check=False)
    assert done.returncode == 2
    assert "Did you mean 'one-network-116'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_times_and_memory_are_written_for_people() -> None:
    assert command._time(123.456) == "123.5 hours"
    assert command._time(0.05) == "3.0 minutes"
    assert command._memory({"memory_gib": 1.234, "device_memory_gib": None}) == "1.23 GiB"
    assert command._memory({"memory_gib": None, "device_memory_gib": 2}) == "unknown and 2.00 GiB on the GPU"
