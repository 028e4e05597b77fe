"""Are searched heads better? Default, searched and published heads of SimSiam and MoCo-v2 on ResNet18::

    python -m benchmarks.heads --data 'data/cifar10-*.tar' --label CIFAR-10

For each method the operations of its heads are searched once, with seed 0. Then the method is trained from the start,
alike and with several seeds, with its default heads, with those found, and with those that NASiam (arXiv 2302.00059)
published for CIFAR-10; kNN on the test images tells them apart. All at the quick scale, of one thread each; what was
stopped goes on where it was. Nothing is chosen by test images.
"""

import argparse
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from statistics import mean
from typing import Any

from benchmarks.training import lightssl, train
from lightssl.files import read_json_lines, write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
METHODS = ("simsiam", "mocov2")


def main() -> None:
    """Search and train what is missing, and write the table and the pictures as far as they are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--search", default="24k examples", help="of each search, as its heads.duration")
    parser.add_argument("--duration", default="48k examples", help="of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/heads"))
    options = parser.parse_args()

    with ThreadPoolExecutor(options.jobs) as pool:
        searches = dict(zip(METHODS, pool.map(lambda method: search(method, options), METHODS), strict=True))
        recipes = {
            f"{method} {heads}": recipe
            for method in METHODS
            for heads, recipe in (
                ("default", f"resnet18_{method}_cifar"),
                ("searched", searches[method]["recipe"]),
                ("published", f"resnet18_{method}_cifar_nasiam"),
            )
        }
        cells = [(name, seed) for seed in options.seeds for name in recipes]
        found: dict[str, dict[int, float]] = {name: {} for name in recipes}

        def train_cell(cell: tuple[str, int]) -> float:
            return train_alone(*cell, recipes[cell[0]], options)

        for (name, seed), result in zip(cells, pool.map(train_cell, cells), strict=True):
            found[name][seed] = result
            write_result(searches, found, {}, options)
    write_result(searches, found, random_baselines(options), options)


def search(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Search the heads of a method, from wherever the search stands; return what it found."""
    folder = options.out / f"search-{method}"
    kept = folder / "search-heads"
    if not (kept / "genotype.yaml").exists():
        if (kept / "search-heads.json").exists():
            lightssl("search-heads", "--resume", str(folder))
        else:
            where = ["--data", options.data, "--out", str(folder), "--seed", "0", "--scale", "quick"]
            duration = f"heads.duration={options.search}"
            lightssl("search-heads", "--recipe", f"resnet18_{method}_cifar", *where, "--set", duration)
    copyfile(kept / "heads.png", RESULTS / f"heads_{method}.png")
    found: dict[str, Any] = json.loads((kept / "search-heads.json").read_text(encoding="utf-8"))
    return found


def train_alone(name: str, seed: int, recipe: str, options: argparse.Namespace) -> float:
    """Train with one choice of heads, and return the kNN accuracy on the test images."""
    folder = options.out / f"{name.replace(' ', '-')}-seed{seed}"
    settings = [f"train.duration={options.duration}", "evaluation.monitor_every=100%"]
    run = train(recipe, data=options.data, folder=folder, seed=seed, settings=settings)
    return float(read_json_lines(run.metrics_path)[-1]["knn_top1"])


def random_baselines(options: argparse.Namespace) -> dict[str, float]:
    """Return the kNN accuracies of the network at random initialisation, which its heads have no part in."""
    run = Run(options.out / f"{METHODS[0]}-default-seed{options.seeds[0]}")
    if not run.evaluation_path("knn").exists():
        lightssl("evaluate", str(run), "--task", "knn")
    rows = json.loads(run.evaluation_path("knn").read_text(encoding="utf-8"))["results"]
    return {row["network"]: row["top1"] for row in rows if row["network"].startswith("random")}


def write_result(
    searches: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Mapping[int, float]],
    random: Mapping[str, float],
    options: argparse.Namespace,
) -> None:
    """Write what is known so far."""
    rows = []
    for name, by_seed in found.items():
        method, heads = name.split()
        row: dict[str, Any] = {"method": method, "heads": heads, "seeds": list(by_seed)}
        if by_seed:
            row["knn"] = [round(top1, 2) for top1 in by_seed.values()]
            row["knn_mean"] = round(mean(by_seed.values()), 2)
        rows.append(row)
    write_json(
        RESULTS / "heads.json",
        {
            "what": f"ResNet18 at the quick scale: searches of {options.search}, trainings of {options.duration}",
            "data": options.label or options.data,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "genotypes": {method: result["genotype"] for method, result in searches.items()},
            "shares": {method: result["shares"] for method, result in searches.items()},
            "random": dict(random),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
