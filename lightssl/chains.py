"""Chains: heads with one operation a layer, chosen by a recipe or left to a search.

The operations are NASiam's (Heuillet et al. 2023, arXiv 2302.00059). A recipe lists them in order, as in
``projector: relu silu elu id id relu``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "hswish": nn.Hardswish, "elu": nn.ELU}
_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool1d, "avg": nn.AvgPool1d}
OPERATIONS = (*_POOLS, "id", *_ACTIVATIONS)
SEARCHED = "search"  # in place of a chain's operations: all of them in every layer, mixed


@dataclass(frozen=True)
class Chain:
    """A part of a method's heads that can be a chain. It annotates the option that lists the operations.

    Args:
        part: Name of the option.
        layers: How many operations it lists.
    """

    part: str
    layers: int

    def parse(self, text: str) -> list[str]:
        """Read the operations.

        Raises:
            ConfigError: One is unknown, or there are too many or too few.
        """
        names = text.split()
        if names == [SEARCHED]:
            raise ConfigError(
                f"The {self.part} cannot be left open in a training.",
                "Find its operations first: lightssl search-heads --help",
            )
        for name in names:
            if name not in OPERATIONS:
                hint = did_you_mean(name, list(OPERATIONS)) or ""
                raise ConfigError(f"Unknown operation {name!r}.", f"{hint} Known: {', '.join(OPERATIONS)}.".strip())
        if len(names) != self.layers:
            raise ConfigError(
                f"The {self.part} {text!r} has {len(names)} layers instead of {self.layers}.",
                f"Name one of {', '.join(OPERATIONS)} for each.",
            )
        return names

    def build(self, text: str, before: int, between: int, after: int) -> nn.Sequential:
        """Build the chain.

        Args:
            text: The operations, or ``SEARCHED``.
            before: Width of the input.
            between: Width of all layers but the last.
            after: Width of the output.

        Raises:
            ConfigError: As for :meth:`parse`.
        """
        widths = list(pairwise([before, *[between] * (self.layers - 1), after]))
        if text == SEARCHED:
            return MixedChain(self.part, [MixedLayer(*pair) for pair in widths])
        return nn.Sequential(*(operation(name, *pair) for name, pair in zip(self.parse(text), widths, strict=True)))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Check the chains of recipes, where this annotates their type."""
        from pydantic_core import core_schema

        def check(text: str) -> str:
            try:
                self.parse(text)
            except ConfigError as error:
                raise ValueError(" ".join(str(error).splitlines())) from error
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))


def operation(name: str, before: int, after: int) -> nn.Module:
    """Build one layer, from features [B, before] to [B, after].

    ``relu``, ``silu``, ``hswish`` and ``elu`` are Linear, batch norm and that activation; where the layer widens, the
    Linear alone. ``max`` and ``avg`` pool each feature with its two neighbours and then normalise; ``id`` does nothing.
    These three need a width that is theirs already: where the layer narrows, Linear, batch norm and ReLU come first,
    where it widens, a Linear, as in the released code. Averages take zeros beyond the first and the last feature.
    """
    if name in _ACTIVATIONS:
        return nn.Linear(before, after) if before < after else _hidden(before, after, _ACTIVATIONS[name])
    first = [nn.Linear(before, after)] if before < after else [_hidden(before, after, nn.ReLU)] * (before > after)
    pool = [_POOLS[name](3, stride=1, padding=1), nn.BatchNorm1d(after)] if name in _POOLS else []
    return nn.Sequential(*first, *pool)


def _hidden(before: int, after: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), activation())


class MixedLayer(nn.Module):
    """Every operation at once, weighted by the softmax of architecture parameters.

    Args:
        before: Width of the input.
        after: Width of the output.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.operations = nn.ModuleDict({name: operation(name, before, after) for name in OPERATIONS})
        self.architecture = nn.Parameter(torch.zeros(len(OPERATIONS)))

    @property
    def shares(self) -> Tensor:
        """Weights of the operations, [7] in their order; their sum is 1."""
        return self.architecture.softmax(dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, before] to [B, after]."""
        outputs = torch.stack([operation(features) for operation in self.operations.values()])
        return torch.einsum("o,obd->bd", self.shares.to(outputs.dtype), outputs)


class MixedChain(nn.Sequential):
    """Layers that are all operations at once.

    Args:
        part: The option of the method that this stands for.
        layers: From first to last.
    """

    def __init__(self, part: str, layers: Sequence[MixedLayer]) -> None:
        super().__init__(*layers)
        self.part = part
