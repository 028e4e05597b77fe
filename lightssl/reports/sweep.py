"""One self-contained HTML page about a sweep of views: what each axis does, what each point costs, what to take."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightssl.reports.template import write_page


def write_sweep_page(
    out: Path,
    *,
    title: str,
    verdict: str,
    picture: bytes,
    notes: Sequence[str],
    points: Sequence[Mapping[str, Any]],
    recommended: str,
    asked: Mapping[str, Any],
    command: str,
    repeats: Sequence[str],
    recipe: str,
) -> None:
    """Write the page.

    Args:
        out: The page.
        title: Its heading.
        verdict: What was found, in some sentences.
        picture: PNG of the effect of each axis.
        notes: How to read the picture and the table.
        points: What a table shows of each point, by column; the name is the first, ``point``.
        recommended: The name of the point that is recommended.
        asked: What was asked, by name.
        command: What to do next.
        repeats: What measures a point again, one command each.
        recipe: The recommended recipe.

    Raises:
        LightSSLError: It cannot be written.
    """
    write_page(
        out,
        "sweep.html.jinja",
        title=title,
        verdict=verdict,
        picture=f"data:image/png;base64,{b64encode(picture).decode('ascii')}",
        notes=notes,
        columns=list(points[0]),
        points=points,
        recommended=recommended,
        asked=asked,
        command=command,
        repeats=repeats,
        recipe=recipe,
    )
