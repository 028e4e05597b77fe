"""What a study says: how scenarios rank networks, whether they agree, and what one choice for all of them costs.

N networks, S scenarios (data sets or tasks), R resamples. Accuracies are float [N, S], higher is better. Intervals are
percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) over networks: each resample draws as many as
there are with replacement, the same ones for all scenarios. Networks that are not independent, such as one architecture
trained in two ways, are drawn together, as a cluster: they tell less than as many others would.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lightssl.errors import LightSSLError

Kind = Literal["pearson", "spearman", "kendall"]
Floats = NDArray[np.float64]
Row = Mapping[str, Any]  # one result: the values of factors, and a score

RESAMPLES = 1000
LEVEL = 0.95


# ---------------------------------------------------------------------------------------------------------- rankings


def ranks(accuracy: ArrayLike) -> Floats:
    """Rank the networks in each scenario: [N, S] -> [N, S], 1 is the best, and equals share the mean of their ranks.

    Raises:
        LightSSLError: An accuracy is missing.
    """
    return scipy.stats.rankdata(-_table(accuracy), axis=0)


class Regret(NamedTuple):
    """What it costs to take one network for all scenarios."""

    network: int  # which one
    lost: Floats  # [S]: the best accuracy in each scenario, less that of the network


def regret_of_one_choice(accuracy: ArrayLike) -> Regret:
    """Return the regret of the network that is best on average, by mean rank over scenarios.

    Args:
        accuracy: [N, S]; of networks with the same mean rank, the first is taken.

    Raises:
        LightSSLError: An accuracy is missing.
    """
    table = _table(accuracy)
    network = int(ranks(table).mean(axis=1).argmin())
    return Regret(network, table.max(axis=0) - table[network])


def regret_of_winners(accuracy: ArrayLike) -> list[Regret]:
    """Return the regret of the winner of each scenario in all of them: S entries, each 0 at its own place.

    Args:
        accuracy: [N, S]; of several winners of a scenario, the one with the best mean rank over all is taken.

    Raises:
        LightSSLError: An accuracy is missing.
    """
    table = _table(accuracy)
    mean_rank = ranks(table).mean(axis=1)
    best = table.max(axis=0)
    winners = [
        int(np.where(column == top, mean_rank, np.inf).argmin()) for column, top in zip(table.T, best, strict=True)
    ]
    return [Regret(winner, best - table[winner]) for winner in winners]


# ------------------------------------------------------------------------------------------------------ correlations


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval; NaN where it is not defined, as a correlation with a constant is."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlations:
    """Correlations between K columns, each matrix [K, K] and symmetric; NaN where a column is constant."""

    kind: Kind
    values: Floats
    low: Floats
    high: Floats


def correlations(
    columns: ArrayLike,
    kind: Kind = "pearson",
    *,
    units: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Correlations:
    """Correlate all pairs of columns, such as the accuracies of two scenarios, over the networks.

    Args:
        columns: [N, K].
        kind: ``pearson``; ``spearman``, where equals share their mean rank; or ``kendall``, which is tau-b.
        units: N; networks with the same one are drawn together. By default each is drawn by itself.
        resamples: R. Those in which a column is constant leave its correlations out.
        level: Share of the resamples that lies between the ends of the intervals.
        seed: Decides the resamples.

    Raises:
        LightSSLError: There are fewer than three units, or a value is missing.
    """
    table = _table(columns)
    places = {unit: place for place, unit in enumerate(dict.fromkeys(range(len(table)) if units is None else units))}
    if len(places) < 3:
        raise LightSSLError(
            f"A correlation over {len(places)} network{'s' * (len(places) != 1)} says nothing.",
            "Measure three at least.",
        )
    drawn = np.random.default_rng(seed).integers(len(places), size=(resamples, len(places)))
    times = np.stack([np.bincount(row, minlength=len(places)) for row in drawn]).astype(float)
    if units is not None:
        times = times[:, [places[unit] for unit in units]]
    # The first are the networks themselves.
    times = np.concatenate([np.ones((1, len(table))), times])
    # Rounding would otherwise take tau from -1 .. 1, by a little.
    found = np.clip(_KINDS[kind](table, times), -1, 1)
    low, high = _interval(found[1:], level)
    return Correlations(kind, found[0], low, high)


def correlation_with(values: ArrayLike, accuracy: ArrayLike, kind: Kind = "pearson", **options: Any) -> list[Estimate]:
    """Correlate a property of the networks, such as FLOPs or a layer ratio, with the accuracy in each scenario.

    Args:
        values: [N].
        accuracy: [N, S].
        kind: As for :func:`correlations`.
        options: Of :func:`correlations`.

    Returns:
        S estimates.

    Raises:
        LightSSLError: As :func:`correlations`.
    """
    found = correlations(np.column_stack([_table(values), _table(accuracy)]), kind, **options)
    return [
        Estimate(*map(float, row)) for row in zip(found.values[0, 1:], found.low[0, 1:], found.high[0, 1:], strict=True)
    ]


# Each kind, from what every network has in K columns, [N, K], and how often it was drawn, [R, N], to [R, K, K]: as if
# it were there so many times.


def _pearson(table: Floats, times: Floats) -> Floats:
    return _pearson_of(np.broadcast_to(table, (len(times), *table.shape)), times)


def _spearman(table: Floats, times: Floats) -> Floats:
    below = (table[:, None] < table) + (table[:, None] == table) / 2  # [N, N, K]: is the first below the second?
    return _pearson_of(np.einsum("rn,nmk->rmk", times, below, optimize=True), times)


def _pearson_of(values: Floats, times: Floats) -> Floats:
    """Correlate columns that differ from resample to resample: [R, N, K] -> [R, K, K]."""
    weights = times[:, :, None]
    centred = values - (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    # A column of equal values is constant whatever rounding has left of it.
    highest = np.where(weights > 0, values, -np.inf).max(axis=1, keepdims=True)
    lowest = np.where(weights > 0, values, np.inf).min(axis=1, keepdims=True)
    centred = np.where(highest == lowest, 0, centred)
    lengths = np.sqrt((weights * centred**2).sum(axis=1))
    return _divide(np.swapaxes(weights * centred, 1, 2) @ centred, lengths[:, :, None] * lengths[:, None, :])


def _kendall(table: Floats, times: Floats) -> Floats:
    """Kendall's tau-b: copies of a network are ties, as they are in the resample."""
    columns = table.shape[1]
    order = [np.sign(column[:, None] - column) for column in table.T]  # [N, N] each: which of two is higher
    sums = np.empty((len(times), columns, columns))
    for a in range(columns):
        for b in range(a + 1):
            sums[:, a, b] = sums[:, b, a] = ((times @ (order[a] * order[b])) * times).sum(axis=1)
    untied = np.sqrt(np.diagonal(sums, axis1=1, axis2=2))
    return _divide(sums, untied[:, :, None] * untied[:, None, :])


_KINDS: dict[Kind, Callable[[Floats, Floats], Floats]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "kendall": _kendall,
}


# ------------------------------------------------------------------------------------------------- costs and shapes


def pareto(costs: ArrayLike, accuracy: ArrayLike) -> NDArray[np.bool_]:
    """Mark the networks that no other beats: bool [N].

    One is beaten by another that costs no more and is no worse, and is better in one of them. Equals are marked alike.

    Args:
        costs: [N], such as FLOPs; or [N, C] to consider several at once.
        accuracy: [N].

    Raises:
        LightSSLError: A value is missing.
    """
    # Everything as a cost: [N, C + 1]
    table = np.column_stack([_table(costs), -_table(accuracy)])
    no_worse = (table[:, None] <= table).all(axis=2)  # [N, N]: is the first no worse than the second?
    better = (table[:, None] < table).any(axis=2)
    beaten: NDArray[np.bool_] = np.any(no_worse & better, axis=0)
    return ~beaten


def late_early_ratio(depths: Sequence[int]) -> float:
    """Return the number of blocks in the last two stages of a network over that in its first two.

    Stages are those of its topology: four of a ResNet; seven of a MobileNetV2, the first and last with a single block.

    Args:
        depths: Number of blocks of each stage, as of :attr:`lightssl.study.members.Member.depths`.

    Raises:
        LightSSLError: There are fewer than four stages: early and late ones would be the same.
    """
    if len(depths) < 4:
        raise LightSSLError(
            f"A network of {len(depths)} stages has no early and late ones apart.", "Leave it out of this ratio."
        )
    return sum(depths[-2:]) / sum(depths[:2])


# ------------------------------------------------------------------------------------------------------------ factors


@dataclass(frozen=True)
class GroupRankings:
    """How items, such as architectures, come out in each group, such as a pretext task."""

    items: list[Any]
    groups: list[Any]
    means: Floats  # [items, groups]; NaN where an item was not measured in a group
    ranks: Floats  # the same; 1 is the best, and equals share the mean of their ranks


def group_rankings(rows: Sequence[Row], item: str, group: str, *, score: str = "accuracy") -> GroupRankings:
    """Rank items within each group, by their mean score over all other factors.

    Within a group, only settings of the other factors that all of its items were measured at count: an item without
    its best width is not to be behind for it.

    Args:
        rows: Results; every key but ``score`` is a factor.
        item: Factor whose values are ranked.
        group: Factor whose values each have a ranking.
        score: Key of what is compared, higher is better.

    Raises:
        LightSSLError: A row lacks a key or a score, is there twice, or a group has no setting that all of its items
            were measured at.
    """
    scores = _by_factors(rows, {item, group}, score)
    items = list(dict.fromkeys(row[item] for row in rows))
    groups = list(dict.fromkeys(row[group] for row in rows))
    means = np.full((len(items), len(groups)), np.nan)
    for column, one in enumerate(groups):
        settings: dict[Any, dict[Any, float]] = {}
        for factors, value in scores.items():
            named = dict(factors)
            if named[group] == one:
                settings.setdefault(named[item], {})[factors - {(item, named[item])}] = value
        shared = set.intersection(*map(set, settings.values()))
        if not shared:
            raise LightSSLError(
                f"No setting was measured for every {item} of {group} {one}: they cannot be compared.",
                f"Measure what is missing, or leave out a {item}.",
            )
        for name, found in settings.items():
            means[items.index(name), column] = np.mean([found[setting] for setting in shared])
    return GroupRankings(items, groups, means, scipy.stats.rankdata(-means, axis=0, nan_policy="omit"))


@dataclass(frozen=True)
class Effect:
    """The mean difference that a factor makes in pairs that are alike in everything else."""

    difference: Estimate
    pairs: int
    units: int  # that were resampled


def paired_effect(
    rows: Sequence[Row],
    factor: str,
    before: Hashable,
    after: Hashable,
    *,
    score: str = "accuracy",
    unit: Sequence[str] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Effect:
    """Return how much the score changes from one value of a factor to another, over all pairs of rows.

    Args:
        rows: Results; every key but ``score`` is a factor. Those without a partner are left out.
        factor: Which one changes.
        before: Its value in one row of each pair.
        after: Its value in the other.
        score: Key of what is compared.
        unit: Factors that the resamples draw values of, with all pairs that have them. Pairs of one network are not
            independent of each other: name the network here if it has several. By default pairs are drawn.
        resamples: R.
        level: Share of the resamples that lies between the ends of the interval.
        seed: Decides the resamples.

    Raises:
        LightSSLError: A row lacks a key or a score, is there twice, or there is no pair.
    """
    scores = _by_factors(rows, {factor, *unit}, score)
    sums: dict[Any, list[float]] = {}
    for factors, value in scores.items():
        rest = factors - {(factor, before)}
        partner = rest | {(factor, after)}
        if len(rest) < len(factors) and partner in scores:
            key = frozenset((name, dict(rest)[name]) for name in unit) if unit else rest
            sums.setdefault(key, []).append(scores[partner] - value)
    if not sums:
        raise LightSSLError(
            f"No two results differ in {factor} alone, {before!r} and {after!r}.", "Measure both in the same settings."
        )
    differences = np.array([sum(found) for found in sums.values()])
    counts = np.array([len(found) for found in sums.values()])
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    low, high = _interval(differences[drawn].sum(axis=1) / counts[drawn].sum(axis=1), level)
    value = differences.sum() / counts.sum()
    return Effect(Estimate(float(value), float(low), float(high)), int(counts.sum()), len(sums))


def _by_factors(rows: Sequence[Row], needed: set[str], score: str) -> dict[frozenset[tuple[str, Any]], float]:
    """Return the score of each row by its factors."""
    scores: dict[frozenset[tuple[str, Any]], float] = {}
    for number, row in enumerate(rows, 1):
        missing = sorted(({*needed, score}) - row.keys())
        if missing:
            raise LightSSLError(f"Result {number} has no {', '.join(missing)}.", "Give every result the same keys.")
        if not np.isfinite(row[score]):
            raise LightSSLError(f"Result {number} has the {score} {row[score]}.", "Leave out what failed.")
        factors = frozenset((name, value) for name, value in row.items() if name != score)
        if factors in scores:
            raise LightSSLError(
                f"Result {number} is there twice: {', '.join(f'{name} {value}' for name, value in sorted(factors))}.",
                "Give repetitions a key of their own, such as seed.",
            )
        scores[factors] = float(row[score])
    return scores


# ------------------------------------------------------------------------------------------------------------- arrays


def _table(values: ArrayLike) -> Floats:
    """Return an array of floats, and refuse it if one is missing."""
    table = np.asarray(values, dtype=float)
    missing = np.argwhere(~np.isfinite(table))
    if len(missing):
        raise LightSSLError(
            f"The value of network {missing[0][0]} is {table[tuple(missing[0])]}, counted from 0.",
            "Leave out the networks that were not measured everywhere.",
        )
    return table


def _divide(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where the divisor is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _interval(found: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the percentiles of [R, ...] that leave out equal shares below and above; NaN where nothing is defined."""
    tail = (1 - level) / 2
    defined = np.where(np.isnan(found).all(axis=0), 0, found)
    low, high = np.nanquantile(defined, [tail, 1 - tail], axis=0)
    undefined = np.isnan(found).all(axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
