"""Costs in closed form are those counted on the built networks, and predicted of their ONNX files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import Cost, count_cost
from lightssl.deploy.kernels import KINDS, count_kernels
from lightssl.deploy.onnx import export_onnx
from lightssl.deploy.prediction import COSTS, Fit, features
from lightssl.deploy.profile import load_profile
from lightssl.errors import ConfigError
from lightssl.search.cost import CostTable, closed_form_cost, figure
from lightssl.search.spaces import SPACES, Space, parse_candidate

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SPACES),
    *((name, {"stem": "small", "init": "near_linear"}) for name in SPACES if name != "vit"),
    ("vit", {"patch": 8, "image_size": 32, "drop_path": 0.1}),
]

# Of no device: each cost is of another size, so that no two kinds of kernel, or missing ones, make up for each other.
FIT = Fit(
    threads=1,
    costs=dict(zip(COSTS, (31.0, 173.0, 59.0, 997.0, 271.0, 503.0, 8.3), strict=True)),
    kinds=list(KINDS),
    left_out="",
    held_out_error_percent=10.0,
    flops_error_percent=20.0,
    interval_factor=1.2,
    measured=[],
)


def shipped(target: str) -> Fit:
    return Fit.model_validate(load_profile(target).settings["fits"][0])


def compare(space: Space, options: dict[str, Any], *, seed: int, count: int) -> None:
    table = CostTable(space, **options)
    genes = space.sample(np.random.default_rng(seed), count)
    for row, prices in zip(genes, table.prices(genes), strict=True):
        candidate = space.decode(row)
        cost = count_cost(space.build(candidate, **options), candidate.image_size)
        assert table.cost(candidate) == cost == tuple(prices)


@pytest.mark.parametrize("options", [{}, {"stem": "small"}], ids=str)
def test_costs_of_small_networks_are_those_counted(
    small: tuple[Space, dict[str, Any]], options: dict[str, str]
) -> None:
    space, own = small
    compare(space, own or options, seed=0, count=4)


@pytest.mark.parametrize("name", SPACES)
def test_one_network_costs_what_the_table_of_its_space_says(name: str) -> None:
    space = SPACES[name]
    table = CostTable(space)
    for genes in space.sample(np.random.default_rng(1), 20):
        candidate = space.decode(genes)
        topology = space.grammar.parse(candidate.topology)
        cost = closed_form_cost(space.backbone, topology, candidate.image_size, **space.options)
        assert cost == table.cost(candidate)


def test_what_has_no_closed_form_is_left_to_others() -> None:
    topology = SPACES["mobilenetv2"].grammar.parse(SPACES["mobilenetv2"].stock["mobilenetv2"])
    assert closed_form_cost("mobilenetv2", topology, 224, width=0.5) is None
    assert closed_form_cost("mobilenetv2", topology, 224, width=1.0) == Cost(299_494_272, 2_223_872)
    assert closed_form_cost("densenet", topology, 224) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_costs_of_random_candidates_are_those_counted(name: str, options: dict[str, Any]) -> None:
    space = replace(SPACES[name], image_sizes=(32, 75, 224))
    compare(space, options, seed=1, count=10)


def compare_latency(space: Space, options: dict[str, Any], path: Path, *, seed: int, count: int) -> None:
    """Hold the table against the file that ``lightssl export`` writes."""
    table = CostTable(space, fit=FIT, **options)
    assert table.names == ("flops", "parameters", "latency_ms")
    genes = space.sample(np.random.default_rng(seed), count)
    for row, prices in zip(genes, table.prices(genes), strict=True):
        candidate = space.decode(row)
        network = space.build(candidate, **options)
        export_onnx(
            network,
            path,
            input_size=candidate.image_size,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            include_normalisation=True,
            metadata={},
            images=None,
        )
        predicted = FIT.predict(features(count_kernels(path)))
        assert prices[2] == pytest.approx(predicted, rel=1e-12)
        costs = {**count_cost(network, candidate.image_size)._asdict(), "latency_ms": prices[2]}
        assert table.named(candidate) == costs  # whole numbers are exact beside latency, too


@pytest.mark.parametrize("options", [{}, {"stem": "small"}], ids=str)
def test_latency_of_small_networks_is_what_is_predicted_of_their_export(
    small: tuple[Space, dict[str, Any]], options: dict[str, str], tmp_path: Path
) -> None:
    space, own = small
    compare_latency(space, own or options, tmp_path / "model.onnx", seed=2, count=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_latency_of_random_candidates_is_what_is_predicted_of_their_export(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    space = replace(SPACES[name], image_sizes=(32, 75, 224))
    compare_latency(space, options, tmp_path / "model.onnx", seed=3, count=3)


@pytest.mark.parametrize(
    ("text", "stock"),
    [
        ("mobilenetv2@224 16x1-k3e1 24x2-k3e6 32x3-k3e6 64x4-k3e6 96x3-k3e6 160x3-k3e6 320x1-k3e6", "mobilenetv2"),
        ("resnet_basic@224 64x2 128x2 256x2 512x2", "resnet18"),
        ("resnet_bottleneck@224 64x3 128x4 256x6 512x3", "resnet50"),
        ("vit@224 192x12-h3m4", "vit_tiny"),
    ],
)
def test_costs_of_stock_networks_are_those_counted(text: str, stock: str) -> None:
    candidate = parse_candidate(text)
    assert CostTable(SPACES[candidate.space]).cost(candidate) == count_cost(BACKBONES[stock](), 224)


@pytest.mark.parametrize("name", SPACES)
def test_no_candidate_costs_less_than_the_smallest_or_more_than_the_largest(name: str) -> None:
    space = SPACES[name]
    table = CostTable(space)
    prices = table.prices(space.sample(np.random.default_rng(0), 20_000))
    assert (prices >= np.array(table.cost(space.smallest))).all()
    assert (prices <= np.array(table.cost(space.largest))).all()


@pytest.mark.parametrize("name", SPACES)
def test_whatever_is_made_larger_costs_more(name: str) -> None:
    """So the first choice of every gene makes the smallest network, and the last ones the largest."""
    space = SPACES[name]
    table = CostTable(space)
    genes = space.sample(np.random.default_rng(1), 500)
    before = table.prices(genes)
    for gene in [0, *(gene for columns in space.columns for gene in (columns.width, columns.depth))]:
        larger = genes.copy()
        larger[:, gene] = np.minimum(genes[:, gene] + 1, space.gene_sizes[gene] - 1)
        assert (table.prices(larger) >= before).all()
    for columns in space.columns:
        for end, sign in ((0, -1), (space.gene_sizes[columns.blocks] - 1, 1)):
            extreme = genes.copy()
            extreme[:, columns.blocks] = end
            assert (sign * (table.prices(extreme) - before) >= 0).all()


@pytest.mark.parametrize("target", ["predict:raspberry-pi-4", "predict:pixel1"])
def test_no_candidate_takes_less_time_than_the_smallest_or_more_than_the_largest(target: str) -> None:
    space = SPACES["mobilenetv2"]
    table = CostTable(space, fit=shipped(target))
    prices = table.prices(space.sample(np.random.default_rng(0), 20_000))[:, 2]
    assert prices.min() >= table.named(space.smallest)["latency_ms"]
    assert prices.max() <= table.named(space.largest)["latency_ms"]


def test_kernels_that_a_profile_was_not_fitted_on_are_named() -> None:
    with pytest.raises(ConfigError, match=r"space vit have kernels .* not fitted on: matmul, normalisation\.\nIt was"):
        CostTable(SPACES["vit"], fit=shipped("predict:raspberry-pi-4"))
    few = FIT.model_copy(update={"kinds": ["pointwise"]})
    with pytest.raises(ConfigError, match=r"not fitted on: conv, depthwise, elementwise, pooling\."):
        CostTable(SPACES["mobilenetv2"], fit=few)


def test_costs_are_written_for_people() -> None:
    costs = {"flops": 300_000_000, "parameters": 3_504_872.0, "latency_ms": 18.87654}
    assert [figure(*cost) for cost in costs.items()] == ["300,000,000", "3,504,872", "18.88 ms"]
    assert [figure("latency_ms", ms) for ms in (0.0451234, 20.0, 1234.56)] == ["0.04512 ms", "20 ms", "1,235 ms"]


def test_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.width is 0\.5"):
        CostTable(SPACES["mobilenetv2"], width=0.5)


@pytest.mark.parametrize("name", SPACES)
def test_prices_are_told_apart_by_stage(name: str) -> None:
    """Another last stage changes nothing before it."""
    space = SPACES[name]
    table = CostTable(space)
    genes = space.sample(np.random.default_rng(0), 50)
    parts = table.parts(genes)
    assert len(parts) == len(space.stages) + 2
    np.testing.assert_array_equal(np.sum(parts, axis=0), table.prices(genes))
    other = genes.copy()
    other[:, space.columns[-1].width :] = 0
    for before, after in zip(parts[: -2 if len(space.stages) > 1 else 0], table.parts(other), strict=False):
        np.testing.assert_array_equal(before, after)
    assert (table.parts(other)[-2] <= parts[-2]).all()
