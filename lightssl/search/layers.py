"""What candidates are made of, without building them: each part of a network as a list of its layers.

FLOPs, parameters and the kernels that a device runs all follow from the same layers.
"""

from typing import Any, NamedTuple, Protocol

from lightssl.deploy.kernels import BYTES, Kernel
from lightssl.deploy.kernels import convolution as convolution_kernel
from lightssl.errors import ConfigError


class Layer(NamedTuple):
    """One layer as a device runs it: batch norm is folded in, and activations are applied in passing."""

    kernel: Kernel  # its multiply-accumulates are the FLOPs
    parameters: int = 0


Layers = list[Layer]


class Family(Protocol):
    """The parts of one family of networks. Sides are those of square maps, in positions."""

    strides: tuple[int, ...]  # of the first block of each stage

    def side(self, image_size: int) -> int:
        """Side of the maps that enter the first stage."""

    def stem(self, image_size: int, width: int) -> Layers:
        """What comes before the first stage, which is ``width`` wide."""

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Layers:
        """A block behind a stage that is ``inputs`` wide, None for the stem, on input maps of ``side``."""

    def tail(self, width: int, side: int) -> Layers:
        """What comes after the last stage, which is ``width`` wide and has maps of ``side``."""


def _convolution(inputs: int, outputs: int, kernel: int, side: int, *, stride: int = 1, groups: int = 1) -> Layer:
    """A convolution without bias on maps of ``side``, and the batch norm after it."""
    out = _reduced(side, stride)
    made = convolution_kernel(
        (inputs, side, side), (outputs, out, out), kernel=(kernel, kernel), strides=(stride,), groups=groups
    )
    return Layer(made, made.macs // out**2 + 2 * outputs)


def _product(kind: str, rows: int, summed: int, columns: int, *, times: int = 1, parameters: int = 0) -> Layer:
    """So many products of matrices [rows, summed] and [summed, columns]."""
    values = times * (rows * summed + summed * columns + rows * columns)
    return Layer(Kernel(kind, times * rows * summed * columns, BYTES * values), parameters)


def _linear(inputs: int, outputs: int, tokens: int) -> Layer:
    """A linear layer with bias."""
    return _product("pointwise", tokens, inputs, outputs, parameters=inputs * outputs + outputs)


def _mover(kind: str, *values: int, parameters: int = 0) -> Layer:
    """A layer that reads and writes so many values, and multiplies none with weights."""
    return Layer(Kernel(kind, 0, BYTES * sum(values)), parameters)


def _sum(values: int) -> Layer:
    """A residual addition."""
    return _mover("elementwise", 3 * values)


def _mean(width: int, side: int) -> Layer:
    """The mean over all positions of maps."""
    return _mover("pooling", width * side**2, width)


def _reduced(side: int, stride: int) -> int:
    return -(-side // stride)


# The options of each family are those of its backbone; ``init`` and ``drop_path`` change no layer.


class _MobileNetV2:
    strides = (1, 2, 2, 2, 1, 2, 1)
    _stem_width, _tail_width = 32, 1280

    def __init__(self, *, stem: str = "standard", width: float = 1.0, init: str = "") -> None:
        if width != 1.0:
            raise ConfigError(f"backbone.width is {width}: a search chooses widths itself.", "Leave it at 1.0.")
        self._stride = 1 if stem == "small" else 2

    def side(self, image_size: int) -> int:
        return _reduced(image_size, self._stride)

    def stem(self, image_size: int, width: int) -> Layers:
        return [_convolution(3, self._stem_width, 3, image_size, stride=self._stride)]

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Layers:
        kernel, expansion = settings
        inputs = inputs or self._stem_width
        hidden, out = inputs * expansion, _reduced(side, stride)
        layers = [
            _convolution(hidden, hidden, kernel, side, stride=stride, groups=hidden),
            _convolution(hidden, width, 1, out),
        ]
        if expansion != 1:
            layers.insert(0, _convolution(inputs, hidden, 1, side))
        if stride == 1 and inputs == width:
            layers.append(_sum(width * out**2))
        return layers

    def tail(self, width: int, side: int) -> Layers:
        return [_convolution(width, self._tail_width, 1, side), _mean(self._tail_width, side)]


class _ResNet:
    strides = (1, 2, 2, 2)
    _stem_width = 64

    def __init__(self, *, block: str = "basic", stem: str = "standard", init: str = "") -> None:
        self._expansion = 4 if block == "bottleneck" else 1
        self._small = stem == "small"

    def side(self, image_size: int) -> int:
        return image_size if self._small else _reduced(_reduced(image_size, 2), 2)

    def stem(self, image_size: int, width: int) -> Layers:
        if self._small:
            return [_convolution(3, self._stem_width, 3, image_size)]
        before = _reduced(image_size, 2)
        after = _reduced(before, 2)
        pooling = _mover("pooling", self._stem_width * before**2, self._stem_width * after**2)
        return [_convolution(3, self._stem_width, 7, image_size, stride=2), pooling]

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Layers:
        out, outputs = _reduced(side, stride), width * self._expansion
        channels = self._stem_width if inputs is None else inputs * self._expansion
        if self._expansion == 1:
            layers = [_convolution(channels, width, 3, side, stride=stride), _convolution(width, width, 3, out)]
        else:
            layers = [
                _convolution(channels, width, 1, side),
                _convolution(width, width, 3, side, stride=stride),
                _convolution(width, outputs, 1, out),
            ]
        if stride != 1 or channels != outputs:
            layers.append(_convolution(channels, outputs, 1, side, stride=stride))
        return [*layers, _sum(outputs * out**2)]

    def tail(self, width: int, side: int) -> Layers:
        return [_mean(width * self._expansion, side)]


class _ViT:
    strides = (1,)
    _head_width = 64

    def __init__(self, *, patch: int = 16, image_size: int = 224, drop_path: float = 0.0) -> None:
        self._patch = patch
        self._native_side = image_size // patch

    def side(self, image_size: int) -> int:
        return image_size // self._patch

    def stem(self, image_size: int, width: int) -> Layers:
        side = self.side(image_size)
        patches, whole = side**2, side * self._patch
        embedding = convolution_kernel(
            (3, whole, whole), (width, side, side), kernel=(self._patch,) * 2, strides=(self._patch,)
        )
        # Rows are dropped first, then columns.
        cropping = [
            _mover("layout", 3 * image_size**2, 3 * whole * image_size),
            _mover("layout", 3 * whole * image_size, 3 * whole**2),
        ]
        class_token, positions = width, (self._native_side**2 + 1) * width
        return [
            *(cropping if whole < image_size else []),
            Layer(embedding, 3 * self._patch**2 * width + width),
            _mover("layout", 2 * patches * width),  # positions become tokens
            _mover("layout", patches * width, (patches + 1) * width, parameters=class_token + positions),
        ]

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Layers:
        heads, ratio = settings
        tokens, inside = side**2 + 1, heads * self._head_width
        return [
            self._norm(tokens, width),
            _linear(width, 3 * inside, tokens),
            _mover("layout", 2 * tokens * 3 * inside),  # heads to the front
            *[_mover("layout", tokens * 3 * inside, tokens * inside)] * 3,  # queries, keys and values apart
            _mover("layout", 2 * tokens * inside),  # keys transposed
            _product("matmul", tokens, self._head_width, tokens, times=heads),
            _mover("normalisation", 2 * heads * tokens**2),  # the softmax
            _product("matmul", tokens, tokens, self._head_width, times=heads),
            _mover("layout", 2 * tokens * inside),  # heads side by side
            _linear(inside, width, tokens),
            _sum(tokens * width),
            self._norm(tokens, width),
            _linear(width, ratio * width, tokens),
            _linear(ratio * width, width, tokens),
            _sum(tokens * width),
        ]

    def tail(self, width: int, side: int) -> Layers:
        tokens = side**2 + 1
        return [self._norm(tokens, width), _mover("layout", tokens * width, width)]  # the class token alone

    def _norm(self, tokens: int, width: int) -> Layer:
        return _mover("normalisation", 2 * tokens * width, parameters=2 * width)


FAMILIES: dict[str, Any] = {"mobilenetv2": _MobileNetV2, "resnet": _ResNet, "vit": _ViT}
