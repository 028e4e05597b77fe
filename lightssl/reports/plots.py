"""Drawings: inline SVG that takes its colours from the page, to suit a light and a dark one, and PNG files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from lightssl.deploy.latency import slowest

BINS = 300  # more points than this are drawn as the mean and the range of equal stretches

# Stand-ins: matplotlib knows no CSS variables. Each is replaced by one in the finished SVG.
_TEXT, _CURVE, _GRID = "#010101", "#020202", "#030303"
_SERIES = [f"#0{number}0{number}0{number}" for number in range(4, 10)]
SERIES = [f"var(--series-{number})" for number in range(1, 1 + len(_SERIES))]  # colours of devices, in this order
_THEME = {
    _TEXT: "var(--muted)",
    _CURVE: "var(--accent)",
    _GRID: "var(--line)",
    **dict(zip(_SERIES, SERIES, strict=True)),
}


LEAST_SPAN = 2  # percent or MB from bottom to top: less is no difference to look at
MARKERS = {"measured": "o", "browser": "s", "predicted": "D"}
OPERATORS_SHOWN = 12
_NAME_LENGTH = 32


def curve(x: Sequence[float], y: Sequence[float], *, name: str, x_label: str) -> str:
    """Draw one quantity over training.

    Args:
        x: Steps or epochs, ascending.
        y: The quantity, as long as ``x``; values that are not finite leave a gap.
        name: Unique on the page; keeps the ids of several drawings apart, and says what is drawn to who cannot see it.
        x_label: Of the horizontal axis.

    Returns:
        An ``<svg>`` element.
    """
    figure = Figure(figsize=(4.2, 2.3), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    values = np.asarray(y, dtype=float)
    positions, mean, low, high = _bins(np.asarray(x, dtype=float), np.where(np.isfinite(values), values, np.nan))
    if len(positions) < len(x):
        axes.fill_between(positions, low, high, color=_CURVE, alpha=0.2, linewidth=0)
    axes.plot(positions, mean, color=_CURVE, linewidth=1.6, marker="o" if len(positions) < 30 else None, markersize=3)
    axes.set_xlabel(x_label, color=_TEXT, fontsize=9)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=_TEXT, labelsize=9, length=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.yaxis.get_offset_text().set(color=_TEXT, fontsize=9)
    axes.margins(x=0.02)
    return _to_svg(figure, name)


@dataclass(frozen=True)
class Point:
    """A model on a device."""

    model: str
    series: int  # of the device; colours repeat after the last of SERIES
    kind: str  # one of MARKERS; predicted ones are hollow
    x: float
    y: float  # the same for all points of a model
    interval: tuple[float, float] | None = None  # of x


def levels(points: Sequence[Point], *, name: str, x_label: str, y_label: str) -> str:
    """Draw models as levels, and devices as points on them.

    Args:
        points: One at least; all x positive.
        name: As of :func:`curve`.
        x_label: Of the horizontal axis, which is logarithmic.
        y_label: Of the vertical axis.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none", xscale="log")
        for point in points:
            colour = _SERIES[point.series % len(_SERIES)]
            if point.interval is not None:
                axes.plot(point.interval, [point.y] * 2, color=colour, linewidth=1.4)
            face = "none" if point.kind == "predicted" else colour
            axes.scatter(point.x, point.y, marker=MARKERS[point.kind], s=34, edgecolor=colour, facecolor=face, zorder=3)
        axes.margins(x=0.08, y=0.12)
        low, high = axes.get_ylim()
        spare = max(0, LEAST_SPAN - (high - low)) / 2
        axes.set_ylim(low - spare, high + spare)
        _name_levels(axes, {point.model: point.y for point in points})
        low, high = axes.get_xlim()
        steps = (1, 2, 5) if high > 5 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x_label, color=_TEXT, fontsize=9)
        axes.set_ylabel(y_label, color=_TEXT, fontsize=9)
        axes.grid(color=_GRID, linewidth=0.6)
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=_TEXT, labelsize=9, length=0)
        return _to_svg(figure, name)


def _name_levels(axes: Axes, heights: Mapping[str, float]) -> None:
    """Write names at the right of an axes, each at its height or as near to it as leaves all legible."""
    low, high = axes.get_ylim()
    room = 0.075  # that a name takes, as a share of the axes
    place = -room
    for name, y in sorted(heights.items(), key=lambda item: item[1]):
        height = (y - low) / (high - low)
        place = max(height, place + room)
        axes.annotate(
            _shortened(name),
            xy=(1, height),
            xytext=(1.04, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=_TEXT,
            fontsize=8,
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": _GRID, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"...{name[3 - _NAME_LENGTH :]}"


def operator_bars(timed: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str) -> bytes:
    """Draw the operators that take longest, by type and by node, as a PNG picture.

    Args:
        timed: Entries as of :class:`~lightssl.deploy.latency.OperatorTime` by what they are of, such as ``threads: 1``.
            The first decide which are shown.
        title: Above the picture.
    """
    content = BytesIO()
    with mpl.rc_context({"text.parse_math": False}):  # a name may hold anything
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        figure.suptitle(title, fontsize=11)
        by_type, by_node = figure.subplots(1, 2)
        _draw_operators(by_type, timed, "operator")
        _draw_operators(by_node, timed, "node")
        by_type.legend(frameon=False, fontsize=9, loc="lower right")
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _draw_operators(
    axes: Axes, timed: Mapping[str, Sequence[Mapping[str, Any]]], by: Literal["operator", "node"]
) -> None:
    names = [name for name, _ in slowest(next(iter(timed.values())), by)[:OPERATORS_SHOWN]]
    positions, height = np.arange(len(names)), 0.8 / len(timed)
    for place, (label, operators) in enumerate(timed.items()):
        taken = dict(slowest(operators, by))
        shown = [taken.get(name, 0) for name in names]
        bars = axes.barh(positions + place * height, shown, height, label=label)
        axes.bar_label(bars, [f"{ms / sum(taken.values()):.0%}" for ms in shown], padding=2, fontsize=7)
    axes.set_yticks(positions + 0.4 - height / 2, map(_shortened, names), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms of one run, by {by}; share of the whole", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)


@dataclass(frozen=True)
class Spot:
    """A network in :func:`pareto`."""

    costs: Mapping[str, float]
    score: float
    name: str = ""  # of a network that everybody knows; candidates have none


def pareto(
    candidates: Sequence[Spot], known: Sequence[Spot], winner: Spot, *, limits: Mapping[str, float], y_label: str
) -> bytes:
    """Draw scores against each cost, as a PNG picture.

    Args:
        candidates: What a search looked at; those that none beats in both are joined.
        known: Networks to compare with.
        winner: One of the candidates.
        limits: The budget, by the names of costs.
        y_label: What the score is.
    """
    content = BytesIO()
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(5.4 * len(winner.costs), 4.2), layout="constrained")
        for axes, cost in zip(np.ravel(figure.subplots(1, len(winner.costs), sharey=True)), winner.costs, strict=True):
            axes.scatter(
                [spot.costs[cost] for spot in candidates], [spot.score for spot in candidates], s=14, color="#a3acb9"
            )
            front = _front(candidates, cost)
            axes.plot(
                [spot.costs[cost] for spot in front],
                [spot.score for spot in front],
                color="#2563eb",
                linewidth=1.2,
                drawstyle="steps-post",
                label="best so far, by cost",
            )
            axes.scatter(winner.costs[cost], winner.score, s=130, marker="*", color="#d9480f", label="winner", zorder=3)
            for spot in known:
                axes.scatter(spot.costs[cost], spot.score, s=36, marker="D", color="#0f8a5f", zorder=3)
                axes.annotate(
                    _shortened(spot.name),
                    (spot.costs[cost], spot.score),
                    xytext=(6, -10),
                    textcoords="offset points",
                    fontsize=8,
                )
            if cost in limits:
                axes.axvline(limits[cost], color="#5c6675", linewidth=0.8, linestyle="--", label="limit")
            if winner.costs[cost] >= 1000:  # numbers of something; milliseconds are not to be read as 20 or 20m
                axes.xaxis.set_major_formatter(EngFormatter())
            axes.set_xlabel(cost)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.12, y=0.08)
        limited = [axes for axes, cost in zip(figure.axes, winner.costs, strict=True) if cost in limits]
        (limited or figure.axes)[0].legend(frameon=False, fontsize=8)  # tells of the limit, too
        figure.axes[0].set_ylabel(y_label)
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _front(spots: Sequence[Spot], cost: str) -> list[Spot]:
    """Return the spots that no other beats in both score and cost, from cheap to expensive."""
    front: list[Spot] = []
    for spot in sorted(spots, key=lambda spot: (spot.costs[cost], -spot.score)):
        if not front or spot.score > front[-1].score:
            front.append(spot)
    return front


def _bins(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reduce many points to the mean position, and the mean, least and greatest value, of equal stretches."""
    if len(x) <= BINS:
        return x, y, y, y
    parts = zip(np.array_split(x, BINS), np.array_split(y, BINS), strict=True)
    reduced = [(px.mean(), py.mean(), py.min(), py.max()) for px, py in parts]
    positions, mean, low, high = np.array(reduced).T
    return positions, mean, low, high


def _to_svg(figure: Figure, name: str) -> str:
    text = StringIO()
    # Letters stay text in the font of the page; the fixed salt makes the same run give the same page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # A <style> inside of an inline SVG would hold for the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    for stand_in, variable in _THEME.items():
        svg = svg.replace(stand_in, variable)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="|url\(#|href="#', lambda match: f"{match[0]}{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{prefix}" ', 1)
