"""Operations of chains against formulas in float64, and what mixing them is."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightssl.chains import OPERATIONS, SEARCHED, Chain, MixedLayer, operation
from lightssl.errors import ConfigError

EPSILON = 1e-5  # of torch's batch norm
WIDTHS = {"keeps": (6, 6), "narrows": (8, 5), "widens": (5, 8)}


def normalised(x: Tensor) -> Tensor:
    mean = x.sum(0) / len(x)
    return (x - mean) / ((x - mean).pow(2).sum(0) / len(x) + EPSILON).sqrt()


def with_neighbours(x: Tensor, beyond: float) -> Tensor:
    """Each feature after its left and before its right neighbour: [3, B, D]."""
    edge = torch.full_like(x[:, :1], beyond)
    padded = torch.cat([edge, x, edge], dim=1)
    return torch.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]])


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "silu": lambda x: x / (1 + (-x).exp()),
    "hswish": lambda x: x * ((x + 3).clip(0, 6) / 6),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: normalised(with_neighbours(x, -float("inf")).amax(0)),
    "avg": lambda x: normalised(with_neighbours(x, 0.0).sum(0) / 3),
    "id": lambda x: x,
}


def reference(name: str, x: Tensor, linear: nn.Linear | None) -> Tensor:
    """The operation by the paper, with the weights of its linear layer, if it has one."""
    if linear is None:
        return POOLS[name](x)
    mapped = x @ linear.weight.T
    before, after = x.shape[1], len(linear.weight)
    if before < after:
        assert linear.bias is not None
        mapped = mapped + linear.bias
        return POOLS[name](mapped) if name in POOLS else mapped
    if name in POOLS:
        return POOLS[name](ACTIVATIONS["relu"](normalised(mapped)))
    return ACTIVATIONS[name](normalised(mapped))


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_the_papers(name: str, widths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = operation(name, *widths).double()
    linear = next((module for module in layer.modules() if isinstance(module, nn.Linear)), None)
    assert (linear is None) == (name in POOLS and widths[0] == widths[1])
    x = 2 * torch.randn(16, widths[0], dtype=torch.float64) + 1
    torch.testing.assert_close(layer(x), reference(name, x, linear))


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_a_mixture_is_the_weighted_sum_and_starts_even(widths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, x = MixedLayer(*widths).double(), torch.randn(16, widths[0], dtype=torch.float64)
    outputs = torch.stack([single(x) for single in layer.operations.values()])
    torch.testing.assert_close(layer(x), outputs.mean(0))

    raw = torch.randn(len(OPERATIONS), dtype=torch.float64)
    layer.architecture.data.copy_(raw)
    share = raw.exp() / raw.exp().sum()
    torch.testing.assert_close(layer(x), (share[:, None, None] * outputs).sum(0))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_mixture_of_one_is_that_operation(name: str) -> None:
    torch.manual_seed(0)
    layer, x = MixedLayer(6, 6), torch.randn(16, 6)
    layer.architecture.data[OPERATIONS.index(name)] = 1e4
    torch.testing.assert_close(layer(x), layer.operations[name](x))


def test_batch_norms_of_a_mixture_are_torchs() -> None:
    """The released code passed the width as epsilon in one of its searches."""
    norms = [module for module in MixedLayer(6, 4).modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 9
    assert {(norm.num_features, norm.eps) for norm in norms} == {(4, EPSILON)}


def test_a_chain_has_a_layer_for_each_operation() -> None:
    chain = Chain("predictor", layers=3).build("hswish avg relu", 8, 4, 8)
    linear = [layer for layer in chain.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8, 4), (4, 8)]
    assert [type(layer) for layer in chain] == [nn.Sequential, nn.Sequential, nn.Linear]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu sillu", "Unknown operation 'sillu'.\nDid you mean 'silu'? Known: max, avg, id, relu"),
        ("relu", "has 1 layers instead of 2.\nName one of max, avg, id"),
        ("relu relu relu", "has 3 layers instead of 2"),
        ("", "has 0 layers instead of 2"),
        (SEARCHED, "cannot be left open in a training.\nFind its operations first: lightssl search-heads"),
    ],
)
def test_what_is_no_chain_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Chain("projector", layers=2).parse(text)
