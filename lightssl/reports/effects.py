"""The drawing of a sweep: scores over the values of each axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Level:
    """The score at one value of an axis."""

    value: str
    mean: float
    low: float  # the lowest and the highest of the seeds
    high: float
    own: bool  # whether it is the recipe's own value


def effects(panels: Mapping[str, Sequence[Level]], *, y_label: str) -> bytes:
    """Draw one panel an axis, as a PNG picture: means as points, seeds as bars, the recipe's own value as a diamond.

    Args:
        panels: Values in their order, by the name of the axis; a panel may be empty.
        y_label: What the score is.
    """
    content = BytesIO()
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(max(5.0, 3.4 * len(panels)), 3.6), layout="constrained")
        drawn = np.ravel(figure.subplots(1, len(panels), sharey=True, squeeze=False))
        for axes, (axis, levels) in zip(drawn, panels.items(), strict=True):
            places = np.arange(len(levels))
            means = [level.mean for level in levels]
            bars = [
                [level.mean - level.low for level in levels],
                [level.high - level.mean for level in levels],
            ]
            axes.errorbar(places, means, yerr=bars, color="#2563eb", linewidth=1.2, marker="o", capsize=3, zorder=2)
            own = [place for place, level in enumerate(levels) if level.own]
            for place in own:
                axes.axvline(place, color="#a3acb9", linewidth=0.8, linestyle="--", zorder=1)
            axes.scatter(own, [means[place] for place in own], s=70, marker="D", color="#d9480f", zorder=3)
            axes.set_xticks(places, [f"{level.value}\nrecipe" if level.own else level.value for level in levels])
            axes.set_xlabel(axis)
            axes.grid(axis="y", color="#dde1e7", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.12, y=0.12)
        figure.axes[0].set_ylabel(y_label)
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
