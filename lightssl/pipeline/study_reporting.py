"""``study report``: what a study found, as a page, figures and JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightssl.files import write_bytes, write_json
from lightssl.pipeline.asked import find_folder, read_asked
from lightssl.pipeline.study_question import RESULTS, SECTION, StudyQuestion, Training
from lightssl.progress import Narrator, Silent
from lightssl.study.table import read_table

if TYPE_CHECKING:
    from lightssl.pipeline.study_page import StudyPage


def study_report(folder: Path | str | None = None, *, narrator: Narrator | None = None) -> dict[str, Any]:
    """Analyse what a study has measured so far, and write a page about it.

    Into its folder ``study`` go the page, ``report.html``, with all of the figures in it; the ``figures`` as files; and
    all that is known, ``report.json``.

    Args:
        folder: Of the study; by default the latest below ``runs/``.
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
    folder = find_folder(folder, SECTION)
    place = folder / SECTION
    rows = read_table(place / RESULTS)
    narrator.say(f"Analysing {len(rows):,} results of {folder}")
    results = results_of(analyse(rows))
    asked = _asked(folder)
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
        title="Which network for which task",
        facts=page.facts,
        verdict=results["verdict"],
        sections=sections,
        asked={name: _shown(value) for name, value in asked.items()},
    )


def _asked(folder: Path) -> dict[str, Any]:
    """Return what was asked of a study, as its page says it; empty if nobody has written it down."""
    if not (folder / SECTION / "study.json").exists():
        return {}
    question, asked = read_asked(folder, SECTION, StudyQuestion)
    trainings = [Training(**fields) for fields in question.trainings]
    first = trainings[0]
    return {
        "grid": f"{question.grid}, {len(question.members)} members",
        "where": asked["where"],
        "limit": asked["limit"],
        "recipes": [training.recipe for training in trainings],
        "scale": first.scale,
        "settings": first.overrides,
        "train": asked["train"],
        "downstream": question.downstream,
        "tasks": question.tasks,
        "seeds": question.seeds,
        "FLOPs at": f"{question.image_size} pixels",
    }


def _shown(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "\N{EN DASH}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)
