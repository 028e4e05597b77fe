"""One self-contained HTML page about a search: the winner, stage by stage, beside the networks that everybody knows."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightssl.reports.template import write_page


@dataclass(frozen=True)
class Part:
    """A stage of a network, or what comes before or after the stages."""

    title: str
    what: str  # what it is made of
    flops: int
    latency_ms: float | None = None  # predicted, where latency is limited


def write_search_page(
    out: Path,
    *,
    title: str,
    asked: Mapping[str, Any],
    verdict: str,
    picture: bytes,
    networks: Mapping[str, Sequence[Part]],
    best: Sequence[Mapping[str, Any]],
    recipe: str,
    commands: Sequence[str],
) -> None:
    """Write the page.

    Args:
        out: The page.
        title: Its heading.
        asked: What was asked, by name.
        verdict: What was found, in a sentence.
        picture: PNG of scores against costs.
        networks: The winner and the networks to compare it with, by name; all have parts of the same titles.
        best: The best candidates, the winner first: what a table shows of each, by column.
        recipe: The winner's recipe.
        commands: What to do next.

    Raises:
        LightSSLError: It cannot be written.
    """
    largest = max(part.flops for parts in networks.values() for part in parts)
    rows = [
        {
            "title": parts[0].title,
            "cells": [
                {
                    "what": part.what,
                    "flops": f"{part.flops / 1e6:,.1f}",
                    "width": 100 * part.flops / largest,
                    "ms": None if part.latency_ms is None else f"{part.latency_ms:,.2f}",
                }
                for part in parts
            ],
        }
        for parts in zip(*networks.values(), strict=True)
    ]
    write_page(
        out,
        "search.html.jinja",
        title=title,
        asked=asked,
        verdict=verdict,
        picture=f"data:image/png;base64,{b64encode(picture).decode('ascii')}",
        networks=list(networks),
        rows=rows,
        with_latency=rows[0]["cells"][0]["ms"] is not None,
        columns=list(best[0]),
        best=[list(row.values()) for row in best],
        recipe=recipe,
        commands=commands,
    )
