"""What a study's table says: the statistics of :mod:`lightssl.study.statistics` on what was measured.

N networks, S scenarios, R resamples. Accuracies are percent, means over seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any, get_args

import numpy as np
import scipy
from numpy.typing import NDArray

from lightssl.study.measured import (
    LINEAR,
    Failure,
    Measured,
    Network,
    NetworkKey,
    failures_of,
    measured_of,
)
from lightssl.study.noise import SeedNoise, beaten, seed_noise, surely_below_zero
from lightssl.study.statistics import (
    LEVEL,
    Correlations,
    Effect,
    Estimate,
    Floats,
    GroupRankings,
    Kind,
    correlation_with,
    correlations,
    group_rankings,
    late_early_ratio,
    paired_effect,
    pareto,
    ranks,
    regret_of_one_choice,
    regret_of_winners,
)
from lightssl.study.table import Row

KINDS: tuple[Kind, ...] = get_args(Kind)
COSTS = ("flops", "parameters")
EVERY = "all networks"
LEAST_FOR_CORRELATION = 3  # members: trained in several ways, one does not tell as much as several
LEAST_IN_GROUP = 5  # networks of a family that are looked at alone
MLP = "mlp"
_BEFORE_MLP = (*LINEAR, "logistic")


@dataclass(frozen=True)
class Choice:
    """One network for all scenarios, and what that costs."""

    network: int
    wins: tuple[int, ...]  # scenarios that it was taken for as the best; none if it was for its mean rank
    lost: Floats  # [S]: the best accuracy in each scenario, less that of the network
    surely: NDArray[np.bool_] | None  # [S]: whether that is more than chance explains; None with one seed


@dataclass(frozen=True)
class Agreement:
    """How scenarios agree on the networks of a group."""

    group: str
    networks: int
    members: int  # that they are trainings of
    by_kind: dict[Kind, Correlations]  # S columns each


@dataclass(frozen=True)
class CostCorrelation:
    """How a property of the networks of a group goes with their accuracy in each scenario."""

    group: str
    networks: int
    cost: str  # flops, parameters or late_early_ratio
    by_kind: dict[Kind, list[Estimate]]  # S each


@dataclass(frozen=True)
class TrainingRankings:
    """How architectures come out in each training."""

    by: str  # what an architecture is: member or family; families count with the widths that all of them have
    rankings: GroupRankings  # by the mean accuracy over scenarios
    complete: tuple[int, ...]  # items that were measured in all trainings
    agreement: Correlations | None  # Kendall between trainings, over those; None of fewer than three
    could_be_best: tuple[int, ...] | None  # items that may in truth be the best in all trainings; None with one seed


@dataclass(frozen=True)
class WidthStep:
    """What it does to make networks wider, from one width to the next."""

    before: float
    after: float
    effect: Effect  # over pairs of networks in all scenarios
    up: int  # pairs in which the wider one is better


@dataclass(frozen=True)
class Widths:
    """Networks that differ in their width alone."""

    series: tuple[tuple[int, ...], ...]  # networks, each from narrow to wide
    architectures: int  # that they are trainings of, whatever their width
    steps: tuple[WidthStep, ...]
    pairs: int
    up: int
    surely_down: int | None  # pairs in which the wider one is worse by more than chance explains; None with one seed


@dataclass(frozen=True)
class TaskPair:
    """A network in two evaluations of one scenario; accuracies are means over the seeds that have both."""

    member: str
    recipe: str
    family: str
    before: float
    after: float


@dataclass(frozen=True)
class TaskComparison:
    """What another evaluation says of the same networks."""

    before: str  # tasks
    after: str
    pairs: dict[str, tuple[TaskPair, ...]]  # by scenario
    effect: Effect  # over all scenarios
    by_scenario: dict[str, Effect]
    agreement: dict[str, Estimate | None]  # Spearman, by scenario; None of fewer than three members


@dataclass(frozen=True)
class Analysis:
    """All that is known of a study."""

    measured: Measured
    failures: tuple[Failure, ...]
    noise: SeedNoise | None  # None with one seed
    ranks: Floats  # [N, S]
    could_win: NDArray[np.bool_] | None  # [N, S]: whether it may in truth be the best of a scenario; None with one seed
    could_be_best: tuple[int, ...] | None  # networks that may in truth be the best everywhere; None with one seed
    choice: Choice  # the best by mean rank
    winners: tuple[Choice, ...]  # different ones
    agreements: tuple[Agreement, ...]  # of all networks, and of groups; none of one scenario or too few networks
    costs: tuple[CostCorrelation, ...]
    pareto: dict[str, NDArray[np.bool_]]  # by cost, [N, S]
    trainings: TrainingRankings | None  # None with one training
    widths: Widths | None  # None where nothing differs in its width alone
    mlp: TaskComparison | None  # None where no network has both

    @property
    def mean_rank(self) -> Floats:
        """Over scenarios: [N]."""
        return self.ranks.mean(axis=1)

    @property
    def reliability(self) -> Floats | None:
        """Share of the variance between networks that is not of seeds, in each scenario: [S]; None if not known."""
        if self.noise is None or len(self.measured.networks) < LEAST_FOR_CORRELATION:
            return None
        variance = self.measured.accuracy.var(axis=0, ddof=1)
        noise = self._noise_of_means(self.noise)
        return np.clip(1 - np.divide(noise, variance, out=np.ones_like(noise), where=variance > 0), 0, 1)

    @property
    def told_apart(self) -> NDArray[np.bool_] | None:
        """Whether networks differ by more than seeds explain in each scenario, by an F test: [S]; None if not known."""
        if self.noise is None or len(self.measured.networks) < 2:
            return None
        variance = self.measured.accuracy.var(axis=0, ddof=1)
        critical = scipy.stats.f.ppf(LEVEL, len(self.measured.networks) - 1, self.noise.freedom)
        found: NDArray[np.bool_] = variance > critical * self._noise_of_means(self.noise)
        return found

    def _noise_of_means(self, noise: SeedNoise) -> Floats:
        """Variance of means over seeds: [S]."""
        return noise.spread**2 * mean(1 / network.seeds for network in self.measured.networks)


def analyse(rows: Sequence[Row]) -> Analysis:
    """Analyse a study.

    Args:
        rows: Those of :func:`lightssl.study.table.read_table`.

    Raises:
        LightSSLError: Nothing was measured.
    """
    measured = measured_of(rows)
    noise = seed_noise(measured.deviations, measured.freedom)
    draws = noise.draws([network.seeds for network in measured.networks]) if noise else None
    accuracy = measured.accuracy
    surely = beaten(accuracy, draws) if draws is not None else None
    groups = _groups(measured)
    return Analysis(
        measured=measured,
        failures=tuple(failures_of(rows)),
        noise=noise,
        ranks=ranks(accuracy),
        could_win=_could_win(accuracy, draws) if draws is not None else None,
        could_be_best=_never(surely) if surely is not None else None,
        choice=_choice(accuracy, surely),
        winners=_winners(accuracy, surely),
        agreements=_agreements(measured, groups),
        costs=_cost_correlations(measured, groups),
        pareto={cost: _pareto(measured, cost) for cost in COSTS},
        trainings=_training_rankings(measured, draws),
        widths=_widths(measured, draws),
        mlp=_mlp(rows),
    )


# ---------------------------------------------------------------------------------------------------------- rankings


def _could_win(accuracy: Floats, draws: Floats) -> NDArray[np.bool_]:
    """Tell of each scenario by itself who may in truth be its best: [N, S]."""
    columns = (slice(column, column + 1) for column in range(accuracy.shape[1]))
    return np.hstack([~beaten(accuracy[:, one], draws[:, :, one]) for one in columns])


def _never(surely_beaten: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(~surely_beaten.any(axis=1)).tolist())


def _choice(accuracy: Floats, surely: NDArray[np.bool_] | None) -> Choice:
    network, lost = regret_of_one_choice(accuracy)
    return Choice(network, (), lost, surely[network] if surely is not None else None)


def _winners(accuracy: Floats, surely: NDArray[np.bool_] | None) -> tuple[Choice, ...]:
    """Return the winners of scenarios, one entry for all those that a network wins."""
    found = regret_of_winners(accuracy)
    wins: dict[int, list[int]] = {}
    for scenario, (network, _) in enumerate(found):
        wins.setdefault(network, []).append(scenario)
    return tuple(
        Choice(network, tuple(won), found[won[0]].lost, surely[network] if surely is not None else None)
        for network, won in wins.items()
    )


# -------------------------------------------------------------------------------------------------------- correlations


def _groups(measured: Measured) -> dict[str, list[int]]:
    """Return all networks, and those of each family and training if there are several: differences between them hide
    what is so within."""
    everyone = list(range(len(measured.networks)))
    several = len(measured.trainings) > 1
    groups: dict[str, list[int]] = {}
    for position, network in enumerate(measured.networks):
        name = f"{network.family}, {network.training}" if several else network.family
        groups.setdefault(name, []).append(position)
    large = {name: found for name, found in groups.items() if len(found) >= LEAST_IN_GROUP}
    return {EVERY: everyone} | (large if len(groups) > 1 else {})


def _agreements(measured: Measured, groups: dict[str, list[int]]) -> tuple[Agreement, ...]:
    if len(measured.scenarios) < 2:
        return ()
    found = []
    for name, group in groups.items():
        members = [measured.networks[one].member for one in group]
        if len(set(members)) >= LEAST_FOR_CORRELATION:
            by_kind = {kind: correlations(measured.accuracy[group], kind, units=members) for kind in KINDS}
            found.append(Agreement(name, len(group), len(set(members)), by_kind))
    return tuple(found)


def _cost_correlations(measured: Measured, groups: dict[str, list[int]]) -> tuple[CostCorrelation, ...]:
    found = []
    for cost, value in _PROPERTIES.items():
        values = {place: one for place, network in enumerate(measured.networks) if (one := value(network)) is not None}
        for group, places in groups.items():
            known = [place for place in places if place in values]
            of_group = [values[place] for place in known]
            members = [measured.networks[place].member for place in known]
            least = LEAST_FOR_CORRELATION if group == EVERY else LEAST_IN_GROUP  # some have no such value
            if len(set(members)) < least or len(set(of_group)) < 2:
                continue
            by_kind = {
                kind: correlation_with(of_group, measured.accuracy[known], kind, units=members) for kind in KINDS
            }
            found.append(CostCorrelation(group, len(known), cost, by_kind))
    return tuple(found)


def _ratio(network: Network) -> float | None:
    return late_early_ratio(network.depths) if network.depths is not None and len(network.depths) >= 4 else None


_PROPERTIES: dict[str, Callable[[Network], float | None]] = {
    "flops": lambda network: network.flops,
    "parameters": lambda network: network.parameters,
    "late_early_ratio": _ratio,
}


def _pareto(measured: Measured, cost: str) -> NDArray[np.bool_]:
    costs = [getattr(network, cost) for network in measured.networks]
    return np.column_stack([pareto(costs, column) for column in measured.accuracy.T])


# ------------------------------------------------------------------------------------------------------------- factors


def _training_rankings(measured: Measured, draws: Floats | None) -> TrainingRankings | None:
    if len(measured.trainings) < 2:
        return None
    networks, scores = measured.networks, measured.accuracy.mean(axis=1)
    counted = _of_families(networks)
    by = "family" if counted else "member"
    counted = counted or list(range(len(networks)))
    rows = [
        {
            "architecture": getattr(networks[one], by),
            "training": networks[one].training,
            "accuracy": scores[one],
            # Of members, the width is a part of what they are.
            **({"width": networks[one].width} if by == "family" else {}),
        }
        for one in counted
    ]
    rankings = group_rankings(rows, "architecture", "training")
    complete = np.flatnonzero(~np.isnan(rankings.means).any(axis=1)).tolist()
    return TrainingRankings(
        by=by,
        rankings=rankings,
        complete=tuple(complete),
        agreement=correlations(rankings.means[complete], "kendall") if len(complete) >= LEAST_FOR_CORRELATION else None,
        could_be_best=_best_in_all(networks, counted, by, rankings, complete, draws)
        if draws is not None and complete
        else None,
    )


def _of_families(networks: Sequence[Network]) -> list[int]:
    """Return the networks by which families can be compared: of each training, those of widths that all of them have.

    None if a family is more than one network in several widths, or if families have no width in common.
    """
    found: dict[str, dict[str, dict[float | None, list[int]]]] = {}
    for position, network in enumerate(networks):
        of_family = found.setdefault(network.training, {}).setdefault(network.family, {})
        of_family.setdefault(network.width, []).append(position)
    counted = []
    for families in found.values():
        if any(len(same) > 1 for widths in families.values() for same in widths.values()):
            return []
        shared = set.intersection(*map(set, families.values()))
        if not shared:
            return []
        counted += [widths[width][0] for widths in families.values() for width in shared]
    return sorted(counted)


def _best_in_all(
    networks: Sequence[Network],
    counted: Sequence[int],
    by: str,
    rankings: GroupRankings,
    complete: Sequence[int],
    draws: Floats,
) -> tuple[int, ...]:
    """Return the items that may in truth be the best in all trainings."""
    cells: dict[tuple[str, str], list[int]] = {}
    for one in counted:
        cells.setdefault((getattr(networks[one], by), networks[one].training), []).append(one)
    over_scenarios = draws.mean(axis=2)  # [R, N]
    of_items = np.stack(
        [
            np.stack(
                [over_scenarios[:, cells[rankings.items[item], group]].mean(axis=1) for group in rankings.groups],
                axis=1,
            )
            for item in complete
        ],
        axis=1,
    )  # [R, items, trainings]
    return tuple(complete[place] for place in _never(beaten(rankings.means[list(complete)], of_items)))


def _widths(measured: Measured, draws: Floats | None) -> Widths | None:
    series = _series(measured.networks)
    pairs = [pair for one in series for pair in pairwise(one)]
    if not pairs:
        return None
    narrow, wide = (list(ends) for ends in zip(*pairs, strict=True))
    gains = measured.accuracy[wide] - measured.accuracy[narrow]  # [pairs, S]
    rows = [
        {
            "series": place,
            "architecture": _without_width(measured.networks[one]),  # which may be trained in several ways
            "width": measured.networks[one].width,
            "scenario": scenario,
            "accuracy": accuracy,
        }
        for place, members in enumerate(series)
        for one in members
        for scenario, accuracy in zip(measured.scenarios, measured.accuracy[one], strict=True)
    ]
    widths = [(_width(measured.networks[one]), _width(measured.networks[other])) for one, other in pairs]
    steps = []
    for before, after in sorted(set(widths)):
        # Those of series that lack a width between them are of another step.
        of_step = [place for place, found in enumerate(widths) if found == (before, after)]
        kept = {place for place, one in enumerate(series) if any(pairs[step] in pairwise(one) for step in of_step)}
        of_kept = [row for row in rows if row["series"] in kept]
        effect = paired_effect(of_kept, "width", before, after, unit=("architecture",))
        steps.append(WidthStep(before, after, effect, int((gains[of_step] > 0).sum())))
    return Widths(
        series=tuple(map(tuple, series)),
        architectures=len({row["architecture"] for row in rows}),
        steps=tuple(steps),
        pairs=gains.size,
        up=int((gains > 0).sum()),
        surely_down=int(surely_below_zero(gains, draws[:, wide] - draws[:, narrow]).sum())
        if draws is not None
        else None,
    )


def _width(network: Network) -> float:
    assert network.width is not None  # networks of a series have one
    return network.width


def _without_width(network: Network) -> tuple[Any, ...]:
    return network.family, network.backbone, network.depths


def _series(networks: Sequence[Network]) -> list[list[int]]:
    """Return networks that differ in their width alone, from narrow to wide, where there are several widths."""
    alike: dict[Any, list[int]] = {}
    for position, network in enumerate(networks):
        if network.width is not None:
            alike.setdefault((_without_width(network), network.recipe), []).append(position)
    found = []
    for members in alike.values():
        widths = {networks[one].width for one in members}
        # With one width twice, they differ in something that the table does not say.
        if 1 < len(widths) == len(members):
            found.append(sorted(members, key=lambda one: _width(networks[one])))
    return found


def _mlp(rows: Sequence[Row]) -> TaskComparison | None:
    """Compare an MLP with a linear classifier, where both were measured on the same network, seed and scenario."""
    found = [row for row in rows if row.top1 is not None]
    after = {_place(row): row for row in found if row.task == MLP}
    for task in _BEFORE_MLP:
        before = {_place(row): row for row in found if row.task == task and _place(row) in after}
        if before:
            return _compare([(row, after[place]) for place, row in before.items()])
    return None


def _place(row: Row) -> tuple[NetworkKey, int, str]:
    return (row.member, row.recipe), row.seed, row.scenario


def _compare(pairs: Sequence[tuple[Row, Row]]) -> TaskComparison:
    def effect(chosen: Sequence[tuple[Row, Row]]) -> Effect:
        results = [
            {
                "member": row.member,
                "recipe": row.recipe,
                "seed": row.seed,
                "scenario": row.scenario,
                "task": row.task,
                "accuracy": row.top1,
            }
            for pair in chosen
            for row in pair
        ]
        return paired_effect(results, "task", first.task, second.task, unit=("member",))

    first, second = pairs[0]
    of_scenario: dict[str, list[tuple[Row, Row]]] = {}
    for pair in pairs:
        of_scenario.setdefault(pair[0].scenario, []).append(pair)
    by_network = {scenario: _task_pairs(chosen) for scenario, chosen in of_scenario.items()}
    return TaskComparison(
        before=first.task,
        after=second.task,
        pairs=by_network,
        effect=effect(pairs),
        by_scenario={scenario: effect(chosen) for scenario, chosen in of_scenario.items()},
        agreement={scenario: _agreement(found) for scenario, found in by_network.items()},
    )


def _task_pairs(pairs: Sequence[tuple[Row, Row]]) -> tuple[TaskPair, ...]:
    """Put the seeds of each network together."""
    of_network: dict[NetworkKey, list[tuple[Row, Row]]] = {}
    for pair in pairs:
        of_network.setdefault((pair[0].member, pair[0].recipe), []).append(pair)
    return tuple(
        TaskPair(
            *key,
            family=found[0][0].family,
            before=mean(before.top1 for before, _ in found if before.top1 is not None),
            after=mean(after.top1 for _, after in found if after.top1 is not None),
        )
        for key, found in of_network.items()
    )


def _agreement(pairs: Sequence[TaskPair]) -> Estimate | None:
    members = [pair.member for pair in pairs]
    if len(set(members)) < LEAST_FOR_CORRELATION:
        return None
    after = np.array([[pair.after] for pair in pairs])
    return correlation_with([pair.before for pair in pairs], after, "spearman", units=members)[0]
