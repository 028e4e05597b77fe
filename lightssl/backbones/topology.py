"""Backbones whose stages can be chosen, and the text that says how: ``24x2-k3e6`` is two blocks 24 wide.

A topology lists the stages of a network in order. Of each it gives the width, the number of blocks, and the settings of
the blocks where a family of networks has any: those of all blocks if they are alike (``24x2-k3e6``), else one after the
other (``24x2-k5e4-k3e6``).
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from lightssl.backbones.base import Backbone
from lightssl.errors import ConfigError

_NUMBER = r"([1-9]\d{0,3})"


class StageTopology(NamedTuple):
    """What one stage of a network is made of."""

    width: int
    blocks: tuple[tuple[int, ...], ...]  # the settings of each block, in the order of the grammar's letters


Topology = tuple[StageTopology, ...]


@dataclass(frozen=True)
class Grammar:
    """How the topologies of one family of networks are written.

    Args:
        letters: One in front of each setting of a block: ``"ke"`` for ``k3e6``.
        published: The topology of the family's best-known network, which shows what one looks like.
        width_step: What widths are multiples of.
        odd: Letters whose settings are odd.
    """

    letters: str
    published: str
    width_step: int = 1
    odd: str = ""

    def parse(self, text: str) -> Topology:
        """Read a topology.

        Raises:
            ConfigError: The text is none, or has another number of stages than the published one.
        """
        stages = text.split()
        expected = len(self.published.split())
        if len(stages) != expected:
            raise ConfigError(
                f"The topology {text!r} has {len(stages)} stages instead of {expected}.",
                f"The published one is {self.published!r}.",
            )
        return tuple(map(self._parse_stage, stages))

    def _parse_stage(self, text: str) -> StageTopology:
        block = "-" + "".join(letter + _NUMBER for letter in self.letters) if self.letters else ""
        found = re.fullmatch(f"{_NUMBER}x{_NUMBER}((?:{block})*)", text)
        width, depth = (int(found[1]), int(found[2])) if found else (0, 0)
        settings = [tuple(map(int, match.groups())) for match in re.finditer(block, found[3])] if found else []
        blocks = tuple(settings * depth if len(settings) == 1 else settings)
        values = [pair for block in settings for pair in zip(self.letters, block, strict=True)]
        even = any(letter in self.odd and value % 2 == 0 for letter, value in values)
        if not found or len(blocks) != depth or width % self.width_step or even:
            steps = f", a multiple of {self.width_step}" if self.width_step > 1 else ""
            odd = f" ({self.odd} is odd)" if self.odd else ""
            raise ConfigError(
                f"{text!r} is not a stage of a topology.",
                f"Write its width{steps}, its number of blocks, and the settings of all or of each of them{odd}. "
                f"The published topology is {self.published!r}.",
            )
        return StageTopology(width, blocks)

    def write(self, topology: Topology) -> str:
        """Return the text of a topology, the same for equal ones: :meth:`parse` reads it."""
        return " ".join(map(self._write_stage, topology))

    def _write_stage(self, stage: StageTopology) -> str:
        blocks = stage.blocks[:1] if len(set(stage.blocks)) == 1 else stage.blocks
        return "-".join(filter(None, [f"{stage.width}x{len(stage.blocks)}", *map(self.write_block, blocks)]))

    def write_block(self, settings: tuple[int, ...]) -> str:
        """Return the text of one block's settings."""
        return "".join(f"{letter}{value}" for letter, value in zip(self.letters, settings, strict=True))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Check the topologies of recipes, where a grammar annotates their type."""
        from pydantic_core import core_schema

        def check(text: str) -> str:
            try:
                self.parse(text)
            except ConfigError as error:
                raise ValueError(" ".join(str(error).splitlines())) from error
            return text

        return core_schema.no_info_after_validator_function(check, handler(source))


@dataclass(frozen=True)
class BlockPart:
    """What a smaller block takes of a block: masks make the one compute what the other does.

    Layers are named as in the whole network.

    Args:
        outputs: Channels of the block's output; None where layers after it are masked instead.
        inputs: Channels that layers inside are given, by the names of the layers.
        norms: Channels that layer norms are given and normalise over, by their names.
        kernels: Sides of kernels, by the names of depthwise convolutions.
        adds_input: Whether the smaller block adds its input as it is to its output.
        projection: Name of the layers that the larger block adds its input through, if it has any.
        switch: Name of the larger block's attribute that says whether it adds its input as it is, if it has one.
    """

    outputs: int | None = None
    inputs: Mapping[str, int] = field(default_factory=dict)
    norms: Mapping[str, int] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)
    adds_input: bool = True
    projection: str = ""
    switch: str = ""


class TopologyBackbone(Backbone):
    """A backbone built from the text of a topology, its keyword-only argument ``topology``."""

    grammar: ClassVar[Grammar]
    # Layers, by what their names end in, whose outputs are several groups of equal width.
    row_groups: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def block_names(self) -> list[list[str]]:
        """Names of the blocks of each stage, and of the modules after them whose names depend on the depth."""

    @abstractmethod
    def block_part(
        self, stage: int, position: int, inputs: int | None, width: int, settings: tuple[int, ...]
    ) -> BlockPart:
        """Say what a smaller block takes of the block here.

        Args:
            stage: Which stage, from 0.
            position: Which of its blocks, from 0.
            inputs: Width of the stage that the smaller block comes after; None for what comes before all stages.
            width: Of its own stage.
            settings: Of the smaller block.
        """
