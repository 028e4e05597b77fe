"""Does it learn? Pre-training on CPU cores, measured against the same network at random initialisation.

Every run is one training of one thread; two run side by side. A run that was stopped goes on where it was. The result
is written again after each finished run::

    python -m benchmarks.learning --data 'data/cifar10-*.tar' --label CIFAR-10 --tasks knn

The settings of the quick scale were found on seed 0, which is therefore not among the seeds here.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.subset import write_subset
from benchmarks.training import lightssl, train
from lightssl.files import read_json_lines, write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#475569")  # of methods


def main() -> None:
    """Train what is missing, evaluate it, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["mobilenetv2_dino"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--data", default="sample")
    parser.add_argument("--per-class", type=int, help="train on so many images of each class only")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--tasks", nargs="+", default=["knn", "linear"])
    parser.add_argument("--duration", default="200k examples")
    parser.add_argument("--every", default="25%", help="how often kNN is measured on the way")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"), help="folder of the runs")
    parser.add_argument("--name", default="learning", help="of the files in benchmarks/results")
    options = parser.parse_args()
    if options.per_class:
        options.label = options.label or f"{options.per_class} images a class of {options.data}"
        options.data = str(write_subset(options.data, options.per_class, options.out / "data"))

    cells = [(recipe, seed) for seed in options.seeds for recipe in options.recipes]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda cell: train_and_evaluate(cell[0], cell[1], options), cells)
        rows = []
        for (recipe, seed), run in zip(cells, runs, strict=True):
            rows.append({"recipe": recipe, "seed": seed, **describe(run, options.tasks)})
            result = {
                "what": f"scale quick, {options.duration}",
                "data": options.label or options.data,
                "measured": datetime.now(UTC).date().isoformat(),
                "jobs": options.jobs,
                "threads_per_job": 1,
                "machine": describe_machine(),
                "versions": versions(),
                "summary": summarise(rows),
                "runs": rows,
            }
            write_json(RESULTS / f"{options.name}.json", result)
            draw(rows, RESULTS / f"{options.name}.png")
    print(json.dumps(summarise(rows), indent=2))


def train_and_evaluate(recipe: str, seed: int, options: argparse.Namespace, *, random: bool = True) -> Run:
    """Train to the end and evaluate once, beside random networks or without them."""
    settings = [f"train.duration={options.duration}", f"evaluation.monitor_every={options.every}"]
    folder = options.out / f"{recipe}-seed{seed}"
    run = train(recipe, data=options.data, folder=folder, seed=seed, settings=settings)
    missing = [task for task in options.tasks if not run.evaluation_path(task).exists()]
    if missing:
        beside = "--random" if random else "--no-random"
        lightssl("evaluate", str(run), beside, *(argument for task in missing for argument in ("--task", task)))
    return run


def describe(run: Run, tasks: list[str]) -> dict[str, Any]:
    """Gather final accuracies and the learning curve of a run."""
    recipe = run.recipe()
    batch = recipe["train"]["batch_size"]
    curve, seconds, before = [], 0.0, -1.0
    for row in read_json_lines(run.metrics_path):
        seconds += (row["step"] - before) * batch / row["images_per_s"]
        before = row["step"]
        if "knn_top1" in row:
            curve.append(
                {
                    "images": int(row["step"] + 1) * batch,
                    "minutes": round(seconds / 60, 2),
                    "knn_top1": row["knn_top1"],
                    "loss": round(row["loss"], 4),
                    "effective_rank": round(row["effective_rank"], 2),
                }
            )
    accuracies = {}
    for task in tasks:
        result = json.loads(run.evaluation_path(task).read_text(encoding="utf-8"))
        accuracies[task] = {row["network"]: row["top1"] for row in result["results"]}
    networks = {"backbone": recipe["backbone"]["name"], "method": recipe["method"]["name"]}
    precision = run.environment().get("precision", "32-true")  # which runs did not write down when all were in fp32
    return {**networks, "precision": precision, **accuracies, "minutes": round(seconds / 60, 1), "curve": curve}


def gain(row: dict[str, Any], task: str) -> float:
    """Points above the better of the random baselines."""
    random = [top1 for network, top1 in row[task].items() if network.startswith("random")]
    return float(row[task]["pre-trained"] - max(random))


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds, for each recipe."""
    summary: dict[str, Any] = {}
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        chosen = [row for row in rows if row["recipe"] == recipe]
        summary[recipe] = {"seeds": len(chosen), "minutes": round(mean(row["minutes"] for row in chosen), 1)}
        for task in [task for task in ("knn", "linear") if task in chosen[0]]:
            gains = [gain(row, task) for row in chosen]
            summary[recipe][task] = {
                "pre-trained": round(mean(row[task]["pre-trained"] for row in chosen), 2),
                "better random baseline": round(mean(row[task]["pre-trained"] - gain(row, task) for row in chosen), 2),
                "gain": round(mean(gains), 2),
                "gain_stdev": round(stdev(gains), 2) if len(gains) > 1 else None,
            }
    return summary


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the learning curves, a panel for each backbone, from the better random baseline of each run on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = 7.2 if len(backbones) == 1 else 3.6 * len(backbones)
    figure, panels = plt.subplots(
        1, len(backbones), figsize=(width, 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, backbone in zip(panels[0], backbones, strict=True):
        for row in [row for row in rows if row["backbone"] == backbone]:
            start = (0.0, row["knn"]["pre-trained"] - gain(row, "knn"))
            points = [start, *((point["images"] / 1000, point["knn_top1"]) for point in row["curve"])]
            colour = COLOURS[methods.index(row["method"])]
            axes.plot(*zip(*points, strict=True), color=colour, marker=".")
        axes.set_title(backbone)
        axes.grid(alpha=0.3)
    for colour, method in zip(COLOURS, methods, strict=False):
        panels[0][0].plot([], [], color=colour, marker=".", label=method)
    panels[0][0].legend(frameon=False, fontsize=8)
    panels[0][0].set_ylabel("kNN top-1, % of test images")
    figure.supxlabel("thousand images seen; at 0 the better random baseline", fontsize="medium")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
