"""``study report``: what a study found, as a page, figures and JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightssl.errors import LightSSLError
from lightssl.files import write_bytes, write_json
from lightssl.progress import Narrator, Silent
from lightssl.study.table import read_table

if TYPE_CHECKING:
    from lightssl.pipeline.study_page import StudyPage

SECTION = "study"  # folder of a study: its results, and what is made of them
RESULTS = "results.parquet"
_ASKED = ("grid", "where", "limit", "recipes", "scale", "train", "downstream", "tasks", "seeds")  # in this order


def study_report(folder: Path | str, *, narrator: Narrator | None = None) -> dict[str, Any]:
    """Analyse what a study has measured so far, and write a page about it.

    Into its folder ``study`` go the page, ``report.html``, with all of the figures in it; the ``figures`` as files; and
    all that is known, ``report.json``.

    Args:
        folder: Of the study, as ``lightssl study run`` wrote it.
        narrator: Told how it goes.

    Returns:
        What is in ``report.json``: see :func:`lightssl.study.results.results_of`; and ``page``, the path of the page.

    Raises:
        LightSSLError: The folder holds no study, its results are damaged, or none of them has an accuracy.
    """
    from lightssl.pipeline.study_page import StudyPage
    from lightssl.study.analysis import analyse
    from lightssl.study.results import results_of

    narrator = narrator or Silent()
    place = Path(folder) / SECTION
    rows = read_table(place / RESULTS)
    narrator.say(f"Analysing {len(rows):,} results of {folder}")
    results = results_of(analyse(rows))
    asked = _asked(place / "study.json")
    out = place / "report.html"
    _write_page(out, StudyPage(results), results, asked)
    write_json(place / "report.json", {**results, "asked": asked})
    return {**results, "asked": asked, "page": str(out)}


def _write_page(out: Path, page: "StudyPage", results: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    from lightssl.reports.study import write_study_page  # brings matplotlib

    sections = page.sections()
    for name, picture in page.pictures.items():
        write_bytes(out.parent / "figures" / f"{name}.png", picture.png)
    write_study_page(
        out,
        title=f"A study of {asked['grid']}" if "grid" in asked else "A study",
        facts=page.facts,
        verdict=results["verdict"],
        sections=sections,
        asked={name: _shown(value) for name, value in _ordered(asked).items()},
    )


def _asked(path: Path) -> dict[str, Any]:
    """Read what was asked of a study; empty if nobody has written it down."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["asked"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LightSSLError(
            f"{path} cannot be read: {error}.", "Mend or remove it: it does no more than say what was asked."
        ) from error


def _ordered(asked: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: asked[name] for name in _ASKED if name in asked}
    return {**known, **{name: value for name, value in asked.items() if name not in known}}


def _shown(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "\N{EN DASH}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return str(value)
