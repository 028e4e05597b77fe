"""What the page about a study shows: its figures in words, and its pictures."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lightssl.reports.study import Picture, Section, Table
from lightssl.reports.study_plots import Dot, HeatMap, Line, Panel, Scales, correlation_maps, heat_map, panels
from lightssl.study.measured import short_names
from lightssl.study.statistics import LEVEL, RESAMPLES, Estimate
from lightssl.study.verdict import effect, interval

Values = Mapping[str, Any]  # as of lightssl.study.results.results_of

_COSTS = {"flops": "FLOPs", "parameters": "parameters", "late_early_ratio": "late / early blocks"}
_KINDS = {"pearson": "Pearson", "spearman": "Spearman", "kendall": "Kendall"}
_FAMILIES = 9  # that have a colour of their own
_OTHERS = "others"
_WRITTEN = 60  # rows of ranks whose cells hold figures
_NAMED = 5  # networks that lack the same
_MISSING = "\N{EN DASH}"
_INTERVALS = (
    f"Intervals are {LEVEL:.0%} percentile bootstrap intervals over architectures ({RESAMPLES:,} resamples), each of "
    "them for itself."
)


class StudyPage:
    """The sections of the page, and the pictures by the names of their files.

    Args:
        results: As of :func:`lightssl.study.results.results_of`.
    """

    def __init__(self, results: Values) -> None:
        self.results = results
        self.networks: list[Values] = results["networks"]
        self.scenarios = [one["name"] for one in results["scenarios"]]
        self.labels = short_names(self.scenarios)
        self.pictures: dict[str, Picture] = {}
        self._families = _families(self.networks)
        self._trainings = list(dict.fromkeys(one["training"] for one in self.networks))

    @property
    def facts(self) -> str:
        """What was compared, in a sentence."""
        seeds = sorted({one["seeds"] for one in self.networks})
        counts = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else _counted(seeds[0], "seed")
        left_out = self.results["left_out"]
        rest = [
            f"{_counted(len(found), what)} left out"
            for what, found in (("network", left_out["networks"]), ("scenario", left_out["scenarios"]))
            if found
        ]
        several = len(self._trainings) > 1
        return (
            f"{_counted(len(self.networks), 'network')} in {_counted(len(self.scenarios), 'scenario')}, "
            f"{counts} of each{f', {len(self._trainings)} ways of pre-training' if several else ''}; ranked by top-1 "
            f"of the task {self.results['task']}{'; ' + ' and '.join(rest) if rest else ''}."
        )

    def sections(self) -> list[Section]:
        """Draw everything, and return the page from top to bottom."""
        found = [
            self._scenarios(),
            self._ranks(),
            self._correlations(),
            self._costs(),
            self._regret(),
            self._rankings(),
            self._widths(),
            self._mlp(),
            self._failed(),
            self._all(),
        ]
        return [section for section in found if section is not None]

    def _picture(self, name: str, png: bytes, alt: str) -> Picture:
        self.pictures[name] = Picture(png, alt)
        return self.pictures[name]

    # ------------------------------------------------------------------------------------------------------- sections

    def _scenarios(self) -> Section:
        freedom = self.results["seed_degrees_of_freedom"]
        columns = ["Scenario", "Best network", "Top-1, %", "Data"]
        if freedom:
            columns[3:3] = ["Could be the best", "Spread of seeds, points", "Of variance, not of seeds"]
        note = (
            f"The spread of seeds is a standard deviation, pooled over networks, with {_counted(freedom, 'degree')} of "
            "freedom. Those that could be the best are not behind by more than that explains "
            f"({LEVEL:.0%} sure, over all networks of a scenario). The smaller the share of the variance between "
            "networks that is not of seeds, the more of a ranking is luck."
            if freedom
            else "With one seed for each network, nothing is known of how far chance alone moves an accuracy."
        )
        rows = [
            [
                self.labels[one["name"]],
                one["winner"],
                _points(one["top1"]),
                *(self._chance(one) if freedom else ()),
                one["name"],
            ]
            for one in self.results["scenarios"]
        ]
        return Section("scenarios", "The scenarios", notes=[note], tables=[Table(columns, rows)])

    def _chance(self, scenario: Values) -> list[str]:
        """Say what seeds tell of a scenario."""
        reliability = scenario["reliability"]
        return [
            f"{len(scenario['could_win'])} of {len(self.networks)}",
            _points(scenario["seed_spread"], 2),
            _MISSING if reliability is None else f"{reliability:.0%}",
        ]

    def _ranks(self) -> Section | None:
        if len(self.networks) < 2:
            return None
        values = np.array([list(one["rank"].values()) for one in self.networks])
        names = [one["name"] for one in self.networks]
        texts = [[_rank(value) for value in row] for row in values] if len(names) <= _WRITTEN else ()
        columns = [self.labels[name] for name in self.scenarios]
        png = heat_map(HeatMap(names, columns, values, texts), "ranks", label="rank, 1 is the best")
        rows = [
            [one["name"], f"{one['mean_rank']:.1f}", *(_rank(rank) for rank in one["rank"].values())]
            for one in self.networks
        ]
        return Section(
            "ranks",
            "Ranks",
            notes=["From the best mean rank to the worst. 1 is the best; equals share the mean of their ranks."],
            pictures=[self._picture("ranks", png, "The rank of each network in each scenario")],
            tables=[Table(["Network", "Mean rank", *columns], rows, title="All ranks", folded=True)],
        )

    def _correlations(self) -> Section | None:
        if len(self.scenarios) < 2:
            return None
        found = self.results["correlations"]
        if not found:
            members = {one["member"] for one in self.networks}
            few = f"A correlation needs three architectures; there {'are two' if len(members) == 2 else 'is one'}."
            return Section("correlations", "Do scenarios agree?", notes=[few])
        everyone, *groups = found
        pictures = [
            self._picture(
                "correlations",
                correlation_maps(
                    {_KINDS[kind]: self._correlation_map(everyone[kind]) for kind in ("spearman", "pearson")}
                ),
                "Correlations between the scenarios",
            )
        ]
        if groups:
            maps = {f"{one['group']} ({one['networks']})": self._correlation_map(one["spearman"]) for one in groups}
            pictures.append(
                self._picture(
                    "correlations_within", correlation_maps(maps), "Correlations between the scenarios within groups"
                )
            )
        columns = ["Scenarios", *(name for name in _KINDS.values())]
        tables = [
            Table(columns, self._pairs(one), title=f"All pairs with their intervals: {one['group']}", folded=True)
            for one in found
        ]
        notes = [f"Of accuracies, over {everyone['networks']} networks. {_INTERVALS}"]
        if groups:
            notes.append(
                "Networks of one family that were trained alike are also looked at by themselves: a difference between "
                "families or trainings shows in all scenarios, and hides what is so within. These are Spearman's."
            )
        return Section("correlations", "Do scenarios agree?", notes=notes, pictures=pictures, tables=tables)

    def _correlation_map(self, found: Values) -> HeatMap:
        columns = [self.labels[name] for name in self.scenarios]
        values = _floats(found["values"])
        np.fill_diagonal(values, np.nan)
        return HeatMap(columns, columns, values, [[_short_correlation(value) for value in row] for row in values])

    def _pairs(self, found: Values) -> list[list[str]]:
        return [
            [
                f"{self.labels[one]}, {self.labels[other]}",
                *(_interval(_at(found[kind], row, column)) for kind in _KINDS),
            ]
            for (row, one), (column, other) in combinations(enumerate(self.scenarios), 2)
        ]

    def _costs(self) -> Section:
        columns = [self.labels[name] for name in self.scenarios]
        rows = [
            [
                f"{_COSTS[one['cost']]}, {one['group']}",
                str(one["networks"]),
                *(_interval(estimate) for estimate in one["spearman"].values()),
            ]
            for one in self.results["cost_correlations"]
        ]
        tables = [Table(["Spearman with accuracy", "Networks", *columns], rows)] if rows else []
        notes = [
            "Joined and ringed: networks that no other beats in both accuracy and cost. FLOPs are multiply-accumulates "
            "of one image at the size that the study counts them at, without a classifier.",
        ]
        if rows:
            notes.append(
                "Late / early blocks: those in the last two stages over those in the first two, where stages are "
                f"known. {_INTERVALS}"
            )
        pictures = [
            self._picture(cost, self._cost_picture(cost), f"Accuracy over {_COSTS[cost]} in each scenario")
            for cost in ("flops", "parameters")
        ]
        return Section("costs", "What accuracy costs", pictures=pictures, notes=notes, tables=tables)

    def _cost_picture(self, cost: str) -> bytes:
        drawn = []
        for scenario in self.scenarios:
            marked = [one["pareto"][cost][scenario] for one in self.networks]
            dots = [
                self._dot(one, one[cost], one["top1"][scenario], ringed=ringed)
                for one, ringed in zip(self.networks, marked, strict=True)
            ]
            front = sorted({(dot.x, dot.y) for dot in dots if dot.ringed})
            line = Line([x for x, _ in front], [y for _, y in front], steps=True)
            drawn.append(Panel(self.labels[scenario], dots, [line]))
        return panels(
            drawn,
            Scales(_COSTS[cost], "top-1, %", logarithmic=True),
            colours=self._families,
            markers=self._trainings,
            ring="not beaten in both",
        )

    def _dot(self, network: Values, x: float, y: float, *, ringed: bool = False) -> Dot:
        return Dot(
            x,
            y,
            colour=self._colour(network["family"]),
            marker=self._trainings.index(network["training"]),
            ringed=ringed,
        )

    def _colour(self, family: str) -> int:
        return self._families.index(family) if family in self._families else len(self._families) - 1

    def _regret(self) -> Section | None:
        if len(self.networks) < 2 or len(self.scenarios) < 2:
            return None
        choices = self._choices()
        columns = [self.labels[name] for name in self.scenarios]
        values = _floats([list(one["lost"].values()) for one in choices.values()])
        texts = [[f"{value:.1f}" for value in row] for row in values]
        names = [one["network"] for one in choices.values()]
        png = heat_map(HeatMap(names, columns, values, texts), "losses", label="points behind the best")
        rows = [
            [
                name,
                f"{np.mean(list(one['lost'].values())):.1f}",
                f"{max(one['lost'].values()):.1f}",
                *([] if (surely := one["more_than_chance"]) is None else [_counted(sum(surely.values()), "scenario")]),
            ]
            for name, one in choices.items()
        ]
        heads = ["Network", "Mean loss", "Largest loss", "Surely behind in"]
        return Section(
            "regret",
            "One network for everything",
            notes=[
                "Points of accuracy behind the best network of each scenario, if the network on the left is taken for "
                "all: the first is the best by mean rank, the others are the best somewhere. The best of many is in "
                "part the luckiest, so these are high rather than low."
            ],
            pictures=[self._picture("regret", png, "What one network loses in each scenario")],
            tables=[Table(heads[: len(rows[0])], rows)],
        )

    def _choices(self) -> dict[str, Values]:
        """Return the networks that one may take for everything, by what they are the best in."""
        found = self.results["regret"]
        best: Values = found["best_by_mean_rank"]
        why = {best["network"]: "best mean rank"}
        for one in found["winners"]:
            won = f"best in {', '.join(self.labels[name] for name in one['wins'])}"
            why[one["network"]] = f"{why[one['network']]}, {won}" if one["network"] in why else won
        by_name = {best["network"]: best} | {one["network"]: one for one in found["winners"]}
        return {f"{name}: {why[name]}": one for name, one in by_name.items()}

    def _rankings(self) -> Section | None:
        found = self.results["trainings"]
        if found is None:
            return None
        trainings = found["trainings"]
        order = sorted(found["rows"], key=lambda row: np.nanmean(_floats(list(row["rank"].values()))))
        values = _floats([[row["rank"][name] for name in trainings] for row in order])
        texts = [[_rank(value) for value in row] for row in values] if len(order) <= _WRITTEN else ()
        png = heat_map(
            HeatMap([row["name"] for row in order], trainings, values, texts), "ranks", label="rank, 1 is the best"
        )
        rows = [
            [row["name"], *(f"{_points(row['top1'][name])} ({_rank(row['rank'][name])})" for name in trainings)]
            for row in order
        ]
        tables = [Table(["Architecture", *trainings], rows, title="Mean accuracy in %, and rank", folded=True)]
        if found["kendall"] is not None:
            pairs = [
                [f"{one}, {other}", _interval(_at(found["kendall"], row, column))]
                for (row, one), (column, other) in combinations(enumerate(trainings), 2)
            ]
            tables.insert(0, Table(["Pre-trainings", "Kendall"], pairs))
        what = "Families count with the widths that all of them have." if found["architectures"] == "family" else ""
        return Section(
            "trainings",
            "Rankings by how networks were pre-trained",
            notes=[f"By the mean accuracy over scenarios, in each pre-training for itself. {what}", _INTERVALS],
            pictures=[self._picture("trainings", png, "The rank of each architecture in each pre-training")],
            tables=tables,
        )

    def _widths(self) -> Section | None:
        found = self.results["widths"]
        if found is None:
            return None
        by_name = {one["name"]: one for one in self.networks}
        series = [[by_name[name] for name in one] for one in found["series"]]
        drawn = [
            Panel(
                self.labels[scenario],
                [self._dot(one, one["width"], one["top1"][scenario]) for members in series for one in members],
                [
                    Line(
                        [one["width"] for one in members],
                        [one["top1"][scenario] for one in members],
                        self._colour(members[0]["family"]),
                    )
                    for members in series
                ],
            )
            for scenario in self.scenarios
        ]
        ticks = sorted({one["width"] for members in series for one in members})
        png = panels(
            drawn,
            Scales("width", "top-1, %", ticks=ticks),
            colours=self._families,
            markers=self._trainings,
        )
        rows = [
            [
                f"{step['before']:g} to {step['after']:g}",
                _change(step),
                f"{step['up']} of {step['pairs']}",
                str(step["units"]),
            ]
            for step in found["steps"]
        ]
        return Section(
            "widths",
            "What width does",
            notes=[
                "Networks that differ in their width alone, from each width to the next. Pairs are of all scenarios; "
                "intervals are over architectures."
            ],
            pictures=[self._picture("widths", png, "Accuracy over width in each scenario, a line for each network")],
            tables=[Table(["Width", "Change in points", "Better in", "Networks"], rows)],
        )

    def _mlp(self) -> Section | None:
        found = self.results["mlp"]
        if found is None:
            return None
        before, after = found["before"], found["after"]
        names = short_names([*dict.fromkeys([*self.scenarios, *found["scenarios"]])])
        drawn = [
            Panel(
                names[scenario],
                [Dot(pair["before"], pair["after"], self._colour(pair["family"])) for pair in one["networks"]],
                diagonal=True,
            )
            for scenario, one in found["scenarios"].items()
        ]
        png = panels(drawn, Scales(f"{before}, %", f"{after}, %"), colours=self._families)
        rows = [
            [
                names.get(scenario, scenario),
                _change(one),
                _MISSING if one["spearman"] is None else _interval(one["spearman"]),
                str(one["units"]),
            ]
            for scenario, one in found["scenarios"].items()
        ]
        rows.append(["all", _change(found["all"]), _MISSING, str(found["all"]["units"])])
        return Section(
            "mlp",
            "A linear classifier and an MLP",
            notes=[
                f"On the same features. Above the dashed line, {after} is better. Intervals are over architectures."
            ],
            pictures=[self._picture("mlp", png, f"Accuracy of {after} over that of {before} in each scenario")],
            tables=[Table(["Scenario", f"{after} less {before}, points", "Spearman of both", "Networks"], rows)],
        )

    def _failed(self) -> Section | None:
        left_out = self.results["left_out"]
        tables = []
        if left_out["scenarios"]:
            rows = [
                [
                    one["name"],
                    f"{one['measured']} of {one['measured'] + len(one['missing'])}",
                    "; ".join(one["reasons"]),
                ]
                for one in left_out["scenarios"]
            ]
            tables.append(Table(["Scenario", "Networks measured", "Why not the others"], rows, "Scenarios left out"))
        if left_out["networks"]:
            rows = [
                [
                    one["name"],
                    f"{one['measured']} of {len(self.scenarios)}",
                    ", ".join(self.labels[name] for name in one["missing"]),
                    "; ".join(one["reasons"]),
                ]
                for one in left_out["networks"]
            ]
            columns = ["Network", "Scenarios measured", "Missing", "Why"]
            tables.append(Table(columns, rows, "Networks left out"))
        if self.results["failures"]:
            rows = [
                [
                    _listed(one["networks"]),
                    one["reason"],
                    ", ".join(map(str, one["seeds"])),
                    ", ".join(one["tasks"]),
                    ", ".join(one["scenarios"]),
                ]
                for one in self.results["failures"]
            ]
            columns = ["Networks", "Why", "Seeds", "Tasks", "Scenarios"]
            tables.append(Table(columns, rows, "Everything that has no accuracy", folded=bool(tables)))
        if not tables:
            return None
        notes = [
            "Networks are compared that were measured in all scenarios. A scenario that would cost more than half of "
            "them is left out instead. Where some seeds are missing, the mean is of the others."
        ]
        return Section("failed", "What is missing", notes=notes, tables=tables)

    def _all(self) -> Section:
        return Section(
            "networks", "All networks", notes=["Top-1 in percent, means over seeds."], tables=[self._table()]
        )

    def _table(self) -> Table:
        several = len(self._trainings) > 1
        columns = [
            "Network",
            "Family",
            *(["Pre-training"] if several else []),
            "Depths",
            "Width",
            "FLOPs",
            "Parameters",
            "Seeds",
            "Minutes",
            "Mean rank",
            *(self.labels[name] for name in self.scenarios),
        ]
        rows = [
            [
                one["member"] if several else one["name"],
                one["family"],
                *([one["training"]] if several else []),
                " ".join(map(str, one["depths"] or [])) or _MISSING,
                _MISSING if one["width"] is None else f"{one['width']:g}",
                f"{one['flops'] / 1e6:,.1f}M",
                f"{one['parameters'] / 1e6:,.2f}M",
                str(one["seeds"]),
                _points(one["minutes"]),
                f"{one['mean_rank']:.1f}",
                *(_points(one["top1"][name]) for name in self.scenarios),
            ]
            for one in self.networks
        ]
        return Table(columns, rows)


# ---------------------------------------------------------------------------------------------------------------- words


def _families(networks: Sequence[Values]) -> list[str]:
    """Return the families that have a colour, the largest first, and what the rest is called if there is one."""
    counts: dict[str, int] = {}
    for network in networks:
        counts[network["family"]] = counts.get(network["family"], 0) + 1
    names = sorted(counts, key=lambda name: -counts[name])
    return names if len(names) <= _FAMILIES + 1 else [*names[:_FAMILIES], _OTHERS]


def _floats(values: Sequence[Any]) -> np.ndarray:
    """Return an array, with NaN for None."""
    return np.array(values, dtype=float)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{rest}"


def _points(value: float | None, digits: int = 1) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def _rank(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:g}"


def _short_correlation(value: float) -> str:
    return "" if np.isnan(value) else f"{value:z.2f}".replace("0.", ".", 1)


def _at(found: Values, row: int, column: int) -> Values:
    """Return one of a matrix of correlations."""
    return {end: found[key][row][column] for end, key in (("value", "values"), ("low", "low"), ("high", "high"))}


def _estimate(values: Values) -> Estimate:
    return Estimate(*(np.nan if values[end] is None else values[end] for end in ("value", "low", "high")))


def _interval(correlation: Values) -> str:
    return interval(_estimate(correlation))


def _change(difference: Values) -> str:
    return effect(_estimate(difference))
