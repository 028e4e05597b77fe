"""What the members of a grid cost, and which of them to take by it."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import Cost, count_cost
from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean
from lightssl.search.cost import closed_form_cost
from lightssl.study.members import Member
from lightssl.units import parse_count

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_NAMES = {**{name: name for name in Cost._fields}, "params": "parameters"}


def count_member(member: Member, image_size: int) -> Cost:
    """Count FLOPs of one square image of ``image_size`` pixels, and parameters, without the classifier.

    In closed form where there is one, which takes no time; else the network is built and traced.

    Raises:
        ConfigError: The network cannot be built, or does not take images of that size.
    """
    topology = member.options.get("topology")
    if topology is not None:
        options = {name: value for name, value in member.options.items() if name != "topology"}
        parsed = BACKBONES[member.backbone].grammar.parse(topology)
        cost = closed_form_cost(member.backbone, parsed, image_size, **options)
        if cost is not None:
            return cost
    network = member.build()
    if image_size < network.smallest_image:
        raise ConfigError(
            f"{image_size} pixels are too few: it needs at least {network.smallest_image}.", "Choose a larger size."
        )
    return count_cost(network, image_size)


@dataclass(frozen=True)
class Condition:
    """A bound on a cost, such as ``flops<2G``."""

    name: str  # a field of Cost
    comparison: str
    bound: int

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read one.

        Raises:
            ConfigError: The text is none.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)(.+)", text)
        if not found:
            raise ConfigError(f"{text!r} is not a condition.", "Write one like flops<2G or parameters>=10M.")
        if found[1] not in _NAMES:
            hint = " ".join(filter(None, [did_you_mean(found[1], list(_NAMES)), f"Known: {', '.join(Cost._fields)}."]))
            raise ConfigError(f"{text!r}: members have no {found[1]!r}.", hint)
        return cls(_NAMES[found[1]], found[2], parse_count(found[3]))

    def holds(self, cost: Cost) -> bool:
        """Tell whether a cost is within the bound."""
        return _COMPARISONS[self.comparison](getattr(cost, self.name), self.bound)
