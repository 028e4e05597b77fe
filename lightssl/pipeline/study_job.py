"""One network of a study, trained and evaluated in a process of its own, which runs this module."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightssl.config.load import validate
from lightssl.config.schema import Recipe
from lightssl.errors import DataError
from lightssl.files import read_json_lines
from lightssl.pipeline.apart import answer
from lightssl.pipeline.study_question import held_out_top1
from lightssl.pipeline.suite import evaluate_suite
from lightssl.pipeline.training import pace, train_recipe
from lightssl.progress import Narrator
from lightssl.runs import Run
from lightssl.search.task import Stopped

SUITE = "study"  # the name of the evaluations in a network's folder


def _do(asked: dict[str, Any], narrator: Narrator) -> dict[str, Any]:
    """Train and evaluate.

    Args:
        asked: ``recipe``, ``train``, ``folder`` of the run, ``downstream`` and ``tasks``.
        narrator: Told how it goes.

    Returns:
        ``minutes`` of the training; ``rows`` with ``scenario``, ``task``, ``top1`` and ``cv_top1``; and ``missing``, by
        scenario why it could not be measured.
    """
    recipe = validate(asked["recipe"], origin="The recipe")
    run = _trained(recipe, asked["train"], Path(asked["folder"]), narrator)
    with suppress(DataError):  # no scenario is there: the file of the suite says why
        evaluate_suite(SUITE, run, data=asked["downstream"], tasks=asked["tasks"], random=False, narrator=narrator)
    found = json.loads(run.suite_path(SUITE).read_text(encoding="utf-8"))
    run.checkpoint_path.unlink(missing_ok=True)  # of no use any more, and as large as all else together
    return {
        "minutes": pace(read_json_lines(run.metrics_path), recipe.train.batch_size)["minutes"],
        "rows": [
            {"scenario": row["data"], "task": row["task"], "top1": row["top1"], "cv_top1": held_out_top1(row)}
            for row in found["rows"]
        ],
        "missing": found["missing"],
    }


def _trained(recipe: Recipe, data: str, folder: Path, narrator: Narrator) -> Run:
    """Train to the end, from wherever it was stopped.

    Raises:
        Stopped: It was stopped once more.
    """
    run = Run(folder)
    if run.weights_path.exists():
        return run
    if run.checkpoint_path.exists():
        train_recipe(recipe, data, out=None, resume=run, narrator=narrator)
    else:
        if folder.exists():  # it was stopped before its first checkpoint
            shutil.rmtree(folder)
        train_recipe(recipe, data, out=folder, resume=None, narrator=narrator)
    if not run.weights_path.exists():
        raise Stopped
    return run


if __name__ == "__main__":
    answer(_do)
