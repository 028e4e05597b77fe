"""Search for heads: NASiam (Heuillet et al. 2023, arXiv 2302.00059), for every method whose heads can be chains.

Every layer begins as all operations mixed. Weights are trained on one half of the images, the mixture on the other, in
turns and with the method's own loss; in the end each layer keeps the operation with the largest share. The paper has
SimSiam, MoCo and SimCLR; DINO and SwAV are searched alike here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from torch import nn
from torch.optim import Adam, AdamW

from lightssl.chains import OPERATIONS, Chain, MixedChain, MixedLayer
from lightssl.errors import ConfigError
from lightssl.methods.base import Method
from lightssl.train.architecture import ArchitectureSteps
from lightssl.types import Batch, NonNegative, Positive
from lightssl.units import Duration

Shares = dict[str, dict[str, float]]  # of each operation, by layer: {"projector.0": {"max": 0.14, ...}, ...}


@dataclass(frozen=True, kw_only=True)
class HeadSearch:
    """How heads are searched. The defaults are the paper's; SimCLR's architecture is trained by Adam there.

    Args:
        duration: Of the weights' training, on their half of the images; the architecture takes as many steps.
        optimizer: Of the architecture.
        rate: Its learning rate.
        weight_decay: Of AdamW, as the released code has it.
    """

    duration: Duration = Duration(100, "epochs")
    optimizer: Literal["adamw", "adam"] = "adamw"
    rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-3

    def steps(self, method: Method, batches: Callable[[int], Iterable[Batch]]) -> ArchitectureSteps:
        """Return what trains the architecture of a method with mixed heads.

        Args:
            method: The method.
            batches: As for :class:`ArchitectureSteps`, of the architecture's half of the images.
        """
        parameters = [layer.architecture for layer in mixed_layers(method).values()]
        if self.optimizer == "adam":
            optimizer = Adam(parameters, lr=self.rate)
        else:
            optimizer = AdamW(parameters, lr=self.rate, weight_decay=self.weight_decay)

        def figures() -> dict[str, float]:
            found = shares(method)
            return {f"{layer}.{name}": share for layer in found for name, share in found[layer].items()}

        return ArchitectureSteps(parameters, optimizer, batches, figures=figures)


def searched_parts(method: type[Method]) -> list[str]:
    """Return the options of a method that list the operations of a chain.

    Raises:
        ConfigError: There are none.
    """
    hints = get_type_hints(method.__init__, include_extras=True)
    marks = {
        name: [mark for kind in get_args(hints[name]) for mark in getattr(kind, "__metadata__", ())] for name in hints
    }
    parts = [name for name, found in marks.items() if any(isinstance(mark, Chain) for mark in found)]
    if not parts:
        raise ConfigError(f"{method.__name__} has no heads that could be searched.", "Choose another method.")
    return parts


def mixed_layers(method: nn.Module) -> dict[str, MixedLayer]:
    """Return the layers whose operation is still open, by part and number: ``projector.0``.

    Those of teachers and key encoders follow by moving average and are left out.
    """
    return {
        f"{chain.part}.{number}": layer
        for chain in method.modules()
        if isinstance(chain, MixedChain)
        for number, layer in enumerate(chain)
        if isinstance(layer, MixedLayer) and layer.architecture.requires_grad
    }


def shares(method: nn.Module) -> Shares:
    """Return the share of each operation in each layer that is still open."""
    return {
        name: dict(zip(OPERATIONS, layer.shares.tolist(), strict=True)) for name, layer in mixed_layers(method).items()
    }


def genotype(found: Shares) -> dict[str, str]:
    """Return the operations with the largest shares, by part: ``{"projector": "relu silu ..."}``."""
    chosen: dict[str, list[str]] = {}
    for layer, of_layer in found.items():
        chosen.setdefault(layer.split(".")[0], []).append(max(of_layer, key=lambda name: of_layer[name]))
    return {part: " ".join(names) for part, names in chosen.items()}
