"""What a sweep of views varies: the axes of a view plan, points on them, and designs that choose the points.

The axes are the three choices of SSLight (see :mod:`lightssl.views.plan`) and the balance of the loss terms. A point is
what it changes in the recipe's own plan; everything else is the same at all points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean
from lightssl.views.plan import Balance, ViewPlan

Value = float | int | str
Axes = Mapping[str, Sequence[Value]]
Design = Literal["factor", "grid", "guided"]

DESIGNS: tuple[Design, ...] = ("factor", "grid", "guided")
OWN = "recipe"  # the name of the point that changes nothing
PAIRS = "pairs"
AXES = {
    "boundary": "upper end of the area that local views cover, and lower end of that of global ones",
    "local_size": "pixels of local views, at the scale's size of global views",
    "local_count": "number of local views",
    "balance": "weight of the local loss terms, the global ones have the rest of 1; or pairs, which weighs all alike",
}
_PUBLISHED_SIZE = 224  # of the global views that papers state sizes of local views for


@dataclass(frozen=True)
class Point:
    """A view plan, as the values in which it differs from that of the recipe; axes are in the order of ``AXES``."""

    changes: tuple[tuple[str, Value], ...] = ()

    @property
    def name(self) -> str:
        """Unique among points, and usable as the name of a folder."""
        return ",".join(f"{axis}-{shown(value)}" for axis, value in self.changes) or OWN

    @classmethod
    def of(cls, values: Mapping[str, Value], own: Mapping[str, Value | None]) -> "Point":
        """Return the point with these values, where those of the recipe are ``own``."""
        return cls(tuple((axis, values[axis]) for axis in AXES if axis in values and values[axis] != own[axis]))


@dataclass(frozen=True)
class Schedule:
    """Which points are measured.

    Args:
        points: All of them; or none, where they are proposed.
        axes: What proposals choose from.
        own: Values of the recipe's own plan.
        trials: How many points are proposed, with the recipe's own.
        seed: Decides proposals.
        pruning: Give points up whose first scores are among the lower half.
    """

    points: Sequence[Point]
    axes: Axes
    own: Mapping[str, Value | None]
    trials: int
    seed: int
    pruning: bool


def shown(value: Value) -> str:
    """Write a value as people do: ``0.3``, ``18``, ``pairs``."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_axes(texts: Sequence[str]) -> dict[str, list[Value]]:
    """Read ``["boundary=0.14,0.3", "balance=0.6,pairs"]``, to be checked by :func:`check_axes`.

    Raises:
        ConfigError: Lists every unknown axis, axis given twice, and value that cannot be read; or nothing would vary.
    """
    axes: dict[str, list[Value]] = {}
    problems: list[str] = []
    for text in texts:
        name, _, listed = (part.strip() for part in text.partition("="))
        if name not in AXES:
            problems.append(f"unknown axis {name!r}. {did_you_mean(name, list(AXES)) or ''}".rstrip())
        elif name in axes:
            problems.append(f"{name} is given twice: list all of its values in one --axis.")
        else:
            axes[name] = []
            for word in map(str.strip, listed.split(",")):
                value = _parse_value(name, word)
                if value is None:
                    problems.append(f"{name}: {word!r} is not a value. {_KINDS[name]}")
                elif value in axes[name]:
                    problems.append(f"{name}: {word} is given twice.")
                else:
                    axes[name].append(value)
    if problems:
        raise ConfigError("The axes of the sweep have problems:", _EXAMPLE, problems)
    if all(len(values) < 2 for values in axes.values()):
        raise ConfigError(
            "Nothing would be compared: every axis has one value only." if axes else "A sweep needs an axis.",
            f"Give two values or more. {_EXAMPLE}",
        )
    return {axis: axes[axis] for axis in AXES if axis in axes}


_EXAMPLE = f"Axes are {', '.join(AXES)}: for example --axis boundary=0.14,0.2,0.3 --axis balance=0.6,pairs"
_KINDS = {
    "boundary": "Write a share of the image's area, such as 0.3.",
    "local_size": "Write whole pixels, such as 18.",
    "local_count": "Write a whole number, such as 4.",
    "balance": "Write a weight from 0 to 1, such as 0.6, or pairs.",
}


def _parse_value(axis: str, word: str) -> Value | None:
    if axis == "balance" and word == PAIRS:
        return PAIRS
    try:
        return int(word) if axis in ("local_size", "local_count") else float(word)
    except ValueError:
        return None


def own_values(plan: ViewPlan) -> dict[str, Value | None]:
    """Return where a plan lies on each axis; None where no value says what it does."""
    weights = plan.balance
    balance = None
    if isinstance(weights, Balance):
        balance = weights.local if abs(weights.global_ + weights.local - 1) < 1e-9 else None
    low, high = plan.global_.scale[0], plan.local.scale[1]
    return {
        "boundary": low if low == high else None,
        "local_size": plan.local.size,
        "local_count": plan.local.count,
        "balance": PAIRS if weights == PAIRS else balance,
    }


def check_axes(plan: ViewPlan, axes: Axes, *, design: Design, smallest_image: int) -> None:
    """Refuse values that the recipe's plan cannot take.

    Args:
        plan: Of the recipe.
        axes: What is varied.
        design: How.
        smallest_image: Pixels that the backbone needs: see :class:`lightssl.backbones.base.Backbone`.

    Raises:
        ConfigError: Lists every such value.
    """
    lowest, highest, size = plan.local.scale[0], plan.global_.scale[1], plan.global_.size
    problems = []
    for value in axes.get("boundary", ()):
        if not lowest < float(value) < highest:
            problems.append(
                f"boundary={shown(value)} does not lie between the least area of local views, {lowest:g}, and the "
                f"largest of global ones, {highest:g}."
            )
    for value in axes.get("local_size", ()):
        if int(value) < smallest_image:
            problems.append(f"local_size={value}: the backbone needs at least {smallest_image} pixels.")
        elif int(value) > size:
            problems.append(
                f"local_size={value} is larger than the global views of {size} pixels. Sizes are those at this scale: "
                f"{value} pixels at {_PUBLISHED_SIZE} are {max(1, round(int(value) * size / _PUBLISHED_SIZE))} here."
            )
    problems += [f"local_count={value} is less than 0." for value in axes.get("local_count", ()) if int(value) < 0]
    for value in axes.get("balance", ()):
        if value != PAIRS and not 0 <= float(value) <= 1:
            problems.append(f"balance={shown(value)} is no weight from 0 to 1.")
    idle = [axis for axis in ("local_size", "balance") if axis in axes]
    if design != "factor" and idle and 0 in axes.get("local_count", ()):
        problems.append(
            f"local_count=0 leaves no local views, for which {' and '.join(idle)} would mean nothing: vary them with "
            "--design factor."
        )
    varied = [axis for axis in axes if axis != "local_count"]
    if plan.local.count == 0 and varied and (design == "factor" or "local_count" not in axes):
        problems.append(
            f"the recipe's plan has no local views, so {' and '.join(varied)} would mean nothing: choose another one "
            "with --set views.plan=sslight, or vary local_count with --design grid."
        )
    if plan.varies:
        problems.append(
            "the recipe's plan varies over the steps of a training, and its points would differ in more than these "
            "axes: leave out views.start and views.local.min_count."
        )
    if problems:
        raise ConfigError("The axes of the sweep have problems:", "Change or leave out these values.", problems)


def factor_points(axes: Axes, own: Mapping[str, Value | None]) -> list[Point]:
    """Return the recipe's own plan, then each value of each axis with everything else as in the recipe."""
    return _distinct([Point.of({axis: value}, own) for axis, values in axes.items() for value in values])


def grid_points(axes: Axes, own: Mapping[str, Value | None]) -> list[Point]:
    """Return the recipe's own plan, then all combinations of values."""
    return _distinct([Point.of(dict(zip(axes, values, strict=True)), own) for values in product(*axes.values())])


def _distinct(points: Sequence[Point]) -> list[Point]:
    return list(dict.fromkeys([Point(), *points]))


def plan_at(plan: ViewPlan, point: Point) -> ViewPlan:
    """Return the view plan of a point, where the recipe's own is ``plan``."""
    changed: dict[str, Any] = plan.model_dump(by_alias=True)
    for axis, value in point.changes:
        if axis == "boundary":
            changed["local"]["scale"] = (plan.local.scale[0], value)
            changed["global"]["scale"] = (value, plan.global_.scale[1])
        elif axis == "balance":
            share = value if value == PAIRS else float(value)
            # Rounded: 1 - 0.6 is not 0.4.
            changed["balance"] = share if isinstance(share, str) else {"global": round(1 - share, 9), "local": share}
        else:
            changed["local"][axis.removeprefix("local_")] = value
    return ViewPlan.model_validate(changed)


def flops_per_image(plan: ViewPlan, flops_at: Callable[[int], int]) -> int:
    """Return the FLOPs of one pass of a backbone over all views of an image.

    Args:
        plan: How many views there are, and how large.
        flops_at: FLOPs of the backbone at an input size in pixels.
    """
    kinds = [crops for crops in (plan.global_, plan.local) if crops.count]
    return sum(crops.count * flops_at(crops.size) for crops in kinds)


def steps_of_equal_cost(steps: int, own_flops: int, flops: int) -> int:
    """Return the steps that cost as many FLOPs as ``steps`` of the recipe's own plan; one at least."""
    return max(1, round(steps * own_flops / flops))


def ordered(values: Sequence[Value]) -> list[Value]:
    """Numbers from low to high, then words: neighbours are alike."""
    return sorted(values, key=lambda value: (isinstance(value, str), value))
