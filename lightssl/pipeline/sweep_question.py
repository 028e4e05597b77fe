"""What a sweep of views is asked, and what follows from it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from lightssl.backbones.cost import count_cost
from lightssl.config.load import resolve
from lightssl.config.schema import Recipe
from lightssl.errors import ConfigError
from lightssl.pipeline.building import build_backbone
from lightssl.pipeline.training import plan_of
from lightssl.registry import did_you_mean
from lightssl.search.sweep import (
    DESIGNS,
    Design,
    Point,
    Schedule,
    Value,
    check_axes,
    factor_points,
    flops_per_image,
    grid_points,
    own_values,
    plan_at,
    steps_of_equal_cost,
)
from lightssl.units import Duration

SCORES = {
    "knn": "kNN accuracy on the held-out images, in %",
    "rank": "effective rank of the features of the held-out images",
    "loss": "minus the loss on held-out images, in views of the recipe's own plan",
}


@dataclass(frozen=True)
class SweepQuestion:
    """What is asked, from which everything else follows."""

    recipe: str
    composed: dict[str, Any]  # the recipe as its files have it, before scale and overrides
    scale: str
    overrides: list[str]
    axes: dict[str, list[Value]]
    design: Design
    trials: int  # points that a guided sweep measures
    score: str
    seeds: list[int]  # empty: that of the recipe
    equal_cost: bool
    pruning: bool

    @property
    def digest(self) -> str:
        """Tell questions apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe at the scale, with its overrides."""
        origin = f"Recipe {self.recipe}"
        return resolve(self.recipe, self.composed, scale=self.scale, overrides=self.overrides, origin=origin)

    @cached_property
    def own(self) -> Recipe:
        """How the recipe's own plan is trained; also how points are compared: on which images, in which views."""
        recipe = self.resolved
        seed = self.seeds[0] if self.seeds else recipe.train.seed
        options = recipe.train.model_copy(update={"seed": seed, "probe": False})
        return recipe.model_copy(update={"train": options})

    @property
    def all_seeds(self) -> list[int]:
        """What every point is trained with, one after the other."""
        return self.seeds or [self.own.train.seed]

    @cached_property
    def schedule(self) -> Schedule:
        """Which points are measured."""
        own = own_values(self.own.views)
        points = {"factor": factor_points, "grid": grid_points}
        return Schedule(
            points=points[self.design](self.axes, own) if self.design in points else [],
            axes=self.axes,
            own=own,
            trials=self.trials,
            seed=self.own.train.seed,
            pruning=self.pruning,
        )

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            ConfigError: Something in the question is impossible.
        """
        named: dict[str, tuple[str, list[str]]] = {
            "design": (self.design, list(DESIGNS)),
            "score": (self.score, list(SCORES)),
        }
        for what, (name, known) in named.items():
            if name not in known:
                hint = " ".join(filter(None, [did_you_mean(name, known), f"Known: {', '.join(known)}."]))
                raise ConfigError(f"Unknown {what} {name!r}.", hint)
        if any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"Seeds {', '.join(map(str, self.seeds))} cannot be used.", "Give each once, 0 or more: --seeds 0,1"
            )
        if self.design == "guided" and self.trials < 2:
            raise ConfigError(f"{self.trials} trials compare nothing.", "Give --trials 2 or more.")
        smallest = build_backbone(self.own).smallest_image
        check_axes(self.own.views, self.axes, design=self.design, smallest_image=smallest)

    def flops(self, point: Point) -> int:
        """Return the FLOPs of the backbone over all views of one image."""
        return flops_per_image(plan_at(self.own.views, point), self._flops_at)

    def _flops_at(self, size: int) -> int:
        if size not in self._counted:
            self._counted[size] = count_cost(self._backbone, size).flops
        return self._counted[size]

    @cached_property
    def _backbone(self) -> Any:
        return build_backbone(self.own)

    @cached_property
    def _counted(self) -> dict[int, int]:
        return {}

    def recipe_of(self, point: Point, seed: int, *, images: int) -> Recipe:
        """Return how a point is trained: as the recipe says, but for its view plan.

        Args:
            point: The point.
            seed: Decides weights, order and views.
            images: That training sees, which its steps follow from.
        """
        steps = plan_of(self.own, images).total_steps
        if self.equal_cost:
            steps = steps_of_equal_cost(steps, self.flops(Point()), self.flops(point))
        train = self.own.train.model_copy(update={"seed": seed, "duration": Duration(steps, "steps")})
        return self.own.model_copy(update={"views": plan_at(self.own.views, point), "train": train})

    def find(self, name: str, measured: Sequence[Point] = ()) -> tuple[Point, int]:
        """Return the point and the seed of a name like ``boundary-0.2-seed0``.

        Args:
            name: Of one of the point's runs.
            measured: Points that were proposed, where the design does not say them all.

        Raises:
            ConfigError: There is none of that name.
        """
        runs = {
            run_name(point, seed): (point, seed)
            for point in [*self.schedule.points, *measured]
            for seed in self.all_seeds
        }
        if name not in runs:
            hint = " ".join(filter(None, [did_you_mean(name, list(runs)), f"There are: {', '.join(runs)}."]))
            raise ConfigError(f"The sweep has no point {name!r}.", hint)
        return runs[name]


def run_name(point: Point, seed: int) -> str:
    """Return the name of the run of a point with a seed."""
    return f"{point.name}-seed{seed}"
