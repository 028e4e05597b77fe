"""What a study says to the claims of others, and how sure that is.

Claims are those of "One Network Doesn't Rule Them All" (arXiv 2203.08130) and of "Revisiting Self-Supervised Visual
Representation Learning" (arXiv 1901.09005).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightssl.study.analysis import LEAST_FOR_CORRELATION, Agreement, Analysis
from lightssl.study.measured import short_names
from lightssl.study.statistics import LEVEL, Correlations, Estimate

State = Literal["holds here", "does not hold here", "open", "not asked"]

ENOUGH_ARCHITECTURES = 10  # bootstrap intervals of correlations over fewer are too narrow to be trusted
ENOUGH_UNITS = 5  # the fewest that all go up by chance in less than one of 20 cases: 1/2^5
MARGINAL = 1.0  # points of accuracy that are called little
_RELIABLE = 0.8  # share of the variance between networks
_NAMED = 5  # networks or pairs at most
_ONE_SEED = (
    "Every network was trained with one seed, so nothing tells this from chance: train with several to know more."
)


@dataclass(frozen=True)
class Finding:
    """A claim, and what the study says to it."""

    claim: str
    state: State
    text: str


def findings(analysis: Analysis) -> list[Finding]:
    """Hold a study against each claim."""
    return [
        _one_network(analysis),
        _scenarios_agree(analysis),
        _wider_is_better(analysis),
        _rankings_differ(analysis),
        _mlp_gains_little(analysis),
    ]


# ---------------------------------------------------------------------------------------------------------- one network


def _one_network(analysis: Analysis) -> Finding:
    claim = "No network is the best everywhere"
    measured, choice = analysis.measured, analysis.choice
    networks, scenarios = len(measured.networks), len(measured.scenarios)
    if networks < 2 or scenarios < 2:
        short = "one network" if networks < 2 else "one scenario"
        return Finding(claim, "not asked", f"Not asked by this study: only {short} can be compared.")
    alone = len(analysis.winners) == 1
    best = measured.networks[choice.network].name
    if alone:
        said = [f"{best} has the highest accuracy in all {scenarios} scenarios."]
    else:
        said = [
            f"The best networks of {scenarios} scenarios are {len(analysis.winners)} different ones. {best}, the best "
            f"by mean rank ({analysis.mean_rank[choice.network]:.1f} of {networks}), loses {_range(choice.lost)} "
            f"points to them, {choice.lost.mean():.1f} on average."
        ]
    state: State = "open"
    possible = analysis.could_be_best
    if possible is None:
        said.append(_ONE_SEED)
    elif not possible:
        state = "holds here"
        said.append(f"Each of the {networks} is behind somewhere by more than seeds explain{_sure()}.")
    elif alone and len(possible) == 1:
        state = "does not hold here"
        said.append(f"Every other one is behind somewhere by more than seeds explain{_sure()}.")
    else:
        names = _listed([measured.networks[one].name for one in possible])
        said.append(
            f"Allowing for chance, {len(possible)} of {networks} could be the best everywhere{_sure()}: {names}. "
            "That leaves the question open."
        )
    return Finding(claim, state, " ".join(said))


# ------------------------------------------------------------------------------------------------------------ scenarios


def _scenarios_agree(analysis: Analysis) -> Finding:
    claim = "A network that is good in one scenario is good in the others"
    measured = analysis.measured
    if len(measured.scenarios) < 2:
        return Finding(claim, "not asked", "Not asked by this study: only one scenario can be compared.")
    if not analysis.agreements:
        return Finding(
            claim,
            "not asked",
            f"Cannot be told: a correlation needs {LEAST_FOR_CORRELATION} architectures, and there "
            f"{_are(len({network.member for network in measured.networks}))}.",
        )
    everyone, *groups = analysis.agreements
    signs = _signs(everyone.by_kind["spearman"])
    said = [
        _correlations_in_words(everyone.by_kind["spearman"], _scenarios_of(analysis)),
        _few(everyone.members, "architectures", ENOUGH_ARCHITECTURES),
        _groups_in_words(groups),
        _noise_in_words(analysis),
    ]
    state: State = "open"
    told_apart = analysis.told_apart is None or bool(analysis.told_apart.all())
    if everyone.members >= ENOUGH_ARCHITECTURES:
        if signs.surely_below:
            state = "does not hold here"
        elif told_apart and signs.all_above and all(_signs(group.by_kind["spearman"]).all_above for group in groups):
            state = "holds here"
            said.append("That is agreement in direction: how close it is, the correlations tell.")
    return Finding(claim, state, _joined(said))


@dataclass(frozen=True)
class _Signs:
    """How many of several intervals lie where."""

    above: int
    below: int
    around: int  # those that contain 0
    undefined: int
    surely_below: int  # with intervals wide enough to hold for all at once

    @property
    def all_above(self) -> bool:
        return self.above > 0 and not (self.below or self.around or self.undefined)

    def __str__(self) -> str:
        total = self.above + self.below + self.around + self.undefined
        if self.above == total:
            return "its interval lies above 0" if total == 1 else f"all {total} intervals lie above 0"
        if total == 1:
            return "its interval lies below 0" if self.below else "its interval contains 0 and leaves it open"
        parts = [
            f"{count} of {total} {what}"
            for count, what in (
                (self.above, _verb(self.above, "above 0")),
                (self.below, _verb(self.below, "below 0")),
                (self.around, "contains 0 and leaves it open" if self.around == 1 else "contain 0 and leave it open"),
                (self.undefined, "cannot be computed, as accuracies are equal"),
            )
            if count
        ]
        return f"of their intervals, {', '.join(parts)}"


def _verb(count: int, where: str) -> str:
    return f"{'lies' if count == 1 else 'lie'} {where}"


def _signs(found: Correlations) -> _Signs:
    values, low, high = (_pairs(matrix) for matrix in (found.values, found.low, found.high))
    return _Signs(
        above=int((low > 0).sum()),
        below=int((high < 0).sum()),
        around=int(((low <= 0) & (high >= 0)).sum()),
        undefined=int(np.isnan(low).sum()),
        surely_below=_surely_below(values, high),
    )


def _surely_below(values: NDArray[np.float64], high: NDArray[np.float64]) -> int:
    """Count the intervals that lie below 0 when they are wide enough to hold for all at once.

    By Bonferroni's correction, with the ends of a normal distribution: of many, some lie below 0 by chance.
    """
    tail, normal = (1 - LEVEL) / 2, NormalDist()
    wider = normal.inv_cdf(1 - tail / max(1, len(values))) / normal.inv_cdf(1 - tail)
    return int((values + wider * (high - values) < 0).sum())


def _pairs(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return matrix[np.triu_indices(len(matrix), 1)]


def _correlations_in_words(found: Correlations, names: Sequence[str]) -> str:
    values = _pairs(found.values)
    if np.isnan(values).all():
        return "No correlation can be computed, as accuracies are equal."
    rows, columns = np.triu_indices(len(names), 1)

    def one(place: int) -> str:
        row, column = rows[place], columns[place]
        estimate = Estimate(values[place], found.low[row, column], found.high[row, column])
        return f"{interval(estimate)} between {names[row]} and {names[column]}"

    kind = {"spearman": "Spearman's", "kendall": "Kendall's", "pearson": "Pearson's"}[found.kind]
    if len(values) == 1:
        return f"{kind} correlation is {one(0)}: {_signs(found)}."
    ends = one(int(np.nanargmin(values))), one(int(np.nanargmax(values)))
    return f"{kind} correlations range from {ends[0]} to {ends[1]}; {_signs(found)}."


def _groups_in_words(groups: Sequence[Agreement]) -> str:
    if not groups:
        return ""
    rest = f", and {len(groups) - _NAMED} more groups" if len(groups) > _NAMED else ""
    return f"Within groups, {'; '.join(map(_group_in_words, groups[:_NAMED]))}{rest}."


def _group_in_words(group: Agreement) -> str:
    spearman = group.by_kind["spearman"]
    found, signs = _pairs(spearman.values), _signs(spearman)
    if np.isnan(found).all():
        return f"{group.group} ({group.networks}): none can be computed"
    ends = [np.nanmin(found), np.nanmax(found)]
    where = " to ".join(dict.fromkeys(f"{end:z.2f}" for end in ends))
    few = ", which are few" if group.members < ENOUGH_ARCHITECTURES else ""
    below = f" and {signs.below} below" if signs.below else ""
    return f"{group.group} ({group.networks}{few}): {where}, {signs.above} of {len(found)} above 0{below}"


def _noise_in_words(analysis: Analysis) -> str:
    reliability, apart = analysis.reliability, analysis.told_apart
    if reliability is None or apart is None:
        return (
            "That is of the networks as they were trained: with one seed, it is not known how much of it is luck, "
            "which a training carries to all scenarios."
        )
    if not apart.all():
        names = [name for name, one in zip(_scenarios_of(analysis), apart, strict=True) if not one]
        return (
            f"Networks differ by no more than seeds explain in {_listed(names)}, so what goes together there is luck."
        )
    worst = int(reliability.argmin())
    if reliability[worst] >= _RELIABLE:
        return ""
    share = f"{1 - reliability[worst]:.0%} of the variance between networks"
    return f"Seeds make up to {share}, in {_scenarios_of(analysis)[worst]}, and blur the correlations as much."


# -------------------------------------------------------------------------------------------------------------- factors


def _wider_is_better(analysis: Analysis) -> Finding:
    claim = "A wider network is always better"
    widths = analysis.widths
    if widths is None:
        return Finding(claim, "not asked", "Not asked by this study: no networks differ in their width alone.")
    steps = [f"{step.before:g} to {step.after:g}: {effect(step.effect.difference)} points" for step in widths.steps]
    units = widths.architectures
    said = [
        f"Of {widths.pairs} pairs of neighbouring widths, over {_counted(units, 'architecture')} and "
        f"{_counted(len(analysis.measured.scenarios), 'scenario')}, the wider one is better in {widths.up}.",
        f"Mean change: {_listed(steps)}.",
    ]
    state: State = "open"
    if units < ENOUGH_UNITS:
        said.append(f"{_counted(units, 'architecture').capitalize()} in several widths {_are_few(units)}.")
    elif widths.up == widths.pairs:
        state = "holds here"
    elif _surely_below(
        *np.array([[step.effect.difference.value, step.effect.difference.high] for step in widths.steps]).T
    ):
        state = "does not hold here"
    if widths.surely_down:
        state = "does not hold here"
        said.append(
            f"In {widths.surely_down} of them the wider one is worse by more than seeds explain{_sure()}, all pairs "
            "considered."
        )
    elif widths.up < widths.pairs and state == "open":
        said.append(
            _ONE_SEED
            if widths.surely_down is None
            else "Where it is worse, that is no more than seeds explain, so the question is open."
        )
    return Finding(claim, state, " ".join(said))


def _rankings_differ(analysis: Analysis) -> Finding:
    claim = "Which architecture is the best depends on how it is pre-trained"
    found = analysis.trainings
    if found is None:
        return Finding(claim, "not asked", "Not asked by this study: all networks were pre-trained alike.")
    names = {"family": "families", "member": "members"}
    groups, items = list(map(str, found.rankings.groups)), list(map(str, found.rankings.items))
    if len(found.complete) < 2:
        return Finding(
            claim, "open", f"Too few architectures were measured with each of {', '.join(groups)} to be compared."
        )
    means = found.rankings.means[list(found.complete)]
    best = [items[found.complete[place]] for place in means.argmax(axis=0)]
    alone = len(set(best)) == 1
    where = [f"{one} in {group}" for one, group in zip(best, groups, strict=True)]
    said = [
        f"{best[0]} is the best of {len(means)} {names[found.by]} under {' and '.join(groups)} alike."
        if alone
        else f"Best of the {len(means)} {names[found.by]}: {_listed(where)}."
    ]
    state: State = "open"
    if found.agreement is not None:
        said.append(_correlations_in_words(found.agreement, groups))
        said.append(_few(len(means), names[found.by], ENOUGH_ARCHITECTURES))
        if len(means) >= ENOUGH_ARCHITECTURES and not alone and _signs(found.agreement).surely_below:
            state = "holds here"
    possible = found.could_be_best
    if possible is None:
        said.append(_ONE_SEED if state == "open" else "")
    elif not possible:
        state = "holds here"
        said.append(f"Each is behind in one of them by more than seeds explain{_sure()}.")
    elif alone and len(possible) == 1:
        state = "does not hold here"
        said.append(f"Every other one is behind somewhere by more than seeds explain{_sure()}.")
    elif state == "open":
        said.append(
            f"Allowing for chance, {len(possible)} could be the best in all of them{_sure()}: "
            f"{_listed([items[one] for one in possible])}. That leaves the question open."
        )
    return Finding(claim, state, _joined(said))


def _mlp_gains_little(analysis: Analysis) -> Finding:
    claim = "An MLP finds little more in the features than a linear classifier"
    found = analysis.mlp
    if found is None:
        return Finding(claim, "not asked", "Not asked by this study: no network was evaluated with both.")
    difference, units = found.effect.difference, found.effect.units
    means = [one.difference.value for one in found.by_scenario.values()]
    said = [
        f"{found.after} is {effect(difference)} points above {found.before} on average over "
        f"{_counted(units, 'architecture')}"
        + (f", {min(means):+z.2f} to {max(means):+z.2f} by scenario." if len(means) > 1 else "."),
        *_agreement_of_tasks(list(found.agreement.values())),
    ]
    state: State = "open"
    if units < ENOUGH_UNITS:
        said.append(f"{_counted(units, 'architecture').capitalize()} {_are_few(units)}.")
    elif difference.high < MARGINAL:
        state = "holds here"
        said.append(f"Little means less than {MARGINAL:g} point.")
    elif difference.low > MARGINAL:
        state = "does not hold here"
        said.append(f"Little means less than {MARGINAL:g} point.")
    else:
        said.append(f"Little means less than {MARGINAL:g} point, and the interval does not tell.")
    return Finding(claim, state, " ".join(said))


def _agreement_of_tasks(found: Sequence[Estimate | None]) -> list[str]:
    known = [one for one in found if one is not None and np.isfinite(one.value)]
    if not known:
        return []
    ends = [choose(known, key=lambda one: one.value) for choose in (min, max)]
    if len(known) == 1:
        return [f"Both rank the networks with a Spearman correlation of {interval(known[0])}."]
    return [f"Both rank the networks with Spearman correlations of {interval(ends[0])} to {interval(ends[1])}."]


# ---------------------------------------------------------------------------------------------------------------- words


def interval(estimate: Estimate) -> str:
    """Write a correlation with its interval; a dash where it is not defined."""
    if np.isnan(estimate.value):
        return "\N{EN DASH}"
    if np.isnan(estimate.low):
        return f"{estimate.value:z.2f}"
    return f"{estimate.value:z.2f} ({estimate.low:z.2f} to {estimate.high:z.2f})"


def effect(estimate: Estimate) -> str:
    """Write a difference of accuracies with its interval; one unit has none."""
    if estimate.low == estimate.high:
        return f"{estimate.value:+z.2f}"
    return f"{estimate.value:+z.2f} ({estimate.low:+z.2f} to {estimate.high:+z.2f})"


def _scenarios_of(analysis: Analysis) -> list[str]:
    return list(short_names(analysis.measured.scenarios).values())


def _range(values: NDArray[np.float64]) -> str:
    return f"{values.min():.1f} to {values.max():.1f}"


def _sure() -> str:
    return f" ({LEVEL:.0%} sure)"


def _listed(texts: Sequence[str]) -> str:
    rest = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{', '.join(texts[:_NAMED])}{rest}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def _are_few(count: int) -> str:
    return "is too few to tell" if count == 1 else "are too few to tell"


def _few(count: int, noun: str, enough: int) -> str:
    return f"Intervals over {count} {noun} are not to be trusted: that takes {enough}." if count < enough else ""


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(filter(None, sentences))
