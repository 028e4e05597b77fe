"""Pictures of how views are distributed, as PNG files: one row a plan, on common axes."""

from collections.abc import Mapping
from io import BytesIO
from textwrap import fill
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from lightssl.views.preview import GLOBAL, LOCAL
from lightssl.views.statistics import ViewStatistics

_BINS = 48
_LINE_WIDTH = 165  # letters above a row
_INK, _LINE = "#374151", "#d1d5db"


def distributions(plans: Mapping[str, ViewStatistics], *, title: str) -> bytes:
    """Draw area, pixel scale and overlap of the views of one plan or more, as a PNG picture.

    Args:
        plans: What was drawn, by what to write above its row. Rows share their axes.
        title: Above the picture.
    """
    content = BytesIO()
    with mpl.rc_context({"text.parse_math": False, "text.color": _INK, "font.size": 9}):
        figure = draw_distributions(plans, title=title)
        figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def draw_distributions(plans: Mapping[str, ViewStatistics], *, title: str) -> Figure:
    """Draw what :func:`distributions` writes."""
    figure = Figure(figsize=(12, 0.8 + 2.75 * len(plans)), layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, horizontalalignment="left")
    scales = [np.concatenate([plan.global_pixel_scale, plan.local_pixel_scale], axis=1) for plan in plans.values()]
    low, high = min(scale.min() for scale in scales) / 1.05, max(scale.max() for scale in scales) * 1.05
    shares, steps = np.linspace(0, 1, _BINS + 1), np.geomspace(low, high, _BINS + 1)
    rows = figure.subfigures(len(plans), 1, squeeze=False)[:, 0]
    for row, (name, plan) in zip(rows, plans.items(), strict=True):
        row.suptitle(fill(name, _LINE_WIDTH), fontsize=10, x=0.01, horizontalalignment="left")
        by_area, by_scale, by_overlap = row.subplots(1, 3)
        _histograms(by_area, shares, {"global": (GLOBAL, plan.global_area), "local": (LOCAL, plan.local_area)})
        by_area.set_xlabel("share of the image's area")
        kinds = {"global": (GLOBAL, plan.global_pixel_scale), "local": (LOCAL, plan.local_pixel_scale)}
        _histograms(by_scale, steps, kinds, "median")
        by_scale.set_xlabel("pixel scale: view pixels per image pixel, along a side")
        _scale_axis(by_scale, low, high)
        overlaps = {
            "IoU of globals": (GLOBAL, plan.global_iou),
            "local inside global": (LOCAL, plan.local_inside_global),
        }
        _histograms(by_overlap, shares, overlaps)
        by_overlap.set_xlabel("overlap of two views of an image")
        for axes in (by_area, by_overlap):
            axes.xaxis.set_major_formatter(PercentFormatter(1))
    _share_heights(figure, len(plans))
    return figure


def _histograms(
    axes: Axes,
    edges: np.ndarray,
    kinds: Mapping[str, tuple[str, np.ndarray]],
    middle: Literal["mean", "median"] = "mean",
) -> None:
    """Draw the share of views in each bin, and a line at their mean, or median; the legend names it."""
    for name, (colour, values) in kinds.items():
        if not values.size:
            continue
        bins, weights = edges.tolist(), np.full(values.size, 1 / values.size)
        axes.hist(values.ravel(), bins, weights=weights, color=colour, alpha=0.35, linewidth=0)
        axes.hist(values.ravel(), bins, weights=weights, color=colour, histtype="step", linewidth=1.3)
        at = float(np.median(values) if middle == "median" else values.mean())
        axes.axvline(at, color=colour, linewidth=1.3, linestyle="--", label=f"{name}, {middle} {at:.2f}")
    if axes.get_legend_handles_labels()[0]:  # a single view overlaps with none
        axes.legend(
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(-0.03, 0.99),
            ncols=2,
            columnspacing=1,
            handlelength=1.5,
            fontsize=8.5,
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(edges[0], edges[-1])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _scale_axis(axes: Axes, low: float, high: float) -> None:
    """Make the axis logarithmic, name round scales, few enough that they do not touch, and mark where views grow."""
    axes.set_xscale("log")
    steps = (1, 1.5, 2, 3, 5, 7) if high < 8 * low else (1, 2, 5) if high < 100 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=100))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    if low < 1 < high:
        axes.axvline(1, color=_INK, linewidth=0.8, linestyle=":")
        right = high > 2.5  # of the line is room to say so
        axes.text(
            1,
            0.98,
            " enlarged" if right else "not enlarged ",
            transform=axes.get_xaxis_transform(),
            fontsize=8,
            horizontalalignment="left" if right else "right",
            verticalalignment="top",
        )


def _share_heights(figure: Figure, rows: int) -> None:
    """Give the panels of a column one vertical axis, so that rows can be compared."""
    for column in range(3):
        panels = [figure.axes[3 * row + column] for row in range(rows)]
        top = max(axes.get_ylim()[1] for axes in panels)
        for axes in panels:
            axes.set_ylim(0, top)
