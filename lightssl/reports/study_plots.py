"""The drawings of a study, as PNG pictures: networks in panels of scenarios, and tables of figures as heat maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullLocator
from numpy.typing import NDArray

COLOURS = (
    "#2563eb",
    "#d9480f",
    "#0f8a5f",
    "#9333c8",
    "#b08900",
    "#c2255c",
    "#0891b2",
    "#7c4a1e",
    "#84a30f",
    "#8a94a3",
)
MARKERS = "os^DvPX*"
_GREY, _LINE = "#a3acb9", "#dde1e7"
_IN_A_ROW = 3
_DPI = 150
_NAME_LENGTH = 36
_TALLEST = 18.0  # inches of a heat map's rows
_ROW = 0.15  # inches that a name takes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dot:
    """A network in a panel."""

    x: float
    y: float
    colour: int = 0  # repeats after the last of COLOURS, as markers do
    marker: int = 0
    ringed: bool = False


@dataclass(frozen=True)
class Line:
    """What joins dots."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = None  # grey
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """One scenario."""

    title: str
    dots: Sequence[Dot]
    lines: Sequence[Line] = ()
    diagonal: bool = False  # where both coordinates are equal


@dataclass(frozen=True)
class Scales:
    """What the coordinates of panels are."""

    x_label: str
    y_label: str
    logarithmic: bool = False
    ticks: Sequence[float] = ()  # of x; by default those of the scale


def panels(
    drawn: Sequence[Panel],
    scales: Scales,
    *,
    colours: Sequence[str] = (),
    markers: Sequence[str] = (),
    ring: str = "",
) -> bytes:
    """Draw a panel a scenario, each with a vertical scale of its own.

    Args:
        drawn: One at least.
        scales: Of all panels.
        colours: What they stand for; explained if there are several.
        markers: The same.
        ring: What a ring around a dot means; explained if it is anything.
    """
    columns = min(_IN_A_ROW, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with mpl.rc_context({"text.parse_math": False}):  # a name may hold anything
        figure = Figure(figsize=(3.7 * columns, 2.9 * rows + 0.5), layout="constrained")
        grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for axes, panel in zip(grid, drawn, strict=False):
            _draw_panel(axes, panel, scales)
        for axes in grid[len(drawn) :]:
            axes.set_axis_off()
        figure.supxlabel(scales.x_label, fontsize=10)
        figure.supylabel(scales.y_label, fontsize=10)
        handles = _handles(colours, markers, ring)
        if handles:
            figure.legend(
                handles=handles,
                loc="outside upper center",
                ncols=min(len(handles), 2 * columns),
                frameon=False,
                fontsize=9,
            )
        return _png(figure)


def _draw_panel(axes: Axes, panel: Panel, scales: Scales) -> None:
    for line in panel.lines:
        axes.plot(
            line.x,
            line.y,
            color=_GREY if line.colour is None else COLOURS[line.colour % len(COLOURS)],
            linewidth=1.1,
            drawstyle="steps-post" if line.steps else "default",
            zorder=1,
        )
    for dot in panel.dots:
        axes.scatter(
            dot.x,
            dot.y,
            s=34 if dot.ringed else 20,
            marker=MARKERS[dot.marker % len(MARKERS)],
            color=COLOURS[dot.colour % len(COLOURS)],
            alpha=1 if dot.ringed else 0.7,
            edgecolor="#1c2430" if dot.ringed else "none",
            linewidth=1.0,
            zorder=3 if dot.ringed else 2,
        )
    axes.margins(x=0.08, y=0.1)
    if panel.diagonal:
        axes.axline((panel.dots[0].x, panel.dots[0].x), slope=1, color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
    if scales.logarithmic:
        _scale_logarithmically(axes)
    if scales.ticks:
        axes.xaxis.set_major_locator(FixedLocator(list(scales.ticks)))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(shortened(panel.title), fontsize=10)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _scale_logarithmically(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=_steps(high / low)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


def _steps(span: float) -> tuple[float, ...]:
    """Return where a decade has ticks, for a handful of them over the span."""
    if span > 50:
        return (1,)
    return (1, 2, 5) if span > 12 else (1, 2, 3, 5, 7) if span > 4 else (1, 1.5, 2, 3, 4, 6, 8)


def _handles(colours: Sequence[str], markers: Sequence[str], ring: str) -> list[Line2D]:
    found = []
    if len(colours) > 1:
        found += [
            Line2D([], [], linestyle="", marker="o", color=COLOURS[place % len(COLOURS)], label=shortened(name))
            for place, name in enumerate(colours)
        ]
    if len(markers) > 1:
        found += [
            Line2D([], [], linestyle="", marker=MARKERS[place % len(MARKERS)], color=_GREY, label=shortened(name))
            for place, name in enumerate(markers)
        ]
    if ring:
        found.append(
            Line2D([], [], color=_GREY, marker="o", markerfacecolor="none", markeredgecolor="#1c2430", label=ring)
        )
    return found


@dataclass(frozen=True)
class HeatMap:
    """A table of figures."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Floats  # [rows, columns]; what is NaN stays blank
    texts: Sequence[Sequence[str]] = field(default=())  # what stands in the cells; by default nothing


Palette = Literal["ranks", "correlations", "losses"]
_PALETTES: dict[Palette, str] = {"ranks": "YlGnBu_r", "correlations": "RdBu", "losses": "Oranges"}


def heat_map(drawn: HeatMap, palette: Palette, *, label: str) -> bytes:
    """Draw a table, its names thinned out where there are too many rows for all.

    Args:
        drawn: The table.
        palette: Its colours: of ranks, 1 is dark; of correlations, blue is 1 and red -1; of losses, 0 is white.
        label: What the colours stand for.
    """
    rows, columns = drawn.values.shape
    written = bool(drawn.texts)
    height = min(_TALLEST, rows * (0.3 if rows <= 20 else 0.2 if written else _ROW))
    width = max(columns * (0.62 if written else 0.45), 2.0)
    left = 0.075 * max(len(shortened(name)) for name in drawn.rows)
    top = 0.055 * max(len(shortened(name)) for name in drawn.columns)
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(left + width + 1.1, height + top + 0.4), layout="constrained")
        axes = figure.add_subplot()
        image = _draw_map(axes, drawn, palette, font_size=8)
        step = math.ceil(rows * _ROW / height - 0.01)
        axes.set_yticks(range(0, rows, step), [shortened(name) for name in drawn.rows[::step]], fontsize=8)
        bar = figure.colorbar(
            image, ax=axes, label=label, fraction=0.6 / (width + 1), pad=0.02, shrink=min(1, 4 / height), anchor=(0, 1)
        )
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(labelsize=8)
        if palette == "ranks":
            bar.ax.invert_yaxis()
        return _png(figure)


def correlation_maps(drawn: Mapping[str, HeatMap]) -> bytes:
    """Draw matrices of correlations beside each other, by their titles; all have the same columns."""
    first = next(iter(drawn.values()))
    scenarios = len(first.columns)
    columns = min(2 if scenarios > 4 else _IN_A_ROW, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    cell, names = 0.45, 0.06 * max(len(shortened(name)) for name in first.columns)
    width = max(scenarios * cell + 1.3 * names + 0.5, 2.6)
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(
            figsize=(columns * width, rows * (scenarios * cell + names + 0.6)),
            layout=ConstrainedLayoutEngine(h_pad=0.12),
        )
        grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for axes, (title, found) in zip(grid, drawn.items(), strict=False):
            _draw_map(axes, found, "correlations", font_size=8 if scenarios <= 8 else 7)
            axes.set_yticks(range(scenarios), map(shortened, found.rows), fontsize=8)
            axes.set_title(shortened(title), fontsize=10)
        for axes in grid[len(drawn) :]:
            axes.set_axis_off()
        return _png(figure)


def _draw_map(axes: Axes, drawn: HeatMap, palette: Palette, *, font_size: float) -> mpl.image.AxesImage:
    low, high = {
        "ranks": (1, max(2, np.nanmax(drawn.values, initial=2))),
        "correlations": (-1, 1),
        "losses": (0, max(1, np.nanmax(drawn.values, initial=1))),
    }[palette]
    image = axes.imshow(drawn.values, cmap=_PALETTES[palette], vmin=low, vmax=high, aspect="auto", interpolation="none")
    axes.set_xticks(
        range(len(drawn.columns)),
        map(shortened, drawn.columns),
        rotation=40,
        ha="left",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, texts in enumerate(drawn.texts):
        for column, text in enumerate(texts):
            value = drawn.values[row, column]
            red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axes.text(
                column, row, text, ha="center", va="center", fontsize=font_size, color="white" if dark else "#1c2430"
            )
    return image


def shortened(name: str) -> str:
    """Cut a long name at its beginning, where paths and families are alike."""
    return name if len(name) <= _NAME_LENGTH else f"...{name[3 - _NAME_LENGTH :]}"


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()
