"""Does SSLight's view sampling help? Its plan against the usual one, for every method on two networks::

    python -m benchmarks.headline --data 'data/cifar10-*.tar' --label CIFAR-10

Two recipes of a pair differ in their view plan alone: same network, method, images, order, seeds and number of steps,
all at the quick scale, whose views keep the published pixel-scale ratios. After pre-training without labels, kNN and a
linear classifier are measured on the test images, which play no part in anything before. One thread a training; what
was stopped goes on where it was, and the table is written again after each training.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.learning import describe, train_and_evaluate
from lightssl.config.load import load_recipe
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
BACKBONES, METHODS = ("mobilenetv2", "resnet18"), ("dino", "swav", "mocov2")
PLANS = {"sslight": "", "baseline": "_baseline"}  # and how their recipes' names end
TASKS = ("knn", "linear")
COLOURS = {"sslight": "#ea580c", "baseline": "#64748b"}


def main() -> None:
    """Train what is missing, and write table and picture as far as they are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--duration", default="64k examples")
    parser.add_argument("--every", default="50%", help="how often kNN is measured on the way")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"))
    options = parser.parse_args()
    options.tasks = TASKS

    cells = list(product(options.seeds, METHODS, BACKBONES, PLANS))
    with ThreadPoolExecutor(options.jobs) as pool:

        def train_cell(cell: tuple[int, str, str, str]) -> dict[str, Any]:
            seed, method, backbone, plan = cell
            random = (seed, plan) == (options.seeds[0], "baseline")  # the only ones that the table looks at
            run = train_and_evaluate(f"{backbone}_{method}{PLANS[plan]}", seed, options, random=random)
            return {"plan": plan, "seed": seed, **describe(run, options.tasks)}

        runs = []
        for run in pool.map(train_cell, cells):
            runs.append(run)
            write_result(runs, options)


def write_result(runs: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Write what is known so far."""
    rows = table(runs)
    if not rows:  # no plan has another one to compare with yet
        return
    views = {
        f"{backbone}_{method}{ending}": load_recipe(f"{backbone}_{method}{ending}", scale="quick").views.describe()
        for backbone, method, ending in product(BACKBONES, METHODS, PLANS.values())
    }
    write_json(
        RESULTS / "headline.json",
        {
            "what": f"scale quick, {options.duration} a training",
            "data": options.label or options.data,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "views": views,
            "gain": {task: gains(rows, task) for task in TASKS},
            "rows": rows,
            "runs": list(runs),
        },
    )
    draw(rows, RESULTS / "headline.png")


def table(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each method and network what both plans have, by seed, and how far apart they are."""
    rows = []
    for method, backbone in product(METHODS, BACKBONES):
        found = {
            plan: {
                run["seed"]: run
                for run in runs
                if (run["method"], run["backbone"], run["plan"]) == (method, backbone, plan)
            }
            for plan in PLANS
        }
        seeds = [seed for seed in found["sslight"] if seed in found["baseline"]]
        if not seeds:
            continue
        row: dict[str, Any] = {"method": method, "backbone": backbone, "seeds": seeds}
        for task in TASKS:
            values = {plan: [found[plan][seed][task]["pre-trained"] for seed in seeds] for plan in PLANS}
            apart = [ours - theirs for ours, theirs in zip(*values.values(), strict=True)]
            row[task] = {plan: [round(value, 2) for value in by_seed] for plan, by_seed in values.items()} | {
                "random": round(max(of_random(found["baseline"][seeds[0]][task])), 2),
                "gain": round(mean(apart), 2),
                "gain_stdev": round(stdev(apart), 2) if len(apart) > 1 else None,
            }
        rows.append(row)
    return rows


def of_random(networks: Mapping[str, float]) -> list[float]:
    """Return the accuracies of the networks that were not trained."""
    return [top1 for network, top1 in networks.items() if network.startswith("random")]


def gains(rows: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Return the mean gain over all cells, and how many of them gained."""
    values = [row[task]["gain"] for row in rows]
    return {"mean": round(mean(values), 2), "cells": len(values), "ahead": sum(value > 0 for value in values)}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what both plans have in each cell, one point a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(TASKS), figsize=(9.6, 3.8), layout="constrained")
    for axes, task in zip(panels, TASKS, strict=True):
        for place, row in enumerate(rows):
            random = row[task]["random"]
            axes.plot([place - 0.3, place + 0.3], [random, random], color="#94a3b8", linestyle=":")
            for shift, (plan, colour) in zip((0.12, -0.12), COLOURS.items(), strict=True):
                values = row[task][plan]
                axes.scatter([place + shift] * len(values), values, color=colour, s=18)
        axes.set_xticks(range(len(rows)), [f"{row['method']}\n{row['backbone']}" for row in rows], fontsize=7)
        axes.set_ylabel(f"{task}, top-1 in % of test images")
        axes.grid(alpha=0.3, axis="y")
    for plan, colour in COLOURS.items():
        panels[0].scatter([], [], color=colour, s=18, label=plan)
    panels[0].plot([], [], color="#94a3b8", linestyle=":", label="not trained")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
