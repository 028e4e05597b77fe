import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.optim import LARS, adamw, parameter_groups, sgd
from lightssl.train import OPTIMIZERS


def reference_step(p, g, mu, *, lr, wd, momentum, trust, adapt):  # type: ignore[no-untyped-def]
    """LARS for one parameter in float64, as the released SSL code computes it."""
    g = g + wd * p
    if adapt:
        pn, gn = p.norm(), g.norm()
        g = g * (trust * pn / gn if pn > 0 and gn > 0 else 1.0)
    mu = momentum * mu + g
    return p - lr * mu, mu


def test_lars_follows_the_reference_for_many_steps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Linear(4, 2)
    )
    nn.init.zeros_(network[3].weight)  # a norm of 0 is not scaled
    groups = parameter_groups(network)
    optimizer = LARS(groups, momentum=0.9, trust=0.001)
    settings = {id(p): group for group in groups for p in group["params"]}
    exact = {p: (p.detach().double().clone(), torch.zeros_like(p, dtype=torch.float64)) for p in network.parameters()}
    for step in range(6):
        lr, wd = 0.5 / (step + 1), 0.01
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr, wd if group["decay"] else 0.0
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        for p, (value, mu) in exact.items():
            group = settings[id(p)]
            exact[p] = reference_step(
                value,
                p.grad.double(),
                mu,
                lr=lr,
                wd=wd if group["decay"] else 0.0,
                momentum=0.9,
                trust=0.001,
                adapt=group["adapt"],
            )
    for p, (value, _) in exact.items():
        torch.testing.assert_close(p.double(), value, atol=1e-6, rtol=1e-5)


def test_parameters_without_gradient_stay() -> None:
    layer = nn.Linear(3, 3)
    optimizer = LARS(parameter_groups(layer))
    optimizer.param_groups[0]["lr"] = 1.0
    before = layer.weight.clone()
    layer.bias.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not optimizer.state.get(layer.weight)


def test_groups_of_mobilenetv2() -> None:
    network = MobileNetV2()
    rest, depthwise, one_dimensional = parameter_groups(network)
    assert all(p.ndim == 4 for p in rest["params"])
    assert len(depthwise["params"]) == 17  # one in each inverted residual block
    assert all(p.shape[1] == 1 for p in depthwise["params"])
    assert all(p.ndim == 1 for p in one_dimensional["params"])
    assert [(g["decay"], g["adapt"]) for g in (rest, depthwise, one_dimensional)] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert sum(len(g["params"]) for g in (rest, depthwise, one_dimensional)) == len(list(network.parameters()))


def test_frozen_parameters_are_in_no_group() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    assert [p for g in parameter_groups(layer) for p in g["params"]] == [layer.bias]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs_also_for_a_parameter_whose_first_gradient_comes_later(momentum: float, nesterov: bool) -> None:
    follow_torchs(
        lambda layers: sgd(parameter_groups(layers), momentum=momentum, nesterov=nesterov and momentum > 0),
        lambda layers: SGD(layers.parameters(), momentum=momentum, nesterov=nesterov and momentum > 0, fused=False),
    )


def test_adamw_is_torchs_also_for_a_parameter_whose_first_gradient_comes_later() -> None:
    follow_torchs(
        lambda layers: adamw(parameter_groups(layers), betas=(0.9, 0.95)),
        lambda layers: AdamW(layers.parameters(), betas=(0.9, 0.95), fused=False),
    )


def follow_torchs(ours: Callable[[nn.Module], Optimizer], theirs: Callable[[nn.Module], Optimizer]) -> None:
    """Give both the same gradients for six steps, the last layer's from the third on."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    exact = copy.deepcopy(layers)
    optimizers = [ours(layers), theirs(exact)]
    for step in range(6):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"], group["weight_decay"] = 0.1 / (step + 1), 0.05
        for index, (parameter, twin) in enumerate(zip(layers.parameters(), exact.parameters(), strict=True)):
            parameter.grad = torch.randn_like(parameter) if step >= 2 or index == 0 else None
            twin.grad = parameter.grad
        for optimizer in optimizers:
            optimizer.step()
        for parameter, twin in zip(layers.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(parameter, twin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_optimizer_goes_on_from_its_state_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    twin = copy.deepcopy(layers)
    gradients = [[torch.randn_like(parameter) for parameter in layers.parameters()] for _ in range(6)]

    def take(optimizer: Optimizer, network: nn.Module, steps: range) -> None:
        for step in steps:
            for group in optimizer.param_groups:
                group["lr"], group["weight_decay"] = 0.1, 0.01
            for parameter, gradient in zip(network.parameters(), gradients[step], strict=True):
                parameter.grad = gradient
            optimizer.step()

    whole, first, second = (OPTIMIZERS[name](parameter_groups(network)) for network in (layers, twin, twin))
    take(whole, layers, range(6))
    take(first, twin, range(3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take(second, twin, range(3, 6))
    for parameter, other in zip(layers.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, other)
