from pathlib import Path
from typing import Any

import pytest

from lightssl.deploy import profile as profiles
from lightssl.deploy.profile import Profile, bench, load_profile, profile_names
from lightssl.deploy.targets import TARGETS
from lightssl.errors import ConfigError


def test_every_shipped_profile_names_a_target() -> None:
    assert "cpu" in profile_names()
    for name in profile_names():
        assert load_profile(name).target in TARGETS


def test_the_profiles_settings_reach_the_target_and_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(model: Path, *, network: None, threads: list[int], seconds: float) -> list[Any]:
        return [model, network, threads, seconds]

    monkeypatch.setattr(profiles, "TARGETS", {"fake": target})
    profile = Profile(about="", target="fake", settings={"threads": [1, 2], "seconds": 1})
    assert bench(Path("m"), profile, settings={"threads": ["3"]}) == [Path("m"), None, [3], 1.0]


def test_what_follows_a_colon_becomes_a_setting() -> None:
    assert load_profile("ssh:pi@[fe80::1]").settings["host"] == "pi@[fe80::1]"
    with pytest.raises(ConfigError, match="'cpu' takes nothing after its name"):
        load_profile("cpu:2")
    with pytest.raises(ConfigError, match="Did you mean 'ssh'"):
        load_profile("shh:pi")
    for name in ("ssh", "ssh:"):
        with pytest.raises(ConfigError, match=r"Which host.*\n--target ssh:HOST"):
            bench(Path("model.onnx"), load_profile(name))


def test_all_wrong_settings_are_told_at_once() -> None:
    changes = {"threads": [1, 0], "warmup": "many", "thread": 1}
    with pytest.raises(ConfigError) as caught:
        bench(Path("model.onnx"), load_profile("cpu"), settings=changes)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["threads.1", "warmup", "thread"]


def test_an_unknown_profile_or_target_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cpu'"):
        load_profile("cpuu")
    with pytest.raises(ConfigError, match="Unknown target 'gpu'"):
        bench(tmp_path, Profile(about="", target="gpu"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: x\ntarget: cpu\nsetting: {}", r"setting: Extra inputs"),
        ("target: cpu", "about: Field required"),
        ("- a list", "is wrong"),
        ("a: [", "Cannot read"),
        ("!!python/object/apply:os.getcwd []", "Cannot read"),
    ],
)
def test_a_wrong_profile_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_profile(path)


def test_a_profile_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("about: a board\ntarget: cpu\nsettings: {threads: [1]}")
    assert load_profile(str(path)).settings == {"threads": [1]}
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_profile(tmp_path / "none.yaml")
