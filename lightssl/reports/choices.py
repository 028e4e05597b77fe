"""A drawing of how a search chooses the operations of heads."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLOURS = ("#0f8a5f", "#79b79c", "#5c6675", "#d9480f", "#2563eb", "#9333ea", "#d39b00")
_STYLES: Sequence[Literal["-", "--", ":"]] = (
    "--",
    "--",
    ":",
    "-",
    "-",
    "-",
    "-",
)  # apart in black and white, too: what has weights is solid


def choices(
    epochs: Sequence[float], shares: Mapping[str, Mapping[str, Sequence[float]]], *, title: str, unsure: float
) -> bytes:
    """Draw the shares of operations over a search, one panel a layer, as a PNG picture.

    Args:
        epochs: When the shares were so, ascending.
        shares: Of each operation, as long as ``epochs``, by layers like ``projector.0``. The largest at the end is the
            choice.
        title: Above the picture.
        unsure: The share of every operation at the start.
    """
    rows: dict[str, list[str]] = {}
    for layer in shares:
        rows.setdefault(layer.split(".")[0], []).append(layer)
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(1.9 * columns + 0.8, 2.1 * len(rows) + 1.1), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)  # a name may hold anything
    grid = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    for panels, (part, layers) in zip(grid, rows.items(), strict=True):
        for panel in panels[len(layers) :]:
            panel.set_visible(False)
        for number, (panel, layer) in enumerate(zip(panels, layers, strict=False), 1):
            chosen = max(shares[layer], key=lambda name: shares[layer][name][-1])
            panel.axhline(unsure, color="#c3c9d2", linewidth=0.8)
            for name, colour, style in zip(shares[layer], COLOURS, _STYLES, strict=True):
                width = 2.4 if name == chosen else 1.0
                panel.plot(epochs, shares[layer][name], color=colour, linestyle=style, linewidth=width)
                if name == chosen:
                    panel.scatter(epochs[-1], shares[layer][name][-1], color=colour, marker="*", s=70, zorder=3)
            panel.set_title(f"{part} {number}: {chosen}", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
            panel.xaxis.set_tick_params(labelbottom=True)
            panel.set_xlabel("epoch", fontsize=8)
        panels[0].set_ylabel("share", fontsize=9)
    names = next(iter(shares.values()))
    figure.legend(
        handles=[
            Line2D([], [], color=colour, linestyle=style, label=name)
            for name, colour, style in zip(names, COLOURS, _STYLES, strict=True)
        ],
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=9,
    )
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
