"""What a study is asked, and what follows from it: which networks are trained how, and what they are judged by."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from lightssl.backbones.cost import Cost
from lightssl.config.load import available, compose, resolve
from lightssl.config.schema import Recipe
from lightssl.errors import ConfigError
from lightssl.methods import METHODS
from lightssl.pipeline.building import fields_of
from lightssl.pipeline.training import default_scale
from lightssl.study.members import Member

SECTION = "study"  # the folder of everything, in that of a study
RESULTS = "results.parquet"  # the table, there
_NETWORK = "resnet18"  # whose recipes stand for a method: members take the place of their backbone


def recipe_of_method(method: str) -> str:
    """Return the shipped recipe that trains members by a method.

    Raises:
        ConfigError: There is no such method, or no recipe for it.
    """
    METHODS[method]  # fails if there is none
    found = [name for name in (f"{_NETWORK}_{method}", f"{_NETWORK}_{method}_cifar") if name in available()]
    if not found:
        raise ConfigError(f"No recipe is shipped that trains any network by {method}.", "Name one with --recipe.")
    return found[0]


@dataclass(frozen=True)
class Training:
    """How members are trained: as a recipe says, with another backbone.

    Args:
        recipe: Its name, or that of its file.
        composed: As its files have it, before scale and overrides.
        scale: ``paper``, ``small`` or ``quick``.
        overrides: Texts like ``train.batch_size=64``.
    """

    recipe: str
    composed: dict[str, Any]
    scale: str
    overrides: list[str]

    @classmethod
    def of(cls, recipe: str, *, data: str, scale: str | None, overrides: Sequence[str]) -> "Training":
        """Find a recipe, and a scale where none is stated.

        Raises:
            ConfigError: There is no such recipe, or it cannot be read.
        """
        composed = compose(recipe)
        name = Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe
        return cls(name, composed, scale or composed.get("scale") or default_scale(data), list(overrides))

    def recipe_of(self, member: Member, seed: int | None = None) -> Recipe:
        """Return the recipe that trains a member: nothing is left of the backbone that it had.

        Args:
            member: Which one.
            seed: If not that of the recipe.

        Raises:
            ConfigError: The member cannot be trained so, or an override would make it another network.
        """
        recipe = resolve(
            member.name,
            {**self.composed, "backbone": member.section},
            scale=self.scale,
            # Once more, as a scale may change the options of a backbone.
            overrides=[member.override, *self.overrides, *([f"train.seed={seed}"] if seed is not None else [])],
            origin=f"Recipe {self.recipe} with {member.name}",
        )
        found = fields_of(recipe.backbone)
        changed = [f"backbone.{key}" for key, value in member.section.items() if found.get(key) != value]
        if changed:
            raise ConfigError(
                f"{', '.join(changed)} of {member.name} cannot be set: it is what makes it this member.",
                "Leave the override out, or list the networks that you want in a YAML file.",
            )
        return recipe


class Job(NamedTuple):
    """One network to be trained and evaluated."""

    member: Member
    training: Training
    seed: int

    @property
    def name(self) -> str:
        """Unique in the study, and fit for the name of a folder."""
        return network_name(self.member.name, self.training.recipe, self.seed)

    @property
    def recipe(self) -> Recipe:
        """How it is trained: without labels, and without looks at them on the way."""
        recipe = self.training.recipe_of(self.member, self.seed)
        return recipe.model_copy(
            update={
                "train": recipe.train.model_copy(update={"probe": False}),
                "evaluation": recipe.evaluation.model_copy(update={"monitor_every": None}),
            }
        )


def network_name(member: str, recipe: str, seed: int) -> str:
    """Return what the folder of a trained network is called."""
    return f"{member}-{recipe}-seed{seed}"


def directory_of(asked: Mapping[str, Any]) -> Path:
    """Return where a study was started, which relative paths of its images are of; here, if there is no such folder."""
    directory = Path(asked.get("directory", ""))
    return directory if directory.is_absolute() and directory.is_dir() else Path.cwd()


def held_out_top1(result: Mapping[str, Any]) -> float | None:
    """Return the accuracy on training images that were held out, which chose the options of a task; None without."""
    found: float | None = result.get("cv_top1", result.get("held_out_top1"))
    return found


@dataclass(frozen=True)
class StudyQuestion:
    """What is asked, from which everything else follows; JSON can hold it."""

    grid: str
    members: list[dict[str, Any]]  # ``name``, ``backbone``, ``options``, ``flops`` and ``parameters`` of each
    image_size: int  # that FLOPs are counted at
    trainings: list[dict[str, Any]]  # the fields of Training
    downstream: list[str]
    tasks: list[str]
    seeds: list[int]

    @property
    def digest(self) -> str:
        """Tell questions apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """All networks, by their names: with the first seed and recipe before any other."""
        members = [Member(row["name"], row["backbone"], row["options"]) for row in self.members]
        trainings = [Training(**fields) for fields in self.trainings]
        jobs = (Job(member, training, seed) for seed, training, member in product(self.seeds, trainings, members))
        return {job.name: job for job in jobs}

    @cached_property
    def methods(self) -> dict[str, str]:
        """What each recipe trains by, by its name."""
        first = {job.training.recipe: job for job in reversed(self.jobs.values())}
        return {recipe: job.recipe.method.name for recipe, job in first.items()}

    def cost_of(self, member: Member) -> Cost:
        """Return what a member costs."""
        (found,) = [row for row in self.members if row["name"] == member.name]
        return Cost(found["flops"], found["parameters"])
