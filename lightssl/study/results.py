"""An analysis in plain values by name, as JSON holds them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightssl.study.analysis import Analysis, Choice, TaskComparison, TrainingRankings, Widths
from lightssl.study.measured import short_names
from lightssl.study.statistics import Correlations, Effect, Estimate
from lightssl.study.verdict import findings

Values = dict[str, Any]


def results_of(analysis: Analysis) -> Values:
    """Return all that is known of a study.

    Networks come in the order of their mean rank. What is not known or not defined is None: what takes several seeds
    with one, a correlation with a constant.
    """
    measured = analysis.measured
    names = [network.name for network in measured.networks]
    noise = analysis.noise
    found = {
        "verdict": [asdict(finding) for finding in findings(analysis)],
        "task": measured.task,
        "seed_degrees_of_freedom": noise.freedom if noise is not None else 0,
        "scenarios": _scenarios(analysis),
        "networks": _networks(analysis),
        "could_be_best_everywhere": _chosen(names, analysis.could_be_best),
        "regret": {
            "best_by_mean_rank": _choice(analysis, analysis.choice),
            "winners": [_choice(analysis, winner) for winner in analysis.winners],
        },
        "correlations": [
            {
                "group": one.group,
                "networks": one.networks,
                **{kind: _correlations(values) for kind, values in one.by_kind.items()},
            }
            for one in analysis.agreements
        ],
        "cost_correlations": [
            {
                "group": one.group,
                "networks": one.networks,
                "cost": one.cost,
                **{kind: _by_scenario(analysis, map(asdict, values)) for kind, values in one.by_kind.items()},
            }
            for one in analysis.costs
        ],
        "trainings": _trainings(analysis.trainings),
        "widths": _widths(analysis.widths, names),
        "mlp": _mlp(analysis.mlp),
        "left_out": {
            "networks": [asdict(one) for one in measured.networks_left_out],
            "scenarios": [asdict(one) for one in measured.scenarios_left_out],
        },
        "failures": [asdict(one) for one in analysis.failures],
    }
    plain: Values = _plain(found)
    return plain


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: lists for tuples and arrays, None for what is not a number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _by_scenario(analysis: Analysis, values: Iterable[Any]) -> Values:
    return dict(zip(analysis.measured.scenarios, values, strict=True))


def _chosen(names: Sequence[str], places: Iterable[int] | None) -> list[str] | None:
    return None if places is None else [names[place] for place in places]


def _scenarios(analysis: Analysis) -> list[Values]:
    measured, could_win = analysis.measured, analysis.could_win
    winners = {scenario: winner.network for winner in analysis.winners for scenario in winner.wins}
    names = [network.name for network in measured.networks]

    def of(values: NDArray[Any] | None, place: int) -> Any:
        return None if values is None else values[place]

    spread = analysis.noise.spread if analysis.noise is not None else None
    labels = short_names(measured.scenarios)
    return [
        {
            "name": name,
            "label": labels[name],
            "winner": names[winners[place]],
            "top1": measured.accuracy[winners[place], place],
            "could_win": None if could_win is None else _chosen(names, np.flatnonzero(could_win[:, place])),
            "seed_spread": of(spread, place),
            "told_apart": of(analysis.told_apart, place),
            "reliability": of(analysis.reliability, place),
        }
        for place, name in enumerate(measured.scenarios)
    ]


def _networks(analysis: Analysis) -> list[Values]:
    measured = analysis.measured
    return [
        {
            **asdict(measured.networks[one]),
            "mean_rank": analysis.mean_rank[one],
            "top1": _by_scenario(analysis, measured.accuracy[one]),
            "rank": _by_scenario(analysis, analysis.ranks[one]),
            "pareto": {cost: _by_scenario(analysis, marked[one]) for cost, marked in analysis.pareto.items()},
        }
        for one in np.argsort(analysis.mean_rank, kind="stable")
    ]


def _choice(analysis: Analysis, choice: Choice) -> Values:
    measured = analysis.measured
    return {
        "network": measured.networks[choice.network].name,
        "wins": [measured.scenarios[scenario] for scenario in choice.wins],
        "lost": _by_scenario(analysis, choice.lost),
        "more_than_chance": None if choice.surely is None else _by_scenario(analysis, choice.surely),
    }


def _correlations(found: Correlations) -> Values:
    return {"values": found.values, "low": found.low, "high": found.high}


def _effect(effect: Effect) -> Values:
    return {**_estimate(effect.difference), "pairs": effect.pairs, "units": effect.units}


def _estimate(estimate: Estimate) -> Values:
    return asdict(estimate)


def _trainings(found: TrainingRankings | None) -> Values | None:
    if found is None:
        return None
    rankings = found.rankings
    return {
        "architectures": found.by,
        "trainings": rankings.groups,
        "rows": [
            {
                "name": name,
                "top1": dict(zip(rankings.groups, means, strict=True)),
                "rank": dict(zip(rankings.groups, places, strict=True)),
            }
            for name, means, places in zip(rankings.items, rankings.means, rankings.ranks, strict=True)
        ],
        "compared": _chosen(rankings.items, found.complete),
        "kendall": None if found.agreement is None else _correlations(found.agreement),
        "could_be_best_in_all": _chosen(rankings.items, found.could_be_best),
    }


def _widths(found: Widths | None, names: Sequence[str]) -> Values | None:
    if found is None:
        return None
    return {
        "series": [_chosen(names, one) for one in found.series],
        "steps": [
            {"before": step.before, "after": step.after, "up": step.up, **_effect(step.effect)} for step in found.steps
        ],
        "pairs": found.pairs,
        "up": found.up,
        "down_by_more_than_chance": found.surely_down,
    }


def _mlp(found: TaskComparison | None) -> Values | None:
    if found is None:
        return None
    return {
        "before": found.before,
        "after": found.after,
        "all": _effect(found.effect),
        "scenarios": {
            scenario: {
                **_effect(found.by_scenario[scenario]),
                "spearman": None if (agreement := found.agreement[scenario]) is None else _estimate(agreement),
                "networks": list(map(asdict, pairs)),
            }
            for scenario, pairs in found.pairs.items()
        },
    }
