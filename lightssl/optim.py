"""Optimisers and the parameter groups that they treat apart.

Learning rate and weight decay are not set here: :class:`lightssl.train.schedule.Schedule` sets both before every step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from lightssl.types import Positive, Share

Groups = list[dict[str, Any]]


def parameter_groups(network: nn.Module, *, leave_out: Iterable[nn.Parameter] = ()) -> Groups:
    """Sort the trainable parameters into SSLight's three groups.

    (a) the rest; (b) depthwise convolutions, without weight decay; (c) one-dimensional parameters (biases and
    normalisation), without weight decay and without LARS's scaling. ``decay`` and ``adapt`` say which applies.
    Parameters to ``leave_out`` are those that something else trains.
    """
    left_out = set(leave_out)
    depthwise = {
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    }
    rest, without_decay, one_dimensional = [], [], []
    for parameter in network.parameters():
        if not parameter.requires_grad or parameter in left_out:
            continue
        if parameter.ndim <= 1:
            one_dimensional.append(parameter)
        elif parameter in depthwise:
            without_decay.append(parameter)
        else:
            rest.append(parameter)
    groups = [
        {"params": rest, "decay": True, "adapt": True},
        {"params": without_decay, "decay": False, "adapt": True},
        {"params": one_dimensional, "decay": False, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), as the released SSL code has it.

    Weight decay is added to the gradient, the sum is scaled by ``trust * |p| / |g|`` (by 1 where either norm is 0),
    momentum is taken on the scaled gradient, and the learning rate multiplies last.

    Args:
        groups: Parameter groups; those with ``adapt`` False are not scaled.
        momentum: Of the scaled gradient.
        trust: The trust coefficient.
    """

    def __init__(self, groups: Groups, *, momentum: float = 0.9, trust: float = 0.001) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum, "trust": trust, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters if p.grad is not None]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
            if group["adapt"]:
                gradients = list(torch._foreach_mul(gradients, _trust_ratios(parameters, gradients, group["trust"])))
            buffers = _momentum_buffers(self, parameters)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


def _trust_ratios(parameters: list[Tensor], gradients: list[Tensor], trust: float) -> tuple[Tensor, ...]:
    p_norms, g_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, gradients))
    scalable = (p_norms > 0) & (g_norms > 0)
    return torch.where(scalable, trust * p_norms / g_norms, 1.0).unbind()


class FusedSGD(SGD):
    """torch's SGD with its fused kernel: one pass over the parameters instead of one for each operation.

    The kernel takes momentum of all parameters of a group or of none. A parameter that gets its first gradient later
    than others, as frozen prototypes do, therefore begins with a momentum of zero, which gives the same result.
    """

    def __init__(self, groups: Groups, *, momentum: float, nesterov: bool) -> None:
        super().__init__(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            if group["momentum"]:
                _momentum_buffers(self, [p for p in group["params"] if p.grad is not None])
        return super().step(closure)


def _momentum_buffers(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Return the momentum of each parameter, zero at first."""
    states = [optimizer.state[parameter] for parameter in parameters]
    for parameter, state in zip(parameters, states, strict=True):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
    return [state["momentum_buffer"] for state in states]


def lars(groups: Groups, *, momentum: Share = 0.9, trust: Positive = 0.001) -> Optimizer:
    """LARS: see :class:`LARS`."""
    return LARS(groups, momentum=momentum, trust=trust)


def sgd(groups: Groups, *, momentum: Share = 0.9, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return FusedSGD(groups, momentum=momentum, nesterov=nesterov)


def adamw(groups: Groups, *, betas: tuple[Share, Share] = (0.9, 0.999), epsilon: Positive = 1e-8) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return AdamW(groups, lr=0.0, betas=betas, eps=epsilon, fused=True)
