"""The networks that a search chooses from.

A candidate is a text such as ``vit@224 192x12-h3m4``: the space, the input size in pixels and the topology. Inside,
many candidates at once are an array of genes, int64 [N, G]: for each choice that a space leaves open, the index of what
was chosen. Genes of blocks that a candidate does not have are 0, so that equal candidates have equal genes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from lightssl.backbones import BACKBONES
from lightssl.backbones.topology import Grammar, StageTopology, TopologyBackbone
from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean


class Candidate(NamedTuple):
    """One network of a space at one input size."""

    space: str
    image_size: int  # pixels
    topology: str

    def __str__(self) -> str:
        return f"{self.space}@{self.image_size} {self.topology}"


class StageChoices(NamedTuple):
    """What one stage may be made of, from cheap to expensive."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...] = ((),)  # settings of a block; each block has its own


class _Columns(NamedTuple):
    """Where the genes of one stage are."""

    width: int
    depth: int
    blocks: slice


@dataclass(frozen=True)
class Space:
    """A family of networks.

    Args:
        name: As candidates are written.
        backbone: Name of the backbone that builds them.
        stages: What each stage may be made of.
        options: Of the backbone, the same for all candidates and telling the space from others of that backbone.
        image_sizes: Input sizes, in pixels, ascending.
        stock: Topologies of the best-known networks in it, by the names of their backbones.
    """

    name: str
    backbone: str
    stages: tuple[StageChoices, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    image_sizes: tuple[int, ...] = (224,)
    stock: Mapping[str, str] = field(default_factory=dict)

    @property
    def grammar(self) -> Grammar:
        """How topologies of the space are written."""
        grammar: Grammar = BACKBONES[self.backbone].grammar
        return grammar

    @cached_property
    def columns(self) -> list[_Columns]:
        """Where the genes of each stage are. The input size is gene 0."""
        columns, start = [], 1
        for stage in self.stages:
            end = start + 2 + stage.depths[-1]
            columns.append(_Columns(start, start + 1, slice(start + 2, end)))
            start = end
        return columns

    @cached_property
    def gene_sizes(self) -> np.ndarray:
        """Number of choices of each gene, int64 [G]."""
        sizes = [len(self.image_sizes)]
        for stage in self.stages:
            sizes += [len(stage.widths), len(stage.depths), *[len(stage.blocks)] * stage.depths[-1]]
        return np.array(sizes)

    # ------------------------------------------------------------------------------------------------- one candidate

    @property
    def smallest(self) -> Candidate:
        """The cheapest candidate."""
        return self.decode(np.zeros_like(self.gene_sizes))

    @property
    def largest(self) -> Candidate:
        """The most expensive candidate. All others are parts of it."""
        return self.decode(self.gene_sizes - 1)

    def parse(self, text: str) -> Candidate:
        """Read a candidate of this space, and spell it as the space does.

        Raises:
            ConfigError: The text is no candidate, or one of another space.
        """
        found = re.fullmatch(rf"{self.name}@(\d+) (.+)", text.strip())
        if not found:
            raise ConfigError(
                f"{text!r} is not a candidate of the space {self.name}.", f"One looks like {str(self.smallest)!r}."
            )
        return self.candidate(found[2], int(found[1]))

    def candidate(self, topology: str, image_size: int) -> Candidate:
        """Return the candidate of a topology, spelled as the space does.

        Raises:
            ConfigError: It is not in the space; says which of its choices is not.
        """
        return self.decode(self.encode(Candidate(self.name, image_size, topology)))

    def decode(self, genes: np.ndarray) -> Candidate:
        """Return the candidate of genes [G]."""
        topology = []
        for stage, columns in zip(self.stages, self.columns, strict=True):
            depth = stage.depths[genes[columns.depth]]
            blocks = tuple(stage.blocks[gene] for gene in genes[columns.blocks][:depth])
            topology.append(StageTopology(stage.widths[genes[columns.width]], blocks))
        return Candidate(self.name, self.image_sizes[genes[0]], self.grammar.write(tuple(topology)))

    def encode(self, candidate: Candidate) -> np.ndarray:
        """Return the genes of a candidate, int64 [G].

        Raises:
            ConfigError: It is not in the space; says which of its choices is not.
        """
        genes = np.zeros_like(self.gene_sizes)
        genes[0] = _index(self.image_sizes, candidate.image_size, "an input size")
        topology = self.grammar.parse(candidate.topology)
        for number, (stage, columns, found) in enumerate(zip(self.stages, self.columns, topology, strict=True), 1):
            genes[columns.width] = _index(stage.widths, found.width, f"a width of stage {number}")
            genes[columns.depth] = _index(stage.depths, len(found.blocks), f"a depth of stage {number}")
            for position, block in enumerate(found.blocks):
                what = f"a block of stage {number}"
                genes[columns.blocks][position] = _index(stage.blocks, block, what, self.grammar.write_block)
        return genes

    # ------------------------------------------------------------------------------------------------ many candidates

    def sample(self, generator: Generator, count: int) -> np.ndarray:
        """Draw every gene evenly: int64 [count, G]."""
        return self._canonical(generator.integers(self.gene_sizes, size=(count, len(self.gene_sizes))))

    def mutate(self, generator: Generator, genes: np.ndarray, *, rate: float) -> np.ndarray:
        """Draw each gene anew with probability ``rate``, and those of blocks that were added: [N, G] -> [N, G]."""
        redrawn = generator.random(genes.shape) < rate
        return self._changed(generator, genes, redrawn, generator.integers(self.gene_sizes, size=genes.shape))

    def step(self, generator: Generator, genes: np.ndarray, larger: np.ndarray) -> np.ndarray:
        """Draw one gene of each candidate anew, to make it larger or else smaller: [N, G], bool [N] -> [N, G]."""
        at = generator.integers(len(self.gene_sizes), size=(len(genes), 1))
        larger = larger[:, None]
        drawn = generator.integers(np.where(larger, genes, 0), np.where(larger, self.gene_sizes, genes + 1))
        return self._changed(generator, genes, np.arange(len(self.gene_sizes)) == at, drawn)

    def _changed(self, generator: Generator, genes: np.ndarray, where: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Put new genes in some places, and drawn ones where a block is added thereby."""
        drawn = generator.integers(self.gene_sizes, size=genes.shape)
        return self._canonical(np.where(where, new, np.where(self.in_use(genes), genes, drawn)))

    def cross(self, generator: Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Take each stage, and the input size, from either parent: [N, G], [N, G] -> [N, G]."""
        lengths = [1, *(columns.blocks.stop - columns.width for columns in self.columns)]
        from_first = generator.random((len(first), len(lengths))) < 0.5
        return np.where(np.repeat(from_first, lengths, axis=1), first, second)

    def in_use(self, genes: np.ndarray) -> np.ndarray:
        """Tell which genes matter, bool [N, G]: not those of blocks beyond the depth of their stage."""
        in_use = np.ones(genes.shape, dtype=bool)
        for stage, columns in zip(self.stages, self.columns, strict=True):
            depths = np.array(stage.depths)[genes[:, columns.depth]]
            in_use[:, columns.blocks] = np.arange(stage.depths[-1]) < depths[:, None]
        return in_use

    def _canonical(self, genes: np.ndarray) -> np.ndarray:
        return np.where(self.in_use(genes), genes, 0)

    # ------------------------------------------------------------------------------------------------------- networks

    def build(self, candidate: Candidate, **options: Any) -> TopologyBackbone:
        """Build a candidate with random weights.

        Args:
            candidate: Of this space.
            options: Of the backbone, besides those of the space.
        """
        backbone: TopologyBackbone = BACKBONES[self.backbone](**options, **self.options, topology=candidate.topology)
        return backbone

    def recipe(self, candidate: Candidate, **options: Any) -> dict[str, Any]:
        """Return the part of a recipe that trains a candidate, built as by :meth:`build`, at its input size."""
        return {
            "backbone": {"name": self.backbone, **options, **self.options, "topology": candidate.topology},
            "views": {"global_size": candidate.image_size},
            "evaluation": {"image_size": candidate.image_size},
        }


def _index(choices: tuple[Any, ...], value: Any, what: str, spell: Callable[[Any], str] = str) -> int:
    if value not in choices:
        raise ConfigError(
            f"{spell(value)} is not {what} in this space.", f"There are: {', '.join(map(spell, choices))}."
        )
    return choices.index(value)


_EXPANDED = tuple(product((3, 5, 7), (3, 4, 6)))  # kernel, expansion
_HEADS = tuple(product((2, 3, 4), (2, 3, 4)))  # attention heads, MLP ratio
_RESNET = (
    StageChoices((32, 48, 64, 80), (1, 2, 3, 4)),
    StageChoices((64, 96, 128, 160), (1, 2, 3, 4)),
    StageChoices((128, 192, 256, 320), (1, 2, 3, 4, 5, 6)),
    StageChoices((256, 384, 512, 640), (1, 2, 3, 4)),
)

# Around MobileNetV2, ResNet18 to ResNet50, and ViT-Ti, which are members.
SPACES: Mapping[str, Space] = {
    space.name: space
    for space in (
        Space(
            "mobilenetv2",
            "mobilenetv2",
            (
                StageChoices((16, 24), (1,), ((3, 1), (5, 1), (7, 1))),
                StageChoices((16, 24, 32), (1, 2, 3), _EXPANDED),
                StageChoices((24, 32, 40), (1, 2, 3, 4), _EXPANDED),
                StageChoices((48, 64, 80), (1, 2, 3, 4, 5), _EXPANDED),
                StageChoices((72, 96, 120), (1, 2, 3, 4), _EXPANDED),
                StageChoices((120, 160, 200), (1, 2, 3, 4), _EXPANDED),
                StageChoices((240, 320, 400), (1,), _EXPANDED),
            ),
            image_sizes=(128, 160, 192, 224),
            stock={"mobilenetv2": "16x1-k3e1 24x2-k3e6 32x3-k3e6 64x4-k3e6 96x3-k3e6 160x3-k3e6 320x1-k3e6"},
        ),
        Space(
            "resnet_basic",
            "resnet",
            _RESNET,
            {"block": "basic"},
            stock={"resnet18": "64x2 128x2 256x2 512x2", "resnet34": "64x3 128x4 256x6 512x3"},
        ),
        Space(
            "resnet_bottleneck",
            "resnet",
            _RESNET,
            {"block": "bottleneck"},
            stock={"resnet50": "64x3 128x4 256x6 512x3"},
        ),
        Space(
            "vit",
            "vit",
            (StageChoices((128, 160, 192, 224, 256), (8, 9, 10, 11, 12, 13, 14), _HEADS),),
            stock={"vit_tiny": "192x12-h3m4"},
        ),
    )
}


def parse_candidate(text: str) -> Candidate:
    """Read a candidate of any space in :data:`SPACES`.

    Raises:
        ConfigError: The text is none.
    """
    name = re.split(r"[@\s]", text.strip())[0]
    if name not in SPACES:
        hint = " ".join(filter(None, [did_you_mean(name, list(SPACES)), f"Known: {', '.join(SPACES)}."]))
        raise ConfigError(f"{text!r} names no search space.", hint)
    return SPACES[name].parse(text)
