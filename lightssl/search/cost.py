"""What the candidates of a space cost, many thousands a second: tables for each block, and the sum over a candidate's.

FLOPs and parameters are those that :func:`lightssl.backbones.cost.count_cost` counts on the built network; latency is
what is predicted of the network's ONNX file. Tests hold them to both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightssl.backbones.cost import Cost
from lightssl.backbones.topology import Topology
from lightssl.deploy.prediction import Fit, features
from lightssl.errors import ConfigError
from lightssl.search.layers import FAMILIES, Family, Layers
from lightssl.search.spaces import Candidate, Space

LATENCY = "latency_ms"


class CostTable:
    """FLOPs, for one image, parameters, and latency if it can be predicted, of every candidate of a space.

    Args:
        space: Its input sizes are those that can be asked for.
        fit: Of a device, to predict latency there.
        options: Of the backbone, besides those of the space, as for :meth:`Space.build`.

    Raises:
        ConfigError: The networks have kernels that ``fit`` was not fitted on.
    """

    def __init__(self, space: Space, *, fit: Fit | None = None, **options: Any) -> None:
        self.space = space
        self.names: tuple[str, ...] = Cost._fields if fit is None else (*Cost._fields, LATENCY)
        family: Family = FAMILIES[space.backbone](**space.options, **options)
        price = _Pricing(fit)
        sides = [family.side(size) for size in space.image_sizes]
        self._first, self._further = [], []  # of each stage: its first block, and all others
        previous: tuple[int | None, ...] = (None,)
        for stage, stride in zip(space.stages, family.strides, strict=True):
            # [input size, width of the stage before, width, settings, price]
            first = [
                [
                    [[price(family.block(b, i, w, side, stride)) for b in stage.blocks] for w in stage.widths]
                    for i in previous
                ]
                for side in sides
            ]
            sides = [-(-side // stride) for side in sides]
            # [input size, width, settings, price]
            further = [
                [[price(family.block(b, w, w, side, 1)) for b in stage.blocks] for w in stage.widths] for side in sides
            ]
            self._first.append(np.array(first))
            self._further.append(np.array(further))
            previous = stage.widths
        # [input size, width, price]
        self._stem = np.array([[price(family.stem(s, w)) for w in space.stages[0].widths] for s in space.image_sizes])
        self._tail = np.array([[price(family.tail(w, side)) for w in space.stages[-1].widths] for side in sides])
        price.check_kinds(space)

    def prices(self, genes: np.ndarray) -> np.ndarray:
        """Return what candidates cost, float64 [N, prices] in the order of ``names``, given as genes [N, G].

        FLOPs and parameters are exact: floats hold whole numbers up to 2^53.
        """
        return np.sum(self.parts(genes), axis=0)

    def parts(self, genes: np.ndarray) -> list[np.ndarray]:
        """Return the same of what comes before the stages, of each stage, and of what comes after."""
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
        """Return the FLOPs and parameters of one candidate.

        Raises:
            ConfigError: It is not in the space.
        """
        prices = self.named(candidate)
        return Cost(*(int(prices[name]) for name in Cost._fields))

    def named(self, candidate: Candidate) -> dict[str, float]:
        """Return all that one candidate costs, by name; whole numbers as such.

        Raises:
            ConfigError: It is not in the space.
        """
        prices = self.prices(self.space.encode(candidate)[None])[0].tolist()
        return {n: int(p) if n in Cost._fields else p for n, p in zip(self.names, prices, strict=True)}


def closed_form_cost(backbone: str, topology: Topology, image_size: int, **options: Any) -> Cost | None:
    """Return the FLOPs and parameters of one network, in a space or not; None where there is no closed form.

    Args:
        backbone: Its name.
        topology: Of the backbone.
        image_size: In pixels.
        options: Of the backbone, besides the topology.

    Raises:
        ConfigError: Images of that size are smaller than what the network cuts them into.
    """
    if backbone not in FAMILIES or options.get("width", 1.0) != 1.0:  # a factor of all widths is for torch to round
        return None
    family: Family = FAMILIES[backbone](**options)
    side = family.side(image_size)
    if side < 1:
        raise ConfigError(f"{image_size} pixels are too few for this network.", "Choose a larger size.")
    layers = list(family.stem(image_size, topology[0].width))
    inputs = None
    for stage, first_stride in zip(topology, family.strides, strict=True):
        for position, settings in enumerate(stage.blocks):
            stride = first_stride if position == 0 else 1
            layers += family.block(settings, inputs, stage.width, side, stride)
            inputs, side = stage.width, -(-side // stride)
    layers += family.tail(topology[-1].width, side)
    return Cost(sum(layer.kernel.macs for layer in layers), sum(layer.parameters for layer in layers))


class _Pricing:
    """Prices the parts of networks.

    Args:
        fit: As for :class:`CostTable`.
    """

    def __init__(self, fit: Fit | None) -> None:
        self._fit = fit
        self._unknown: set[str] = set()

    def __call__(self, layers: Layers) -> list[float]:
        kernels = [layer.kernel for layer in layers]
        prices: list[float] = [sum(kernel.macs for kernel in kernels), sum(layer.parameters for layer in layers)]
        if self._fit is not None:
            self._unknown.update(self._fit.unknown(kernels))
            prices.append(float(self._fit.predict(features(kernels))))
        return prices

    def check_kinds(self, space: Space) -> None:
        """Refuse the space if what was priced has kernels that the profile was not fitted on."""
        if self._fit is not None and self._unknown:
            raise ConfigError(
                f"Networks of the space {space.name} have kernels that this profile was not fitted on: "
                f"{', '.join(sorted(self._unknown))}.",
                f"It was fitted on {', '.join(self._fit.kinds)}. Choose a profile of networks of their kind, or a "
                "target that measures: cpu, ssh:HOST or adb.",
            )


def figure(name: str, cost: float) -> str:
    """Write a cost for people: milliseconds with four digits, everything else in full."""
    return f"{float(f'{cost:.4g}'):,g} ms" if name == LATENCY else f"{cost:,.0f}"
