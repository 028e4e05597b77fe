"""The grids of published studies, and their members."""

import json
from itertools import product

import pytest
import torch

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost
from lightssl.config.grids import load_grid
from lightssl.config.load import load_recipe
from lightssl.methods.base import Method
from lightssl.pipeline import build_method
from lightssl.pipeline.building import options_of
from lightssl.study import GRIDS
from lightssl.study.cost import count_member
from lightssl.study.members import Member
from lightssl.types import Clock

SAMPLE = ["bottleneck-2222", "bottleneck-2343", "resnet18", "resnet50", "mobilenetv2-23433", "mobilenetv2-34544"]


def member(name: str, grid: str = "one-network-116") -> Member:
    (found,) = [one for one in load_grid(grid) if one.name == name]
    return found


@pytest.mark.parametrize(("grid", "count"), [("one-network-116", 116), ("basic-81", 81), ("revisiting", 24)])
def test_a_grid_has_so_many_members_all_distinct(grid: str, count: int) -> None:
    members = load_grid(grid)
    assert len(members) == count
    assert len({one.name for one in members}) == count
    assert len({json.dumps(one.section, sort_keys=True) for one in members}) == count


def test_one_network_has_the_published_parts() -> None:
    depths = {one.name: one.depths for one in load_grid("one-network-116")}
    cubes = {"".join(map(str, stages)): stages for stages in product((2, 3, 4), repeat=4)}
    repeats = list(product((2, 3), (3, 4), (4, 5), (3, 4), (3, 4)))
    expected = {f"bottleneck-{digits}": stages for digits, stages in cubes.items()}
    expected |= {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
    expected |= {f"mobilenetv2-{''.join(map(str, middle))}": (1, *middle, 1) for middle in repeats}
    assert depths == expected
    assert {one.options.get("block") for one in load_grid("basic-81")} == {"basic"}
    assert {one.depths for one in load_grid("basic-81")} == set(cubes.values())


def test_revisiting_has_six_architectures_in_four_widths() -> None:
    members = load_grid("revisiting")
    with torch.device("meta"):
        networks = {one.name: one.build() for one in members}
    for name, network in networks.items():
        assert network.feature_width == 512 * int(name.rsplit("-", 1)[1])
    relus = {one.name for one in members if one.options.get("final_relu", True)}
    assert {name for name in networks if "no-relu" in name} == networks.keys() - relus
    assert len(relus) == 16


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", "resnet18"),
        ("resnet34", "resnet34"),
        ("resnet50", "resnet50"),
        ("mobilenetv2-23433", "mobilenetv2"),
    ],
)
def test_stock_networks_are_members(name: str, published: str) -> None:
    with torch.device("meta"):
        assert shapes(member(name).build()) == shapes(BACKBONES[published]())


@pytest.mark.parametrize("grid", GRIDS)
def test_every_member_builds_with_the_parameters_that_are_printed(grid: str) -> None:
    for one in load_grid(grid):
        with torch.device("meta"):
            network = one.build()
        assert count_member(one, 32).parameters == sum(p.numel() for p in network.parameters()), one.name


@pytest.mark.parametrize(
    ("grid", "smallest", "largest"),
    [
        ("one-network-116", "mobilenetv2-23433", "bottleneck-4444"),
        ("basic-81", "basic-2222", "basic-4444"),
    ],
)
def test_parameters_and_flops_range_from_the_shallowest_to_the_deepest(grid: str, smallest: str, largest: str) -> None:
    costs = {one.name: count_member(one, 224) for one in load_grid(grid)}
    # ResNet50 has as many blocks as the deepest bottleneck ResNet, and so as many FLOPs, but fewer of the wide ones.
    for key in (lambda name: costs[name], lambda name: costs[name].parameters):
        assert min(costs, key=key) == smallest
        assert max(costs, key=key) == largest


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("image_size", [224, 65])
def test_costs_are_those_counted_on_the_network(name: str, image_size: int) -> None:
    assert count_member(member(name), image_size) == count_cost(member(name).build(), image_size)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_member_goes_into_a_recipe_and_takes_a_step(name: str) -> None:
    one = member(name)
    settings = ["views.global_size=32", "method.hidden=16", "method.bottleneck=8"]
    recipe = load_recipe("resnet18_simclr_cifar", scale="quick", overrides=[one.override, *settings])
    assert recipe.backbone.name == one.backbone
    assert one.options.items() <= options_of(recipe.backbone).items()
    method: Method = build_method(recipe)
    with torch.device("meta"):
        expected = shapes(one.build())
    assert shapes(method.encoder) == expected
    before = [parameter.clone() for parameter in method.encoder.parameters()]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    output = method([torch.randn(2, 4, 3, 32, 32)], Clock(0, 10, 5, 4), None)
    output.loss.backward()
    optimizer.step()
    assert torch.isfinite(output.loss)
    assert any((old != new).any() for old, new in zip(before, method.encoder.parameters(), strict=True))


def test_members_that_differ_in_depths_and_widths_alone_are_one_family() -> None:
    families: dict[str, list[str]] = {}
    for one in load_grid("one-network-116"):
        families.setdefault(one.family, []).append(one.name)
    assert sorted(len(names) for names in families.values()) == [2, 32, 82]
    assert ["resnet18", "resnet34"] in families.values()
    assert len({one.family for one in load_grid("revisiting")}) == 6
