"""Layers that compute what torch's do, and cost less memory or time in training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight


class LeanReLU6(nn.Module):
    """``nn.ReLU6`` that keeps its output for the backward pass, and not its input as well.

    The layer after it keeps the output anyway, while torch copies the input aside when it works in place. Of three
    activations that torch keeps for a convolution with batch norm and ReLU6, one goes. Values and gradients are those
    of ``nn.ReLU6``, bit for bit.

    Args:
        inplace: Overwrite the input.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Clip to 0..6."""
        if not (torch.is_grad_enabled() and input.requires_grad):
            return F.relu6(input, self.inplace)
        output: Tensor = _ReLU6.apply(input, self.inplace)
        return output


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(input)
        output = F.relu6(input, inplace)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The output is inside of 0..6 exactly where the input was.
        return torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, 0.0, 6.0), None


class HostDepthwise(nn.Conv2d):
    """A depthwise convolution that goes around two slow spots of oneDNN (3.12) in the backward pass on a CPU.

    The gradient of the weight takes some thirty times as long on maps that are smaller than the kernel as on larger
    ones; the gradient of the input, in bfloat16 and with a stride, some fifteen times as long as in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        output: Tensor = _Depthwise.apply(input, self.weight, self.stride, self.padding)
        return output


class _Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, input: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.settings = {"stride": stride, "padding": padding, "groups": len(weight)}
        return F.conv2d(input, weight, **ctx.settings)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        input, weight = ctx.saved_tensors
        slow = input.dtype == torch.bfloat16 and max(ctx.settings["stride"]) > 1
        wide = torch.float32 if slow else input.dtype
        to_input = conv2d_input(input.shape, weight.to(wide), gradient.to(wide), **ctx.settings).to(input.dtype)
        if any(side < kernel for side, kernel in zip(input.shape[2:], weight.shape[2:], strict=True)):
            input, gradient = _extend(
                input, gradient, weight.shape[2:], ctx.settings["stride"], ctx.settings["padding"]
            )
        return to_input, conv2d_weight(input, weight.shape, gradient, **ctx.settings), None, None


def _extend(
    input: Tensor, gradient: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Add zeros below and to the right until the input is as large as the kernel: they add nothing to its gradient."""
    pads: tuple[list[int], list[int]] = ([], [])
    for i in (1, 0):  # F.pad begins with the last dimension
        side = max(input.shape[2 + i], kernel[i])
        output = (side + 2 * padding[i] - kernel[i]) // stride[i] + 1
        pads[0].extend((0, side - input.shape[2 + i]))
        pads[1].extend((0, output - gradient.shape[2 + i]))
    return F.pad(input, pads[0]), F.pad(gradient, pads[1])


def save_time_and_memory(network: nn.Module, device: torch.device) -> None:
    """Replace layers of a network by the ones here, which share its weights; its state stays as it is."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.ReLU6:
                setattr(parent, name, LeanReLU6(layer.inplace).train(layer.training))
            elif device.type == "cpu" and type(layer) is nn.Conv2d and _is_plain_depthwise(layer):
                setattr(parent, name, _host_version(layer))


def _is_plain_depthwise(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.bias is None
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
    )


def _host_version(layer: nn.Conv2d) -> HostDepthwise:
    version = HostDepthwise(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=False,
        device="meta",
    )
    version._parameters = layer._parameters
    return version.train(layer.training)
