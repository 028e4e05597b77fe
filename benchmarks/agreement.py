"""Which checkpoint to take without labels: how well do label-free measures agree with kNN over those of a run?::

    python -m benchmarks.agreement runs/few_labels/200k-examples/seed*

The runs kept their backbone on the way (``train.keep_every``), as those of ``benchmarks.few_labels`` do. For each
measure: Kendall's tau with kNN over the checkpoints, and what is lost in kNN by the checkpoint that it takes.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.training import lightssl
from lightssl.evaluation.agreement import LABEL_FREE_MEASURES, agreement, by_checkpoint, choice
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
TASKS = ("knn", "labelfree")


def main() -> None:
    """Measure the checkpoints of each run unless that was done, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Run)
    parser.add_argument("--label", help="what the results call the data")
    options = parser.parse_args()
    rows = [row for run in options.runs for row in measure(run)]
    first = options.runs[0].recipe()
    write_json(
        RESULTS / "agreement.json",
        {
            "what": f"{first['name']} at scale {first['scale']}, pre-trained on {first['train']['duration']}",
            "data": options.label or options.runs[0].environment().get("data"),
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "rows": rows,
        },
    )
    for row in rows:
        print(row)


def measure(run: Run) -> list[dict[str, Any]]:
    """Return a row for each label-free measure of a run."""
    missing = [task for task in TASKS if not run.checkpoints_path(task).exists()]
    if missing:
        lightssl("evaluate", str(run), "--checkpoints", *(word for task in TASKS for word in ("--task", task)))
    written = {task: json.loads(run.checkpoints_path(task).read_text(encoding="utf-8")) for task in TASKS}
    steps, measures = by_checkpoint(written)
    return rows_of(written["knn"]["seed"], steps, measures)


def rows_of(seed: int, steps: Sequence[int], measures: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
    """Compare each measure with kNN over the checkpoints."""
    knn = [value or 0.0 for value in measures["knn"]]
    taus = agreement(measures, "knn")
    return [
        {
            "measure": name,
            "better": LABEL_FREE_MEASURES[name],
            "seed": seed,
            "checkpoints": len(steps),
            "tau": None if (tau := taus[name]) is None else round(tau, 3),
            "takes_step": steps[place := choice(name, measures[name])],
            "knn_lost": round(max(knn) - knn[place], 2),
            "values": measures[name],
            "knn": knn,
        }
        for name in LABEL_FREE_MEASURES
    ]


if __name__ == "__main__":
    main()
