"""What of a study's table can be compared: networks that were measured in all of its scenarios.

N networks, S scenarios. A network is a member that was trained with one recipe; its accuracies are means over seeds.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from statistics import mean
from typing import TypeVar

import numpy as np

from lightssl.errors import LightSSLError
from lightssl.study.statistics import Floats
from lightssl.study.table import Row

LINEAR = ("linear_cv", "linear")  # evaluations that networks are compared by, the first that was measured
UNKNOWN = "it was not measured"

Key = TypeVar("Key", bound=Hashable)
NetworkKey = tuple[str, str]  # member and recipe


@dataclass(frozen=True)
class Network:
    """A member that was trained with one recipe."""

    name: str  # the member's, with what tells the trainings apart if there are several recipes
    member: str
    recipe: str
    training: str  # its method, or its recipe where a method has several
    family: str
    backbone: str
    depths: tuple[int, ...] | None
    width: float | None
    flops: int
    parameters: int
    seeds: int  # that its accuracies are means of; the fewest over scenarios
    minutes: float | None  # of a training, the mean over seeds


@dataclass(frozen=True)
class LeftOut:
    """A network or a scenario that cannot be compared with the others."""

    name: str
    missing: tuple[str, ...]  # scenarios that a network, or networks that a scenario, was not measured in
    measured: int  # in how many it was
    reasons: tuple[str, ...]  # different ones


@dataclass(frozen=True)
class Failure:
    """Results that are missing for one reason."""

    networks: tuple[str, ...]
    reason: str
    seeds: tuple[int, ...]
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Accuracies of networks that can be compared, in one task."""

    task: str
    networks: tuple[Network, ...]  # N
    scenarios: tuple[str, ...]  # S
    accuracy: Floats  # [N, S] percent, means over seeds
    deviations: Floats  # [D, S]: of each seed from the mean of its network, if that has several
    freedom: int  # D less the number of means they deviate from; 0 with one seed
    networks_left_out: tuple[LeftOut, ...]
    scenarios_left_out: tuple[LeftOut, ...]

    @property
    def trainings(self) -> list[str]:
        """How networks were trained, in their order."""
        return list(dict.fromkeys(network.training for network in self.networks))


def measured_of(rows: Sequence[Row]) -> Measured:
    """Choose the task, the scenarios and the networks that can be compared.

    Networks without any accuracy are left out, and those that were not measured in all scenarios. As long as that is
    more than half of the networks, the scenario that most of them lack is left out instead.

    Args:
        rows: Those of :func:`lightssl.study.table.read_table`.

    Raises:
        LightSSLError: Nothing was measured.
    """
    if not rows:
        raise LightSSLError("The study has no results yet.", "Let 'lightssl study run' measure some.")
    task = _task(rows)
    table = _Table(rows, task)
    networks = [key for key in table.networks if table.scenarios_of(key)]
    kept = list(table.scenarios)
    while 2 * len(complete := table.complete(networks, kept)) < len(networks) and len(kept) > 1:
        kept.remove(max(kept, key=lambda scenario: len(table.lacking(scenario, networks))))
    names, trainings = _names(rows), _trainings(rows)
    deviations, freedom = _deviations(table, complete, kept)
    return Measured(
        task=task,
        networks=tuple(table.network(key, kept, names[key], trainings[key[1]]) for key in complete),
        scenarios=tuple(kept),
        accuracy=np.array([[mean(table.by_seed[key, scenario].values()) for scenario in kept] for key in complete]),
        deviations=deviations,
        freedom=freedom,
        networks_left_out=tuple(
            table.network_left_out(key, names[key], kept) for key in table.networks if key not in complete
        ),
        scenarios_left_out=tuple(
            table.scenario_left_out(scenario, networks, names) for scenario in table.scenarios if scenario not in kept
        ),
    )


def failures_of(rows: Sequence[Row]) -> list[Failure]:
    """Return what has no accuracy, in any task; networks that lack the same for the same reason are put together."""
    names = _names(rows)
    failed = [row for row in rows if row.top1 is None]
    of_network = group_by(failed, lambda row: ((row.member, row.recipe), row.error or UNKNOWN))
    alike: dict[tuple[str, tuple[int, ...], tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (key, reason), found in of_network.items():
        seeds = tuple(sorted({row.seed for row in found}))
        scenarios, tasks = _distinct(row.scenario for row in found), _distinct(row.task for row in found)
        alike.setdefault((reason, seeds, scenarios, tasks), []).append(names[key])
    return [Failure(tuple(networks), *what) for what, networks in alike.items()]


def group_by(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Put rows together that have the same key, in their order."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


class _Table:
    """The results of one task, by network and scenario."""

    def __init__(self, rows: Sequence[Row], task: str) -> None:
        # Whatever the task: those that have failed before it belong to the study as well.
        self.rows = group_by(rows, lambda row: (row.member, row.recipe))
        self.networks = list(self.rows)
        self.scenarios = _distinct(row.scenario for row in rows)
        cells = group_by(rows, lambda row: ((row.member, row.recipe), row.scenario))
        self._reasons = {
            cell: _distinct(row.error or UNKNOWN for row in found if row.top1 is None) for cell, found in cells.items()
        }
        self.by_seed = {
            cell: values
            for cell, found in cells.items()
            if (values := {row.seed: row.top1 for row in found if row.task == task and row.top1 is not None})
        }

    def scenarios_of(self, key: NetworkKey) -> set[str]:
        return {scenario for scenario in self.scenarios if (key, scenario) in self.by_seed}

    def complete(self, networks: Iterable[NetworkKey], scenarios: Iterable[str]) -> list[NetworkKey]:
        return [key for key in networks if self.scenarios_of(key).issuperset(scenarios)]

    def lacking(self, scenario: str, networks: Iterable[NetworkKey]) -> list[NetworkKey]:
        return [key for key in networks if (key, scenario) not in self.by_seed]

    def network(self, key: NetworkKey, scenarios: Iterable[str], name: str, training: str) -> Network:
        first = self.rows[key][0]
        minutes = {row.seed: row.minutes for row in self.rows[key] if row.minutes is not None}
        return Network(
            name=name,
            member=first.member,
            recipe=first.recipe,
            training=training,
            family=first.family,
            backbone=first.backbone,
            depths=first.depths,
            width=first.width,
            flops=first.flops,
            parameters=first.parameters,
            seeds=min(len(self.by_seed[key, scenario]) for scenario in scenarios),
            minutes=mean(minutes.values()) if minutes else None,
        )

    def network_left_out(self, key: NetworkKey, name: str, kept: Sequence[str]) -> LeftOut:
        missing = [scenario for scenario in kept if (key, scenario) not in self.by_seed]
        reasons = [self._reason(key, scenario) for scenario in missing]
        return LeftOut(name, tuple(missing), len(kept) - len(missing), _distinct(chain.from_iterable(reasons)))

    def scenario_left_out(self, scenario: str, networks: Sequence[NetworkKey], names: dict[NetworkKey, str]) -> LeftOut:
        missing = self.lacking(scenario, networks)
        reasons = [self._reason(key, scenario) for key in missing]
        return LeftOut(
            scenario,
            tuple(names[key] for key in missing),
            len(networks) - len(missing),
            _distinct(chain.from_iterable(reasons)),
        )

    def _reason(self, key: NetworkKey, scenario: str) -> tuple[str, ...]:
        return self._reasons.get((key, scenario)) or (UNKNOWN,)


def _task(rows: Sequence[Row]) -> str:
    measured = _distinct(row.task for row in rows if row.top1 is not None)
    if not measured:
        reasons = Counter(row.error or UNKNOWN for row in rows)
        reason, count = reasons.most_common(1)[0]
        raise LightSSLError(
            f"None of the {len(rows)} results of the study has an accuracy. Of {count}, the reason is: {reason}",
            "Mend it, and have it tried again: lightssl study run --resume DIR --retry",
        )
    return next((task for task in LINEAR if task in measured), measured[0])


def _trainings(rows: Sequence[Row]) -> dict[str, str]:
    """Return what a recipe is called: its method, or its own name where a method has several recipes."""
    methods = {row.recipe: row.method for row in rows}
    alone = len(set(methods.values())) == len(methods)
    return methods if alone else {recipe: recipe for recipe in methods}


def _names(rows: Sequence[Row]) -> dict[NetworkKey, str]:
    trainings = _trainings(rows)
    return {
        (row.member, row.recipe): row.member if len(trainings) == 1 else f"{row.member}, {trainings[row.recipe]}"
        for row in rows
    }


def _deviations(table: _Table, networks: Sequence[NetworkKey], scenarios: Sequence[str]) -> tuple[Floats, int]:
    """Return how far each seed is from the mean of its network: [D, S], of seeds that have all scenarios."""
    found, means = [np.empty((0, len(scenarios)))], 0
    for key in networks:
        cells = [table.by_seed[key, scenario] for scenario in scenarios]
        seeds = set.intersection(*map(set, cells))
        if len(seeds) > 1:
            values = np.array([[cell[seed] for cell in cells] for seed in sorted(seeds)])
            found.append(values - values.mean(axis=0))
            means += 1
    deviations = np.concatenate(found)
    return deviations, len(deviations) - means


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def short_names(scenarios: Sequence[str]) -> dict[str, str]:
    """Shorten the names of scenarios, as long as they stay different: the ends of paths and of ``torchvision:NAME``."""
    short = [PurePath(name.rpartition(":")[2]).name or name for name in scenarios]
    return {name: one if short.count(one) == 1 else name for name, one in zip(scenarios, short, strict=True)}
