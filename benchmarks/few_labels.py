"""What is pre-training worth when labels are few? Fine-tuning on 1 %, 10 % and all of them::

    python -m benchmarks.few_labels --data 'data/cifar10-*.tar' --label CIFAR-10

A network is pre-trained without labels, then fine-tuned with them: on a part by the task ``semi``, on all by
``finetune``. The same network is trained alike from random initialisation. All at the quick scale, of one thread each;
what was stopped goes on where it was. The last epoch is reported; test images choose nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.training import lightssl, train
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
TASKS = ("linear", "semi", "finetune")


def main() -> None:
    """Train and evaluate what is missing, and write the table as far as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mobilenetv2_simclr_cifar")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--duration", default="200k examples", help="of the pre-training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    options = parser.parse_args()

    found: dict[int, dict[str, Any]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for seed, results in zip(
            options.seeds, pool.map(lambda seed: measure(seed, options), options.seeds), strict=True
        ):
            found[seed] = results
            write_result(found, options)


def measure(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what each task has found with one seed."""
    settings = [f"train.duration={options.duration}", "train.keep_every=10%"]  # for benchmarks.agreement
    run = train(options.recipe, data=options.data, folder=options.out / f"seed{seed}", seed=seed, settings=settings)
    return {task: result_of(run, task) for task in options.tasks}


def result_of(run: Run, task: str) -> dict[str, Any]:
    """Evaluate a run by a task unless that was done."""
    if not run.evaluation_path(task).exists():
        lightssl("evaluate", str(run), "--task", task)
    found: dict[str, Any] = json.loads(run.evaluation_path(task).read_text(encoding="utf-8"))
    return found


def write_result(found: Mapping[int, Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Write a row for each task and share of the labels: top-1 of each seed, pre-trained and from random."""
    first = next(iter(found.values()))
    rows = []
    for task in options.tasks:
        for labels in dict.fromkeys(row.get("labels") for row in first[task]["results"]):
            top1: dict[str, list[float]] = {}
            for results in found.values():
                of_seed = [row for row in results[task]["results"] if row.get("labels") == labels]
                top1.setdefault("pre-trained", []).append(best(of_seed, "pre-trained"))
                top1.setdefault("random", []).append(best(of_seed, "random"))
            gains = [after - before for after, before in zip(top1["pre-trained"], top1["random"], strict=True)]
            rows.append(
                {
                    "task": task,
                    "labels": labels or "100 % of the labels",
                    **{name: [round(value, 2) for value in values] for name, values in top1.items()},
                    "gain": [round(gain, 2) for gain in gains],
                    "mean": {name: round(mean(values), 2) for name, values in {**top1, "gain": gains}.items()},
                }
            )
    settings = {task: first[task]["results"][0] for task in options.tasks}
    write_json(
        RESULTS / "few_labels.json",
        {
            "what": f"{options.recipe} at the quick scale, pre-trained on {options.duration}, then given labels",
            "data": options.label or options.data,
            "test_images": first[options.tasks[0]]["data"]["test_images"],
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "seeds": list(found),
            "settings": {
                task: {key: value for key, value in row.items() if key != "top1"} for task, row in settings.items()
            },
            "rows": rows,
        },
    )


def best(rows: Sequence[Mapping[str, Any]], network: str) -> float:
    """Return the top-1 of a network; of the two random baselines of frozen features, that of the better one."""
    return max(float(row["top1"]) for row in rows if row["network"].startswith(network))


if __name__ == "__main__":
    main()
