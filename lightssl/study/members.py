"""The members of a grid: networks by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone


@dataclass(frozen=True)
class Member:
    """One network of a study.

    Args:
        name: Unique in its grid, and fit for the name of a folder.
        backbone: Its name in ``BACKBONES``.
        options: Of the backbone; what is left out has its default, or the one of the scale it is trained at.
    """

    name: str
    backbone: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def section(self) -> dict[str, Any]:
        """What a recipe holds as its ``backbone``."""
        return {"name": self.backbone, **self.options}

    @property
    def override(self) -> str:
        """The text that puts the member into a recipe: ``backbone={...}``."""
        return f"backbone={json.dumps(self.section)}"

    @property
    def family(self) -> str:
        """A text that members share which differ in their depths and widths alone."""
        return json.dumps({**self.section, "topology": None, "width_factor": None}, sort_keys=True)

    @property
    def depths(self) -> tuple[int, ...] | None:
        """Number of blocks of each stage; None where the options state no topology."""
        topology = self.options.get("topology")
        if topology is None:
            return None
        return tuple(len(stage.blocks) for stage in BACKBONES[self.backbone].grammar.parse(topology))

    def build(self) -> Backbone:
        """Build the network with random weights.

        Raises:
            ConfigError: The options are none of the backbone's.
        """
        backbone: Backbone = BACKBONES[self.backbone](**self.options)
        return backbone
