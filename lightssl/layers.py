"""Layers that compute what torch's do in training: at less cost in memory or time, or where torch's may go wrong."""

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
    """A depthwise convolution that goes around slow spots of oneDNN (3.12) on a CPU.

    - On maps that are smaller than the kernel, both passes take up to some hundred times as long as on larger ones:
      taps that never meet the map are left out.
    - The gradient of the weight is fast for kernels of 3 alone, in bfloat16 at any size of map: larger kernels are put
      together from pieces of 3.
    - The gradient of the input, in bfloat16 and with a stride, takes some fifteen times as long as in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            weight, padding = _within_reach(input, self.weight, self.padding)  # type: ignore[arg-type]
            return F.conv2d(input, weight, None, self.stride, padding, groups=self.groups)
        output: Tensor = _Depthwise.apply(input, self.weight, self.stride, self.padding)
        return output


class HostConvolution(nn.Conv2d):
    """A convolution that leaves out the taps of its kernel that meet nothing but padding, on a CPU.

    oneDNN (3.12) takes the gradient of those taps, in bfloat16, from memory that nothing was written to. It may be
    anything: a loss that was falling becomes NaN, at another step each time. Kernels of 3 with a stride, on maps of one
    position, are such a case: the last stage of a ResNet, on local views of 14 pixels.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        weight, padding = _within_reach(input, self.weight, self.padding)  # type: ignore[arg-type]
        return F.conv2d(input, weight, self.bias, self.stride, padding, self.dilation, self.groups)


_FAST = 3  # size of the kernels that oneDNN has fast code for


class _Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, input: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        kept, padding = _within_reach(input, weight, padding)
        ctx.save_for_backward(input, kept)
        ctx.shape = weight.shape
        ctx.settings = {"stride": stride, "padding": padding, "groups": len(weight)}
        return F.conv2d(input, kept, **ctx.settings)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        input, weight = ctx.saved_tensors
        slow = input.dtype == torch.bfloat16 and max(ctx.settings["stride"]) > 1
        wide = torch.float32 if slow else input.dtype
        to_input = conv2d_input(input.shape, weight.to(wide), gradient.to(wide), **ctx.settings).to(input.dtype)
        small_map = any(side < kernel for side, kernel in zip(input.shape[2:], weight.shape[2:], strict=True))
        large_kernel = input.dtype == torch.bfloat16 and max(weight.shape[2:]) > _FAST
        if weight[0].numel() == 1 and not any(ctx.settings["padding"]):
            met = input[:, :, :: ctx.settings["stride"][0], :: ctx.settings["stride"][1]]
            to_weight = (met * gradient).sum(dim=(0, 2, 3)).view_as(weight)
        elif small_map or large_kernel:
            to_weight = _in_pieces(input, gradient, weight.shape, ctx.settings["stride"], ctx.settings["padding"])
        else:
            to_weight = conv2d_weight(input, weight.shape, gradient, **ctx.settings)
        top, left = ((full - kept) // 2 for full, kept in zip(ctx.shape[2:], weight.shape[2:], strict=True))
        return to_input, F.pad(to_weight, (left, left, top, top)), None, None


def _within_reach(input: Tensor, weight: Tensor, padding: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """Leave out the taps of a centred kernel that see nothing but padding; return the rest, and its padding."""
    top, left = (
        max(0, pad - (side - 1)) if kernel == 2 * pad + 1 else 0
        for side, kernel, pad in zip(input.shape[2:], weight.shape[2:], padding, strict=True)
    )
    if not top and not left:
        return weight, (padding[0], padding[1])
    kept = weight[:, :, top : weight.shape[2] - top, left : weight.shape[3] - left]
    return kept, (padding[0] - top, padding[1] - left)


def _in_pieces(
    input: Tensor, gradient: Tensor, shape: torch.Size, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Compute the gradient of a depthwise weight as those of kernels of at most 3, each on its part of the input."""
    padded = F.pad(input, (padding[1], padding[1], padding[0], padding[0]))
    whole = gradient.new_empty(shape)
    piece = [min(_FAST, kernel) for kernel in shape[2:]]
    span = [step * (side - 1) + part for step, side, part in zip(stride, gradient.shape[2:], piece, strict=True)]
    for top in _starts(shape[2]):
        for left in _starts(shape[3]):
            seen = padded[:, :, top : top + span[0], left : left + span[1]]
            whole[:, :, top : top + piece[0], left : left + piece[1]] = conv2d_weight(
                seen, (*shape[:2], *piece), gradient, stride=stride, groups=shape[0]
            )
    return whole


def _starts(kernel: int) -> list[int]:
    """Return where pieces begin that cover a kernel; the last two may overlap."""
    return [*range(0, kernel - _FAST, _FAST), max(0, kernel - _FAST)]


def use_training_layers(network: nn.Module, device: torch.device) -> None:
    """Replace layers of a network by the ones here, which share its weights; its state stays as it is."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.ReLU6:
                setattr(parent, name, LeanReLU6(layer.inplace).train(layer.training))
            elif device.type == "cpu" and type(layer) is nn.Conv2d and _is_plain(layer):
                if layer.groups == layer.in_channels == layer.out_channels > 1 and layer.bias is None:
                    setattr(parent, name, _host_version(layer, HostDepthwise))
                elif any(layer.padding):
                    setattr(parent, name, _host_version(layer, HostConvolution))


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.dilation == (1, 1) and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)


def _host_version(layer: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    version = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    version._parameters = layer._parameters
    return version.train(layer.training)
