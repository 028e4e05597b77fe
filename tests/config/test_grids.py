"""Grids by name, and from YAML files that list networks."""

from pathlib import Path

import pytest
import yaml

from lightssl.backbones.cost import count_cost
from lightssl.config.grids import load_grid
from lightssl.errors import ConfigError
from lightssl.study.cost import count_member
from lightssl.study.members import Member


def write(path: Path, entries: object) -> str:
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    return str(path)


def test_a_file_lists_networks_as_recipes_name_them(tmp_path: Path) -> None:
    entries = [
        {"name": "half", "backbone": {"name": "mobilenetv2", "width": 0.5}},
        {"name": "deep", "backbone": {"name": "resnet", "topology": "64x1 128x1 256x5 512x1", "stem": "small"}},
        {"name": "tiny", "backbone": "vit_tiny"},
        {"name": "of-timm", "backbone": "timm:mobilenetv3_small_050"},
    ]
    members = load_grid(write(tmp_path / "mine.yaml", entries))
    assert members == [
        Member("half", "mobilenetv2", {"width": 0.5}),
        Member("deep", "resnet", {"topology": "64x1 128x1 256x5 512x1", "stem": "small"}),
        Member("tiny", "vit_tiny", {}),
        Member("of-timm", "timm", {"model": "mobilenetv3_small_050"}),
    ]
    assert [one.depths for one in members] == [None, (1, 1, 5, 1), None, None]
    for one in members:
        assert count_member(one, 64) == count_cost(one.build(), 64)


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    entries = [
        {"name": "a", "backbone": {"name": "mobilenetv2", "widht": 0.5}},
        {"name": "b", "backbone": "resnet81"},
        {"name": "c d", "backbone": {"name": "resnet", "topology": "64x2 128x2"}, "weight": 2},
        {"backbone": {"name": "resnet18", "stem": "large"}},
        {"name": "e", "backbone": "resnet18"},
        {"name": "f", "backbone": {"name": "resnet18"}},
        {"name": "e", "backbone": "resnet34"},
        "resnet50",
        {"name": "g"},
        {"name": "h", "backbone": {"stem": "small"}},
        {"name": "i", "backbone": {"name": "mobilenetv2", "width": "wide"}},
    ]
    with pytest.raises(ConfigError) as caught:
        load_grid(write(tmp_path / "mine.yaml", entries))
    problems = "\n".join(caught.value.problems)
    for expected in (
        "member 1: backbone.widht: unknown key. Did you mean 'width'?",
        "member 2: backbone.name: unknown backbone 'resnet81'. Did you mean 'resnet18'?",
        "member 3: backbone.topology: the topology '64x2 128x2' has 2 stages instead of 4.",
        "member 3: weight: unknown key.",
        "member 3: name: string should match pattern",
        "member 4: backbone.stem: input should be 'standard' or 'small' (got 'large')",
        "member 4: name: missing.",
        "member 6: backbone: f is the same network as e.",
        "member 7: name: 'e' is there twice.",
        "member 8: is not a mapping of keys to values (got 'resnet50')",
        "member 9: backbone: missing.",
        "member 10: backbone.name: missing. Known: mobilenetv2,",
        "member 11: backbone.width: ",
    ):
        assert expected in problems, problems
    assert len(caught.value.problems) == 13
    assert "has 13 problems" in str(caught.value)


@pytest.mark.parametrize("content", ["", "name: a", "[]", "3"])
def test_a_file_that_lists_nothing_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="does not hold a list of networks"):
        load_grid(str(path))


def test_a_grid_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Unknown grid 'one-network'.*\n.*Did you mean 'one-network-116'"):
        load_grid("one-network")
    with pytest.raises(ConfigError, match=r"The grid nowhere.yaml cannot be read"):
        load_grid("nowhere.yaml")
