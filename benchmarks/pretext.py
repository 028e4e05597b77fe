"""Do the classic pretext tasks learn? Each on a subset, against chance::

    python -m benchmarks.pretext --data 'data/cifar10-*.tar' --label CIFAR-10

ResNet18 at the quick scale, one thread a training; what was stopped goes on where it was. What is reported is how often
the task itself is solved, over the last tenth of the training, on images that most were not seen before: a training is
about two passes over the subset. Exemplar has no answers to count: its loss stands beside the margin, which is what it
costs to see no difference between images.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.subset import write_subset
from benchmarks.training import train
from lightssl.files import read_json_lines, write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
CHANCE = {"rotation": 25.0, "relative_patch": 12.5, "jigsaw": 1.0, "exemplar": None}  # percent


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--per-class", type=int, default=1000, help="images of the subset")
    parser.add_argument("--duration", default="20k examples")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/pretext"))
    options = parser.parse_args()
    data = str(write_subset(options.data, options.per_class, options.out, with_test=False))

    def measure(cell: tuple[int, str]) -> dict[str, Any]:
        seed, task = cell
        settings = [f"train.duration={options.duration}"]
        folder = options.out / f"{task}-seed{seed}"
        run = train(f"resnet18_{task}", data=data, folder=folder, seed=seed, settings=settings)
        rows = read_json_lines(run.metrics_path)
        end = rows[-max(1, len(rows) // 10) :]
        solved = [row["pretext_top1"] for row in end if "pretext_top1" in row]
        return {
            "task": task,
            "seed": seed,
            "chance": CHANCE[task],
            "solved": round(mean(solved), 1) if solved else None,
            "loss": round(mean(row["loss"] for row in end), 3),
            "loss_at_first": round(rows[0]["loss"], 3),
        }

    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(measure, product(options.seeds, CHANCE)))
    write_json(
        RESULTS / "pretext.json",
        {
            "what": f"resnet18 at the quick scale, {options.duration} a training",
            "data": options.label or options.data,
            "images_a_class": options.per_class,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "rows": found,
        },
    )
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
