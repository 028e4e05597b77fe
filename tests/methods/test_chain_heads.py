"""Methods whose heads are chains, chosen or mixed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightssl.chains import SEARCHED, MixedChain
from lightssl.errors import ConfigError
from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.search.heads import mixed_layers, searched_parts
from lightssl.types import Clock

# What NASiam gives SimSiam, MoCo and SimCLR, and what is taken for the others: layers of each part, and the widths
# that its layers lead to. The tiny backbone has 6 features; see OPTIONS for the others.
PARTS: dict[str, dict[str, list[tuple[int, int]]]] = {
    "simsiam": {"projector": [(6, 6)] * 6, "predictor": [(16, 8), (8, 8), (8, 8), (8, 16)]},
    "mocov2": {"projector": [(6, 6)] * 4},
    "simclr": {"projector": [(6, 16), *[(16, 16)] * 4, (16, 8)]},
    "dino": {"projector": [(6, 16), *[(16, 16)] * 3]},
    "swav": {"projector": [(6, 16), *[(16, 16)] * 3]},
}
AFTER = {  # what follows the projector: the layers that are not searched
    "simsiam": [(6, 16)],
    "mocov2": [(6, 8)],
    "simclr": [],
    "dino": [(16, 8)],
    "swav": [(16, 8)],
}
OPERATIONS = "hswish avg max id relu elu"
every_method = pytest.mark.parametrize("name", list(PARTS))  # that has chains


def opened(name: str) -> dict[str, str]:
    return dict.fromkeys(PARTS[name], SEARCHED)


def widths(network: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


@every_method
def test_chains_are_as_wide_as_they_should_be(name: str, build: Callable[..., Any]) -> None:
    assert searched_parts(METHODS[name]) == list(PARTS[name])
    linear = {part: " ".join(["relu"] * len(layers)) for part, layers in PARTS[name].items()}
    method = build(name, **linear)
    head = next(getattr(method, branch).head for branch in ("network", "query", "student") if hasattr(method, branch))
    head = getattr(head, "mlp", head)  # DINO's prototypes come after it
    assert widths(head) == [*PARTS[name]["projector"], *AFTER[name]]
    if name == "simsiam":
        assert widths(method.predictor) == PARTS[name]["predictor"]


@every_method
@pytest.mark.parametrize("mixed", [False, True], ids=["chosen", "mixed"])
def test_every_method_trains_its_chains(
    name: str,
    mixed: bool,
    build: Callable[..., Method],
    draw_views: Callable[..., list[Tensor]],
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
) -> None:
    chosen = {part: " ".join(OPERATIONS.split()[: len(layers)]) for part, layers in PARTS[name].items()}
    method = build(name, **(opened(name) if mixed else chosen))
    before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    losses = follow(method, [draw_views(seed) for seed in range(3)], at)
    assert all(map(math.isfinite, losses))
    moved = {name for name, parameter in method.named_parameters() if not torch.equal(parameter, before[name])}
    matrices = {name for name, parameter in method.named_parameters() if parameter.ndim > 1 and "head" in name}
    frozen = {"student.head.prototypes.parametrizations.weight.original1"}  # for the first epoch, as published
    frozen |= {name for name in matrices if name.endswith("original0") or "teacher.head.prototypes" in name}
    assert matrices - frozen <= moved


@every_method
def test_the_loss_reaches_every_layers_architecture(
    name: str, build: Callable[..., Method], draw_views: Callable[..., list[Tensor]], at: Callable[..., Clock]
) -> None:
    method = build(name, **opened(name))
    method(draw_views(), at()).loss.backward()
    layers = mixed_layers(method)
    assert list(layers) == [f"{part}.{n}" for part, of_part in PARTS[name].items() for n in range(len(of_part))]
    for layer in layers.values():
        assert layer.architecture.grad is not None
        assert torch.isfinite(layer.architecture.grad).all()
        assert layer.architecture.grad.abs().max() > 1e-6


@pytest.mark.parametrize(("name", "trained", "averaged"), [("dino", "student", "teacher"), ("mocov2", "query", "key")])
def test_the_architecture_of_an_average_moves_by_the_average_alone(
    name: str, trained: str, averaged: str, build: Callable[..., Any], draw_views: Callable[..., Any], at: Any
) -> None:
    """Encoders that shared one searched module never trained it, in the released code."""
    momentum = {"dino": "teacher_momentum", "mocov2": "momentum"}[name]
    method = build(name, **opened(name), **{momentum: 0.75})
    ours, theirs = (
        next(module for module in getattr(method, branch).modules() if isinstance(module, MixedChain))
        for branch in (trained, averaged)
    )
    assert not {id(p) for p in ours.parameters()} & {id(p) for p in theirs.parameters()}
    method(draw_views(), at()).loss.backward()
    for before, after in zip(ours, theirs, strict=True):
        assert after.architecture.grad is None
        before.architecture.data += 1.0
    method.after_step(at())
    for layer in theirs:
        torch.testing.assert_close(layer.architecture.data, torch.full((7,), 0.25))


@every_method
def test_a_method_refuses_what_is_no_chain(name: str, build: Callable[..., Method]) -> None:
    with pytest.raises(ConfigError, match=r"Unknown operation 'gelu'.\nDid you mean 'elu'"):
        build(name, projector="gelu")
