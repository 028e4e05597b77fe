"""What a search is asked, and what follows from it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from lightssl.backbones import BACKBONES
from lightssl.config.load import load_options, merge, resolve
from lightssl.config.schema import Recipe, keyword_options
from lightssl.errors import ConfigError
from lightssl.pipeline.building import options_of
from lightssl.registry import did_you_mean
from lightssl.search import STRATEGIES
from lightssl.search.cost import LATENCY, figure
from lightssl.search.spaces import SPACES, Candidate, Space

SECTION = "search"  # what overrides of a strategy's options begin with


@dataclass(frozen=True)
class Question:
    """What is asked, from which everything else follows."""

    strategy: str
    space: str
    limits: dict[str, float]
    image_size: int
    recipe: str
    composed: dict[str, Any]  # the recipe as its files have it, before scale and overrides
    scale: str
    overrides: list[str]
    target: str | None = None  # the device whose latency is limited
    threads: int | None = None  # there; by default the profile's first

    @property
    def digest(self) -> str:
        """Tell questions apart."""
        # What is not asked is left out, so that searches begun before it could be asked still go on.
        asked = {key: value for key, value in asdict(self).items() if value is not None}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def budget(self) -> str:
        """The limits in words."""
        limits = {name: figure(name, limit) for name, limit in self.limits.items()}
        return ", ".join(
            f"{limit} on {self.target}" if name == LATENCY else f"{limit} {name}" for name, limit in limits.items()
        )

    @property
    def recipe_overrides(self) -> list[str]:
        """Overrides of the recipe; the others are of the strategy."""
        return [text for text in self.overrides if not _is_option(text)]

    @cached_property
    def searched(self) -> Space:
        """The space, at the one input size."""
        return replace(SPACES[self.space], image_sizes=(self.image_size,))

    @cached_property
    def stock(self) -> dict[str, Candidate]:
        """The published networks of the space, by name."""
        return {name: self.searched.candidate(text, self.image_size) for name, text in self.searched.stock.items()}

    def mapping(self, candidate: Candidate) -> dict[str, Any]:
        """Return the recipe of a candidate, composed as its files would be."""
        below = self.composed["backbone"]
        known = keyword_options(BACKBONES[self.searched.backbone]).keys() - {"topology", *self.searched.options}
        kept = {key: value for key, value in below.items() if key in known}
        return merge(self.composed, self.searched.recipe(candidate, **kept))

    def resolve(self, scale: str) -> Recipe:
        """Return the recipe with the space's backbone, at a scale."""
        stock = next(iter(self.stock.values()))
        recipe = resolve(
            self.recipe,
            self.mapping(stock),
            scale=scale,
            overrides=self.recipe_overrides,
            origin=f"Recipe {self.recipe}",
        )
        if recipe.backbone.name != self.searched.backbone:
            raise ConfigError(
                f"The networks of the space {self.space} are {self.searched.backbone}, not {recipe.backbone.name}.",
                "Choose the space with --space, and leave backbone.name as it is.",
            )
        return recipe

    def backbone_options(self, recipe: Recipe) -> dict[str, Any]:
        """Return the options of the recipe's backbone that the space leaves open."""
        return {
            key: value
            for key, value in options_of(recipe.backbone).items()
            if key not in {"topology", *self.searched.options}
        }

    def strategy_options(self) -> dict[str, Any]:
        """Return the options of the strategy."""
        overrides = [text for text in self.overrides if _is_option(text)]
        return options_of(
            load_options(SECTION, self.strategy, STRATEGIES[self.strategy], scale=self.scale, overrides=overrides)
        )


def _is_option(override: str) -> bool:
    return override.strip().startswith(f"{SECTION}.")


def space_called(name: str) -> Space:
    """Return a search space.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in SPACES:
        hint = " ".join(filter(None, [did_you_mean(name, list(SPACES)), f"Known: {', '.join(SPACES)}."]))
        raise ConfigError(f"Unknown search space {name!r}.", hint)
    return SPACES[name]


def space_of(recipe: str, composed: Mapping[str, Any]) -> Space:
    """Return the space that a recipe's backbone is of.

    Raises:
        ConfigError: There is none.
    """
    backbone = composed.get("backbone", {})
    for space in SPACES.values():
        options = {key: backbone.get(key, value) for key, value in space.options.items()}
        if backbone.get("name") in space.stock or (backbone.get("name") == space.backbone and options == space.options):
            return space
    raise ConfigError(
        f"No search space has networks like the backbone of {recipe}, {backbone.get('name')}.",
        f"Choose one with --space: {', '.join(SPACES)}.",
    )
