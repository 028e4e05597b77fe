"""What is pre-training worth when labels are few? Fine-tuning on 1 %, 10 % and all of them::

    python -m benchmarks.few_labels --data 'data/cifar10-*.tar' --label CIFAR-10

A network is pre-trained without labels, for a short and a longer time, then fine-tuned with them: on a part by the task
``semi``, on all by ``finetune``. The same network is trained alike from random initialisation. All at the quick scale,
of one thread each; what was stopped goes on where it was. The last epoch is reported; test images choose nothing.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
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

Results = dict[str, dict[str, dict[str, Any]]]  # by duration and task


def main() -> None:
    """Train and evaluate what is missing, and write the table as far as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mobilenetv2_simclr_cifar")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--durations", nargs="+", default=["200k examples", "1000k examples"], help="of pre-training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    options = parser.parse_args()

    found: dict[int, Results] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for seed, results in zip(
            options.seeds, pool.map(lambda seed: measure(seed, options), options.seeds), strict=True
        ):
            found[seed] = results
            write_result(found, options)


def measure(seed: int, options: argparse.Namespace) -> Results:
    """Return what each task has found with one seed after each duration, in rows of networks and shares of labels."""
    results: Results = {}
    for duration in options.durations:
        settings = [f"train.duration={duration}", "train.keep_every=10%"]  # for benchmarks.agreement
        folder = options.out / duration.replace(" ", "-") / f"seed{seed}"
        run = train(options.recipe, data=options.data, folder=folder, seed=seed, settings=settings)
        # A network that is not pre-trained is the same whatever the duration.
        with_random = duration == options.durations[-1]
        results[duration] = {task: result_of(run, task, with_random) for task in options.tasks}
    return results


def result_of(run: Run, task: str, with_random: bool) -> dict[str, Any]:
    """Evaluate a run by a task unless that was done."""
    if not run.evaluation_path(task).exists():
        lightssl("evaluate", str(run), "--task", task, *([] if with_random else ["--no-random"]))
    found: dict[str, Any] = json.loads(run.evaluation_path(task).read_text(encoding="utf-8"))
    return found


def write_result(found: Mapping[int, Results], options: argparse.Namespace) -> None:
    """Write a row for each task and share of the labels: top-1 of each seed, from random and after each duration."""
    last = options.durations[-1]
    first = next(iter(found.values()))[last]
    rows = []
    for task in options.tasks:
        for labels in dict.fromkeys(row.get("labels") for row in first[task]["results"]):
            random = top1(found.values(), last, task, labels, "random")
            trained = {
                duration: top1(found.values(), duration, task, labels, "pre-trained") for duration in options.durations
            }
            rows.append(
                {
                    "task": task,
                    "labels": labels or "100 % of the labels",
                    "random": rounded(random),
                    "pre-trained": {duration: rounded(values) for duration, values in trained.items()},
                    "mean_gain": {
                        duration: round(mean(values) - mean(random), 2) for duration, values in trained.items()
                    },
                }
            )
    settings = {task: first[task]["results"][0] for task in options.tasks}
    write_json(
        RESULTS / "few_labels.json",
        {
            "what": f"{options.recipe} at the quick scale, pre-trained on {' or '.join(options.durations)}, then given "
            "labels",
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


def top1(found: Iterable[Results], duration: str, task: str, labels: str | None, network: str) -> list[float]:
    """Return the top-1 of a network with each seed; of the two random baselines of frozen features, the better one."""
    return [
        max(
            float(row["top1"])
            for row in results[duration][task]["results"]
            if row.get("labels") == labels and row["network"].startswith(network)
        )
        for results in found
    ]


def rounded(values: Sequence[float]) -> list[float]:
    """Return percentages as they are written down."""
    return [round(value, 2) for value in values]


if __name__ == "__main__":
    main()
