"""Results as tables, for the terminal and for pages."""

from collections.abc import Mapping, Sequence
from typing import Any


def by_data(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lay out the results of a suite: a row for each data set, two columns for each task.

    Args:
        found: As :func:`lightssl.pipeline.evaluate_suite` returns it.

    Returns:
        The heads, and the cells: the pre-trained network, and the better of the random ones. A task with several
        results of a network, as for shares of the labels, has two columns for each.
    """
    cells: dict[str, dict[tuple[str, bool], float]] = {}
    columns: dict[str, None] = {}
    for row in found["rows"]:
        column = ", ".join(str(row[key]) for key in ("task", "labels") if key in row)
        columns[column] = None
        kind = (column, str(row["network"]).startswith("random"))
        of_data = cells.setdefault(row["data"], {})
        of_data[kind] = max(of_data.get(kind, 0.0), row["top1"])
    heads = ["data", *(head for column in columns for head in (column, f"{column}, random"))]
    kinds = [(column, random) for column in columns for random in (False, True)]
    return heads, [
        [data, *(f"{of_data[kind]:.1f} %" if kind in of_data else "-" for kind in kinds)]
        for data, of_data in cells.items()
    ]


_PRECISIONS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "box_ap": "AP of boxes",
}


def precisions(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Lay out the results of a task that finds objects: a row for each network.

    Args:
        results: What :func:`lightssl.pipeline.evaluate` returns as ``results``.

    Returns:
        The heads, and the cells, in percent. Sizes of objects that no image has are left out.
    """
    names = [name for name in _PRECISIONS if any(row.get(name) is not None for row in results)]
    heads = ["network", *(_PRECISIONS[name] for name in names)]
    return heads, [
        [str(row["network"]), *("-" if row.get(name) is None else f"{row[name]:.1f}" for name in names)]
        for row in results
    ]
