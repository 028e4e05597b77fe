"""Does the search know what is good? Its scores, and its winner, against trainings of networks on their own::

    python -m benchmarks.ranking --data 'data/cifar10-*.tar' --label CIFAR-10

1. A supernet of MobileNetV2-like networks is trained, and networks within the budget evolve.
2. Candidates of all sizes are drawn at random, scored by that supernet and without any training, and pre-trained on
   their own, all alike. Kendall's tau tells how well each score orders them as kNN does afterwards, and how well the
   kNN of one seed does as that of another: no score can be expected to do better.
3. The winner, the stock network and the best of equally many random candidates are pre-trained as well, with several
   seeds, and compared by kNN and a linear classifier. The best by effective rank stand beside those by agreement, which
   the search evolves for.

All trainings are SimCLR at the quick scale, of one thread each; what was stopped goes on where it was, and the stages
``search`` and ``ranked`` may run side by side. Budgets and FLOPs are counted at 32 pixels, at which all is trained.
Nothing is chosen by test images: the search sees none.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml
from scipy.stats import kendalltau

from benchmarks.training import lightssl, train
from lightssl.config.load import PUBLISHED_SCALE
from lightssl.data.sources import open_source
from lightssl.files import read_json_lines, write_json, write_text
from lightssl.machine import describe_machine, versions
from lightssl.pipeline.laboratory import Laboratory
from lightssl.pipeline.question import Question
from lightssl.progress import Silent
from lightssl.runs import Run
from lightssl.search.budget import sample_within
from lightssl.search.cost import CostTable
from lightssl.search.sandwich import sandwich
from lightssl.search.scores import SupernetScorer
from lightssl.search.spaces import Candidate
from lightssl.search.zero_cost import ZeroCostScorer
from lightssl.train.fabric import make_fabric
from lightssl.train.host import prepare_host

RESULTS = Path(__file__).parent / "results"
RECIPE = "mobilenetv2_simclr_cifar"
BUDGET = 25e6  # just above what MobileNetV2 costs
SMALLEST, LARGEST = 7e6, 50e6  # budgets of the candidates that are ranked, between those of the space's ends
SUPERNET_SCORES, ZERO_COST_SCORES = ("agreement", "loss", "rank"), ("naswot", "synflow", "rank")
COMPARED_BY = ("agreement", "rank")
TASKS = ("knn", "linear")
COLOURS = ("#2563eb", "#ea580c", "#fdba74", "#16a34a", "#86efac")  # of the networks that are compared
RESAMPLES = 10_000


def main() -> None:
    """Search, train what is missing, and write tables and a picture as far as they are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--supernet", default="64k examples")
    parser.add_argument("--candidates", type=int, default=100, help="that the search looks at")
    parser.add_argument("--ranked", type=int, default=14, help="candidates that are trained on their own")
    parser.add_argument("--duration", default="64k examples", help="of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="of the networks that are compared")
    parser.add_argument("--ranked-seeds", nargs="+", type=int, default=[1, 2], help="of those that are ranked")
    parser.add_argument("--images", type=int, default=2048, help="held-out images that candidates are scored on")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--stage", choices=["search", "ranked", "all"], default="all")
    options = parser.parse_args()

    folder = options.out / "search"
    if options.stage != "ranked":
        search(folder, options)
    if options.stage == "search":
        return
    question = Question(**asked(folder)["question"])
    table = CostTable(question.searched, **question.backbone_options(question.resolve(PUBLISHED_SCALE)))
    drawn = draw_ranked(table, options.ranked)
    with ThreadPoolExecutor(options.jobs) as pool:

        def train_drawn(cell: tuple[int, int]) -> float:
            seed, number = cell
            return train_alone(f"ranked-{number:02}-seed{seed}", drawn[number], seed, (), question, options)["knn"]

        numbers = range(len(drawn))
        knn = list(pool.map(train_drawn, product(options.ranked_seeds, numbers)))
        if options.stage == "ranked":
            return
        by_seed = np.reshape(knn, (len(options.ranked_seeds), len(drawn))).T.tolist()
        kept = options.out / "scores.json"
        if not kept.exists():
            write_json(kept, score_drawn(folder, drawn, options))
        scored = json.loads(kept.read_text(encoding="utf-8"))
        ranked = [
            {**scored["ranked"][number], "knn": round(mean(by_seed[number]), 3), "by seed": by_seed[number]}
            for number in numbers
        ]
        compared = to_compare(folder, scored)
        trained: dict[str, dict[int, dict[str, float]]] = {name: {} for name in compared}
        cells = [(name, seed) for seed in options.seeds for name in trained]
        write_result(compared, ranked, trained, options)

        def train_cell(cell: tuple[str, int]) -> dict[str, float]:
            name, seed = cell
            candidate = table.space.parse(compared[name]["candidate"])
            return train_alone(f"{name}-seed{seed}", candidate, seed, TASKS, question, options)

        for (name, seed), found in zip(cells, pool.map(train_cell, cells), strict=True):
            trained[name][seed] = found
            write_result(compared, ranked, trained, options)


def asked(folder: Path) -> dict[str, Any]:
    """Read what a search was asked."""
    found: dict[str, Any] = json.loads((folder / "search" / "search.json").read_text(encoding="utf-8"))["asked"]
    return found


def draw_ranked(table: CostTable, count: int) -> list[Candidate]:
    """Draw random candidates for budgets of all sizes."""
    generator = np.random.default_rng(0)
    budgets = np.geomspace(SMALLEST, LARGEST, count)
    return [table.space.decode(sample_within(table, {"flops": budget}, generator, 1)[0]) for budget in budgets]


def search(folder: Path, options: argparse.Namespace) -> None:
    """Run the search to its end, from wherever it stands."""
    if (folder / "search" / "winner.yaml").exists():
        return
    if (folder / "search" / "search.json").exists():
        lightssl("search", "--resume", str(folder))
        return
    settings = [
        f"search.supernet={options.supernet}",
        f"search.candidates={options.candidates}",
        f"search.images={options.images}",
    ]
    where = ["--data", options.data, "--out", str(folder), "--seed", "0", "--scale", "quick"]
    what = ["--flops", f"{BUDGET:.0f}", "--recipe", RECIPE]
    lightssl("search", *what, *where, *(word for setting in settings for word in ("--set", setting)))


@dataclass
class Scores:
    """A finished search, asked about other candidates."""

    question: Question
    table: CostTable
    supernet: SupernetScorer
    zero_cost: ZeroCostScorer

    @classmethod
    def of(cls, folder: Path, options: argparse.Namespace) -> "Scores":
        """Load the supernet of a search."""
        prepare_host()
        question = Question(**asked(folder)["question"])
        recipe, deployed = question.resolve("quick"), question.resolve(PUBLISHED_SCALE)
        lab = Laboratory(
            recipe,
            question.searched,
            open_source(options.data, split="train"),
            supernet_options=question.backbone_options(recipe),
            deployed_options=question.backbone_options(deployed),
            run=Run(folder / "search"),
            question=question.digest,
            fabric=make_fabric(recipe.train.precision),
            narrator=Silent(),
            may_train=False,
        )
        strategy = question.strategy_options()
        passes = sandwich(question.searched, middle=strategy["middle"], seed=recipe.train.seed)
        trained = lab.train(strategy["supernet"], passes)
        return cls(
            question,
            CostTable(question.searched, **question.backbone_options(deployed)),
            SupernetScorer(*trained, lab, images=options.images, score="agreement"),
            ZeroCostScorer(lab, images=64, score="naswot"),
        )

    def row(self, candidate: Candidate, *, untrained: bool = True) -> dict[str, Any]:
        """Score one candidate in every way, or by the supernet alone."""
        found = self.supernet(candidate)
        row = {
            "candidate": str(candidate),
            **self.table.cost(candidate)._asdict(),
            **{f"supernet {name}": found[name] for name in SUPERNET_SCORES},
        }
        if untrained:
            scores = self.zero_cost(candidate)
            row |= {f"zero-cost {name}": scores[name] for name in ZERO_COST_SCORES}
        return row


def score_drawn(folder: Path, drawn: Sequence[Candidate], options: argparse.Namespace) -> dict[str, Any]:
    """Score the candidates that are ranked, the stock network, and as many at random as the search looked at."""
    scores = Scores.of(folder, options)
    table = scores.table
    generator = np.random.default_rng(1)
    at_random = sample_within(table, {"flops": BUDGET}, generator, len(searched(folder)))
    return {
        "ranked": [scores.row(candidate) for candidate in drawn],
        "stock": {name: scores.row(candidate) for name, candidate in scores.question.stock.items()},
        "at_random": [scores.row(table.space.decode(genes), untrained=False) for genes in at_random],
    }


def searched(folder: Path) -> list[dict[str, Any]]:
    """Return what the search found of its candidates, with the names that scores have here."""
    rows = read_json_lines(folder / "search" / "candidates.jsonl")
    return [{**row, **{f"supernet {name}": row[name] for name in SUPERNET_SCORES}} for row in rows]


def to_compare(folder: Path, scored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the stock network, and by each score the best of the search and the best of those drawn at random."""
    chosen = dict(scored["stock"])
    for score in COMPARED_BY:
        for how, rows in (("searched", searched(folder)), ("at-random", scored["at_random"])):
            best = max(rows, key=lambda row: row[f"supernet {score}"])
            chosen[f"{how}-by-{score}"] = {key: best[key] for key in rows[0] if key in scored["at_random"][0]}
    return chosen


def train_alone(
    name: str,
    candidate: Candidate,
    seed: int,
    tasks: Sequence[str],
    question: Question,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Pre-train a network on its own; return its kNN accuracy on the test images, and what else ``tasks`` measure."""
    path = options.out / "recipes" / f"{name}.yaml"
    if not path.exists():
        write_text(path, f"# {candidate}\n" + yaml.safe_dump(question.mapping(candidate), sort_keys=False))
    settings = [
        *question.recipe_overrides,
        f"train.duration={options.duration}",
        "evaluation.monitor_every=100%",
    ]
    run = train(str(path), data=options.data, folder=options.out / name, seed=seed, settings=settings)
    missing = [task for task in tasks if not run.evaluation_path(task).exists()]
    if missing:
        lightssl("evaluate", str(run), "--no-random", *(word for task in missing for word in ("--task", task)))
    results = {"knn": read_json_lines(run.metrics_path)[-1]["knn_top1"]}
    for task in tasks:
        rows = json.loads(run.evaluation_path(task).read_text(encoding="utf-8"))["results"]
        results[task] = next(row["top1"] for row in rows if row["network"] == "pre-trained")
    return results


def write_result(
    chosen: Mapping[str, Mapping[str, Any]],
    ranked: Sequence[Mapping[str, Any]],
    trained: Mapping[str, Mapping[int, Mapping[str, float]]],
    options: argparse.Namespace,
) -> None:
    """Write what is known so far."""
    compared = {}
    for name, row in chosen.items():
        figures: dict[str, Any] = {"seeds": list(trained[name])}
        for task in TASKS if trained[name] else ():
            values = [found[task] for found in trained[name].values()]
            figures[task] = {"by seed": [round(value, 2) for value in values], "mean": round(mean(values), 2)}
        compared[name] = {**row, **figures}
    write_json(
        RESULTS / "ranking.json",
        {
            "what": f"SimCLR at the quick scale: supernet {options.supernet}, each network alone {options.duration}; "
            f"{options.candidates} candidates searched, as many drawn at random",
            "data": options.label or options.data,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "seeds": options.seeds,
            "ranked_seeds": options.ranked_seeds,
            "tau": taus(ranked),
            "tau_between_seeds": tau_between_seeds(ranked),
            "knn_stdev": spread(ranked),
            "compared": compared,
            "ranked": ranked,
        },
    )
    draw(ranked, compared, RESULTS / "ranking.png")


def tau_between_seeds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean over pairs of seeds of Kendall's tau of their kNN."""
    pairs = combinations(np.array([row["by seed"] for row in rows]).T, 2)
    found = [float(kendalltau(one, other).statistic) for one, other in pairs]
    return round(mean(found), 3) if found else None


def spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the standard deviation of kNN over the seeds of a network, and that of the networks' means."""
    knn = np.array([row["by seed"] for row in rows])
    over_seeds = float(np.sqrt(knn.var(axis=1, ddof=1).mean())) if knn.shape[1] > 1 else None
    return {
        "over seeds": None if over_seeds is None else round(over_seeds, 2),
        "over networks": round(float(knn.mean(axis=1).std(ddof=1)), 2),
    }


def taus(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Kendall's tau of every score with kNN, mean over seeds, and its 95 % interval over resampled candidates."""
    knn = np.array([row["knn"] for row in rows])
    names = ["flops", "parameters", *(name for name in rows[0] if name.startswith(("supernet ", "zero-cost ")))]
    drawn = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
    table = {}
    for name in names:
        values = np.array([row[name] for row in rows]) * (-1 if name.endswith("loss") else 1)
        resampled = [kendalltau(values[sample], knn[sample]).statistic for sample in drawn]
        low, high = np.nanquantile(resampled, [0.025, 0.975])
        table[name] = {
            "tau": round(float(kendalltau(values, knn).statistic), 3),
            "interval": [round(float(low), 3), round(float(high), 3)],
        }
    return table


def draw(rows: Sequence[Mapping[str, Any]], compared: Mapping[str, Any], path: Path) -> None:
    """Draw kNN over FLOPs and over the score of the search, for every network that was trained on its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True, layout="constrained")
    axes_of = {
        "flops": "million FLOPs at 32 pixels",
        "supernet agreement": "agreement with the largest network",
        "supernet rank": "effective rank",
    }
    tau = taus(rows)
    for axes, (name, label) in zip(panels, axes_of.items(), strict=True):
        scale = 1e6 if name == "flops" else 1
        axes.scatter([row[name] / scale for row in rows], [row["knn"] for row in rows], color="#94a3b8", label="random")
        for (other, row), colour in zip(compared.items(), COLOURS, strict=False):
            if "knn" in row:
                axes.scatter([row[name] / scale], [row["knn"]["mean"]], color=colour, label=other, marker="D")
        axes.set_xlabel(label)
        axes.set_title(f"Kendall's tau {tau[name]['tau']:.2f}", fontsize="medium")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("kNN top-1 when trained alone, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
