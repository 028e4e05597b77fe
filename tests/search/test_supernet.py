"""A supernet computes exactly what the standalone network of a candidate computes, and trains with every method."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.errors import ConfigError
from lightssl.layers import use_training_layers
from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.optim import parameter_groups
from lightssl.search.spaces import SPACES, Candidate, Space
from lightssl.search.supernet import Supernet, _WithoutInitialisation, activate
from lightssl.types import Clock

METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 12, "teacher_momentum": 0.9, "teacher_momentum_end": 0.9},
    "swav": {"hidden": 16, "bottleneck": 8, "prototypes": 12, "queue": 0},
    "mocov2": {"hidden": 16, "bottleneck": 8, "queue": 8, "momentum": 0.9},
    "simsiam": {"width": 16, "predictor_hidden": 8},
    "simclr": {"hidden": 16, "bottleneck": 8},
}
# Where the standalone network lacks a tensor, or its blocks are joined otherwise than those of the largest one.
CORNERS = {
    "mobilenetv2": [
        "8x1-k5e1 24x1-k3e3 8x2-k7e6-k3e3 16x3-k5e6 16x2-k7e3 8x1-k3e3 24x1-k7e6"
    ],  # stage 5 adds its input
    "resnet_basic": ["64x1 8x3 16x1 24x2", "48x2 24x1 8x1 8x3"],  # with and without a projection in stage 1
    "resnet_bottleneck": ["64x1 8x3 16x1 24x2"],
    "vit": ["48x2-h1m3-h2m2", "64x1-h1m2"],
}


def candidates(space: Space, *, count: int = 3) -> Iterator[Candidate]:
    """Yield both ends of a space, its corner cases, and random candidates."""
    yield from (space.largest, space.smallest)
    yield from (space.candidate(topology, 32) for topology in CORNERS[space.name])
    yield from (space.decode(row) for row in space.sample(np.random.default_rng(0), count))


def build(space: Space, options: dict[str, Any]) -> Supernet:
    """Build a supernet whose running statistics are not those it starts with."""
    torch.manual_seed(0)
    supernet = Supernet(space, **options).train()
    supernet(torch.randn(4, 3, 32, 32))
    return supernet


def draw(size: int = 32, *, images: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(seed))


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_train_mode_is_that_of_the_standalone_network(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options)
    for candidate in candidates(space):
        supernet.activate(candidate)
        supernet.zero_grad()
        standalone = supernet.subnet(candidate)
        ours, theirs = supernet(draw()), standalone(draw())
        width = standalone.feature_width
        assert ours.shape == (4, supernet.feature_width)
        assert torch.equal(ours[:, :width], theirs)
        assert not ours[:, width:].any()
        weights = draw(1, images=len(theirs.flatten()), seed=1)[:, 0, 0, 0].view_as(theirs)  # no gradient cancels out
        (ours[:, :width] * weights).sum().backward()
        (theirs * weights).sum().backward()
        expected = gradients(standalone)
        assert len(expected) == len(list(standalone.parameters()))
        # Where the shared gradients went, and that there is nothing of them anywhere else, tells a subnet of them.
        shared = deepcopy(supernet)
        for parameter, trained in zip(shared.parameters(), supernet.parameters(), strict=True):
            parameter.data = torch.zeros_like(parameter) if trained.grad is None else trained.grad
        for name, gradient in shared.subnet(candidate).named_parameters():
            torch.testing.assert_close(gradient.detach(), expected[name], rtol=1e-5, atol=1e-7)
        total = sum(gradient.abs().sum().double() for gradient in gradients(supernet).values())
        assert float(total) == pytest.approx(sum(float(g.abs().sum().double()) for g in expected.values()), rel=1e-5)
        # The running statistics have moved alike.
        moved = supernet.subnet(candidate).state_dict()
        assert all(torch.equal(moved[name], buffer) for name, buffer in standalone.named_buffers())


@pytest.mark.parametrize("size", [32, 45])
@torch.no_grad()
def test_eval_mode_and_maps_are_those_of_the_standalone_network(small: tuple[Space, dict[str, Any]], size: int) -> None:
    space, options = small
    supernet = build(space, options).eval()
    for candidate in candidates(space):
        supernet.activate(candidate)
        standalone = supernet.subnet(candidate)
        assert not standalone.training
        assert torch.equal(supernet(draw(size))[:, : standalone.feature_width], standalone(draw(size)))
        assert supernet.stages == standalone.stages
        for ours, theirs in zip(supernet.feature_maps(draw(size)), standalone.feature_maps(draw(size)), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@torch.no_grad()
def test_candidates_of_the_real_spaces_compute_what_standalone_networks_do(name: str) -> None:
    space = SPACES[name]
    supernet = build(space, {})
    for row in space.sample(np.random.default_rng(0), 3):
        candidate = space.decode(row)
        supernet.activate(candidate)
        for training in (True, False):
            standalone = supernet.train(training).subnet(candidate)
            assert torch.equal(supernet(draw(64))[:, : standalone.feature_width], standalone(draw(64)))


def test_subnets_are_built_whatever_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch draws truncated distributions until all values are within their bounds."""

    def again(*_: object) -> None:
        raise AssertionError("values beyond the bounds would be drawn again, for ever")

    monkeypatch.setattr(torch, "where", again)
    tensor = torch.full((8,), 1e9)
    with _WithoutInitialisation():
        torch.nn.init.trunc_normal_(tensor, std=0.02)
    assert tensor.abs().max() <= 2


def test_weights_are_shared(small: tuple[Space, dict[str, Any]]) -> None:
    """A step on the smallest candidate changes its part of the weights, and no more."""
    space, options = small
    supernet = build(space, options)
    before = deepcopy(supernet)
    supernet.activate(space.smallest)
    supernet(draw()).square().sum().backward()
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    changed = sum(int((new != old).sum()) for new, old in zip(supernet.parameters(), before.parameters(), strict=True))
    part = sum(parameter.numel() for parameter in supernet.subnet(space.smallest).parameters())
    assert 0.5 * part < changed <= part


def test_a_copy_is_independent_and_keeps_its_candidate(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options).eval()
    supernet.activate(space.smallest)
    copy = deepcopy(supernet)
    assert torch.equal(copy(draw()), supernet(draw()))
    supernet.activate(space.largest)
    assert copy.active == space.smallest
    assert torch.equal(
        copy(draw())[:, : copy.subnet(space.smallest).feature_width], copy.subnet(space.smallest)(draw())
    )


def test_its_state_is_that_of_the_largest_network(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options)
    supernet.activate(space.smallest)
    assert supernet.network.state_dict().keys() == space.build(space.largest, **options).state_dict().keys()
    assert supernet.double().subnet(space.smallest)(draw().double()).dtype == torch.float64
    again = Supernet(space, **options).double()
    again.load_state_dict(supernet.state_dict())
    again.activate(space.smallest)
    assert torch.equal(again.eval()(draw().double()), supernet.eval()(draw().double()))


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_method_trains_it(small: tuple[Space, dict[str, Any]], method: str) -> None:
    """One step under the sandwich rule: the largest, the smallest and random candidates, their gradients added up."""
    space, options = small
    torch.manual_seed(0)
    network: Method = METHODS[method](Supernet(space, **options), (0.4, 0.6), **METHOD_OPTIONS[method]).train()
    use_training_layers(network, torch.device("cpu"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = deepcopy(network)
    optimizer = torch.optim.SGD(parameter_groups(network), lr=0.01)
    views = [torch.randn(2, 4, 3, 32, 32), torch.randn(2, 4, 3, 24, 24)]
    clock = Clock(4, 10, 2, 4)
    for candidate in candidates(space, count=1):
        activate(network, candidate)
        assert {m.active for m in network.modules() if isinstance(m, Supernet)} == {candidate}
        output = network(views, clock)
        assert output.loss.isfinite()
        output.loss.backward()
        network.after_backward(clock)
    for parameter in network.encoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    optimizer.step()
    network.after_step(clock)
    pairs = list(zip(network.named_parameters(), before.parameters(), strict=True))
    moved = [name for (name, new), old in pairs if not torch.equal(new, old)]
    assert len(moved) > 0.9 * len(pairs)  # student and teacher


@pytest.mark.parametrize("method", ["dino", "mocov2"])
def test_a_teacher_can_be_another_candidate(small: tuple[Space, dict[str, Any]], method: str) -> None:
    space, options = small
    network: Method = METHODS[method](Supernet(space, **options), (0.4, 0.6), **METHOD_OPTIONS[method]).train()
    activate(network, space.largest)
    assert isinstance(network.encoder, Supernet)
    network.encoder.activate(space.smallest)
    loss = network([torch.randn(2, 4, 3, 32, 32), torch.randn(2, 4, 3, 24, 24)], Clock(4, 10, 2, 4)).loss
    loss.backward()
    assert loss.isfinite()


def test_the_faster_layers_of_training_change_nothing(small: tuple[Space, dict[str, Any]]) -> None:
    """They take the place of layers after the supernet was built, whichever candidate it then is."""
    space, options = small
    plain = nn.Sequential(build(space, options))
    activate(plain, space.smallest)
    fast = deepcopy(plain)
    use_training_layers(fast, torch.device("cpu"))
    for candidate in candidates(space):
        for supernet in (plain, fast):
            activate(supernet, candidate)
        torch.testing.assert_close(fast(draw()), plain(draw()))


def test_it_trains_in_mixed_precision(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options)
    use_training_layers(supernet, torch.device("cpu"))
    for candidate in candidates(space, count=1):
        supernet.activate(candidate)
        with torch.autocast("cpu", torch.bfloat16):
            features = supernet(draw())
        features.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in supernet.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in supernet.parameters())


def test_statistics_of_a_subnet_are_its_own(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    supernet = build(space, options)
    before = deepcopy(supernet.state_dict())
    estimate_batch_norm(supernet.subnet(space.smallest), [draw(seed=1), draw(seed=2)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_a_candidate_of_another_space_is_refused() -> None:
    supernet = Supernet(SPACES["vit"])
    with pytest.raises(ConfigError, match="not a width of stage 1"):
        supernet.activate(Candidate("vit", 224, "200x12-h3m4"))
    assert supernet.active == SPACES["vit"].largest


def test_depthwise_convolutions_are_told_from_others_whichever_candidate_is_active(
    small: tuple[Space, dict[str, Any]],
) -> None:
    space, options = small
    supernet = build(space, options)

    def groups() -> list[list[torch.Size]]:
        return [[parameter.shape for parameter in group["params"]] for group in parameter_groups(supernet)]

    before = groups()
    supernet.activate(space.smallest)
    assert groups() == before
