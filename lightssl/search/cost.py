"""What the candidates of a space cost, many thousands a second: tables for each block, and the sum over a candidate's.

FLOPs and parameters come in closed form and are those that :func:`lightssl.backbones.cost.count_cost` counts on the
built network, which a test holds them to.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightssl.backbones.cost import Cost
from lightssl.errors import ConfigError
from lightssl.search.spaces import Candidate, Space

Prices = np.ndarray  # int64 [2]: FLOPs and parameters


class _Family(Protocol):
    """Prices of the parts of one family of networks. Sides are those of square maps, in positions."""

    strides: tuple[int, ...]  # of the first block of each stage

    def side(self, image_size: int) -> int:
        """Side of the maps that enter the first stage."""

    def stem(self, image_size: int, width: int) -> Prices:
        """What comes before the first stage, which is ``width`` wide."""

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Prices:
        """A block behind a stage that is ``inputs`` wide, None for the stem, on input maps of ``side``."""

    def tail(self, width: int, side: int) -> Prices:
        """What comes after the last stage, which is ``width`` wide."""


class CostTable:
    """FLOPs, for one image, and parameters of every candidate of a space.

    Args:
        space: Its input sizes are those that can be asked for.
        options: Of the backbone, besides those of the space, as for :meth:`Space.build`.
    """

    names = Cost._fields

    def __init__(self, space: Space, **options: Any) -> None:
        self.space = space
        family: _Family = _FAMILIES[space.backbone](**space.options, **options)
        sides = [family.side(size) for size in space.image_sizes]
        self._first, self._further = [], []  # of each stage: its first block, and all others
        previous: tuple[int | None, ...] = (None,)
        for stage, stride in zip(space.stages, family.strides, strict=True):
            # [input size, width of the stage before, width, settings, price]
            first = [
                [[[family.block(b, i, w, side, stride) for b in stage.blocks] for w in stage.widths] for i in previous]
                for side in sides
            ]
            sides = [-(-side // stride) for side in sides]
            # [input size, width, settings, price]
            further = [[[family.block(b, w, w, side, 1) for b in stage.blocks] for w in stage.widths] for side in sides]
            self._first.append(np.array(first))
            self._further.append(np.array(further))
            previous = stage.widths
        # [input size, width, price]
        self._stem = np.array([[family.stem(s, w) for w in space.stages[0].widths] for s in space.image_sizes])
        self._tail = np.array([[family.tail(w, side) for w in space.stages[-1].widths] for side in sides])

    def prices(self, genes: np.ndarray) -> np.ndarray:
        """Return FLOPs and parameters, int64 [N, 2], of candidates given as genes [N, G]."""
        return np.sum(self.parts(genes), axis=0)

    def parts(self, genes: np.ndarray) -> list[np.ndarray]:
        """Return the prices, int64 [N, 2], of what comes before the stages, of each stage, and of what comes after."""
        size, previous = genes[:, 0], np.zeros(len(genes), dtype=int)
        columns = self.space.columns
        parts = [self._stem[size, genes[:, columns[0].width]]]
        for stage, at, first, further in zip(self.space.stages, columns, self._first, self._further, strict=True):
            width, blocks = genes[:, at.width], genes[:, at.blocks]
            depth = np.array(stage.depths)[genes[:, at.depth]]
            total = first[size, previous, width, blocks[:, 0]]
            for position in range(1, stage.depths[-1]):
                present = (position < depth)[:, None]
                total += np.where(present, further[size, width, blocks[:, position]], 0)
            previous = width
            parts.append(total)
        return [*parts, self._tail[size, genes[:, columns[-1].width]]]

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Return mean prices, float64 [prices], of candidates whose genes are drawn independently of each other.

        Args:
            probabilities: Of each gene's choices, [choices]; the mean has gradients for them.
        """
        genes = [gene.double() for gene in probabilities]
        size, columns = genes[0], self.space.columns

        def mean(prices: np.ndarray, *over: Tensor) -> Tensor:
            total = torch.from_numpy(prices).to(size)
            for gene in over:
                total = torch.tensordot(gene, total, dims=1)
            return total

        total = mean(self._stem, size, genes[columns[0].width]) + mean(self._tail, size, genes[columns[-1].width])
        previous = size.new_ones(1)
        for stage, at, first, further in zip(self.space.stages, columns, self._first, self._further, strict=True):
            width, depth, blocks = genes[at.width], genes[at.depth], genes[at.blocks]
            total = total + mean(first, size, previous, width, blocks[0])
            for position in range(1, stage.depths[-1]):
                present = depth[[count > position for count in stage.depths]].sum()
                total = total + present * mean(further, size, width, blocks[position])
            previous = width
        return total

    def cost(self, candidate: Candidate) -> Cost:
        """Return what one candidate costs.

        Raises:
            ConfigError: It is not in the space.
        """
        flops, parameters = self.prices(self.space.encode(candidate)[None])[0]
        return Cost(int(flops), int(parameters))


def _convolution(inputs: int, outputs: int, kernel: int, side: int, *, groups: int = 1) -> Prices:
    """Price a convolution without bias that makes maps of ``side``, and the batch norm after it."""
    weights = outputs * (inputs // groups) * kernel**2
    return np.array([weights * side**2, weights + 2 * outputs])


def _linear(inputs: int, outputs: int, tokens: int) -> Prices:
    """Price a linear layer with bias."""
    return np.array([inputs * outputs * tokens, inputs * outputs + outputs])


def _halved(side: int) -> int:
    return -(-side // 2)


# The options of each family are those of its backbone; ``init`` and ``drop_path`` change no cost.


class _MobileNetV2:
    strides = (1, 2, 2, 2, 1, 2, 1)
    _stem_width, _tail_width = 32, 1280

    def __init__(self, *, stem: str = "standard", width: float = 1.0, init: str = "") -> None:
        if width != 1.0:
            raise ConfigError(f"backbone.width is {width}: a search chooses widths itself.", "Leave it at 1.0.")
        self._small = stem == "small"

    def side(self, image_size: int) -> int:
        return image_size if self._small else _halved(image_size)

    def stem(self, image_size: int, width: int) -> Prices:
        return _convolution(3, self._stem_width, 3, self.side(image_size))

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Prices:
        kernel, expansion = settings
        inputs = inputs or self._stem_width
        hidden, out = inputs * expansion, -(-side // stride)
        depthwise = _convolution(hidden, hidden, kernel, out, groups=hidden)
        price = depthwise + _convolution(hidden, width, 1, out)
        return price if expansion == 1 else price + _convolution(inputs, hidden, 1, side)

    def tail(self, width: int, side: int) -> Prices:
        return _convolution(width, self._tail_width, 1, side)


class _ResNet:
    strides = (1, 2, 2, 2)
    _stem_width = 64

    def __init__(self, *, block: str, stem: str = "standard", init: str = "") -> None:
        self._bottleneck = block == "bottleneck"
        self._small = stem == "small"

    def side(self, image_size: int) -> int:
        return image_size if self._small else _halved(_halved(image_size))

    def stem(self, image_size: int, width: int) -> Prices:
        if self._small:
            return _convolution(3, self._stem_width, 3, image_size)
        return _convolution(3, self._stem_width, 7, _halved(image_size))

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Prices:
        out = -(-side // stride)
        expansion = 4 if self._bottleneck else 1
        channels = self._stem_width if inputs is None else inputs * expansion
        if self._bottleneck:
            narrow = _convolution(channels, width, 1, side)
            price = narrow + _convolution(width, width, 3, out) + _convolution(width, 4 * width, 1, out)
        else:
            price = _convolution(channels, width, 3, out) + _convolution(width, width, 3, out)
        same_shape = stride == 1 and channels == width * expansion
        return price if same_shape else price + _convolution(channels, width * expansion, 1, out)

    def tail(self, width: int, side: int) -> Prices:
        return np.zeros(2, dtype=int)


class _ViT:
    strides = (1,)
    _head_width = 64

    def __init__(self, *, patch: int = 16, image_size: int = 224, drop_path: float = 0.0) -> None:
        self._patch = patch
        self._native_side = image_size // patch

    def side(self, image_size: int) -> int:
        return image_size // self._patch

    def stem(self, image_size: int, width: int) -> Prices:
        patches = _linear(3 * self._patch**2, width, self.side(image_size) ** 2)
        class_token, positions = width, (self._native_side**2 + 1) * width
        return patches + np.array([0, class_token + positions])

    def block(self, settings: Any, inputs: int | None, width: int, side: int, stride: int) -> Prices:
        heads, ratio = settings
        tokens, inside = side**2 + 1, heads * self._head_width
        attention = _linear(width, 3 * inside, tokens) + _linear(inside, width, tokens)
        mlp = _linear(width, ratio * width, tokens) + _linear(ratio * width, width, tokens)
        products, norms = 2 * tokens**2 * inside, 2 * 2 * width
        return attention + mlp + np.array([products, norms])

    def tail(self, width: int, side: int) -> Prices:
        return np.array([0, 2 * width])


_FAMILIES: dict[str, Any] = {"mobilenetv2": _MobileNetV2, "resnet": _ResNet, "vit": _ViT}
