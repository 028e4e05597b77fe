"""The cheap proof that a method works with a backbone: it can learn to tell 1,000 images apart.

Every cell trains for some minutes on 1,000 images of the embedded sample, at the quick scale. Two things must then
hold. The loss is well below that of outputs which say nothing. And the other global view of an image is found among
those of all 1,000 far more often than by the same network before training, both with batch norm estimated on them::

    python -m benchmarks.proof
"""

import argparse
import json
from datetime import UTC, datetime
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import lightssl
from benchmarks.subset import write_subset
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.config.load import load_recipe
from lightssl.config.schema import Recipe
from lightssl.data.decode import decode
from lightssl.data.sources import open_source
from lightssl.files import read_json_lines, write_json
from lightssl.images import normalise
from lightssl.machine import describe_machine, versions
from lightssl.pipeline import build_backbone
from lightssl.runs import Run
from lightssl.views.maker import ViewMaker

RESULTS = Path(__file__).parent / "results"
RECIPES = [
    *(
        f"{backbone}_{method}"
        for method in ("dino", "swav", "mocov2")
        for backbone in ("mobilenetv2", "resnet18", "vit_tiny")
    ),
    *(
        f"{backbone}_{method}_cifar"
        for method in ("simsiam", "simclr")
        for backbone in ("mobilenetv2", "resnet18", "vit_tiny")
    ),
]
UNSEEN_EPOCH = 10**6  # of views that no training drew
BATCH = 100


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", default="20k examples")
    parser.add_argument("--out", type=Path, default=Path("runs/proof"))
    options = parser.parse_args()
    data = str(write_subset("sample", 100, options.out / "data", with_test=False))
    rows = []
    for name in options.recipes:
        row = prove(name, data, options.duration, options.seed, options.out / f"{name}-seed{options.seed}")
        rows.append(row)
        print(json.dumps(row))
        result = {
            "what": f"scale quick, {options.duration}, 1,000 images of the embedded sample, seed {options.seed}",
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "rows": rows,
        }
        write_json(RESULTS / "proof.json", result)


def prove(name: str, data: str, duration: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one cell, from wherever it stands, and measure it."""
    overrides = [f"train.duration={duration}", f"train.seed={seed}"]
    recipe = load_recipe(name, scale="quick", overrides=overrides)
    run = Run(folder)
    if not run.checkpoint_path.exists():
        lightssl.pretrain(name, data=data, scale="quick", overrides=overrides, out=folder)
    elif not run.weights_path.exists():
        lightssl.resume(run)
    rows = read_json_lines(run.metrics_path)
    views = unseen_views(recipe, data)
    return {
        "recipe": name,
        "loss_uniform": round(uniform_loss(recipe), 3),
        "loss": round(rows[-1]["loss"], 3),
        "effective_rank": round(rows[-1]["effective_rank"], 1),
        "retrieval_random": found(build_backbone(recipe), views),
        "retrieval": found(lightssl.load_backbone(run), views),
        "minutes": round(
            sum(recipe.train.batch_size / row["images_per_s"] * steps for row, steps in _steps(rows)) / 60, 1
        ),
    }


def _steps(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Every logged row with the number of steps that it speaks for."""
    ends = [int(row["step"]) + 1 for row in rows]
    return list(zip(rows, [end - start for start, end in zip([0, *ends], ends, strict=False)], strict=True))


def uniform_loss(recipe: Recipe) -> float:
    """The loss of outputs that say nothing: uniform probabilities, or for SimSiam unrelated directions."""
    method, batch = recipe.method, recipe.train.batch_size
    return {
        "dino": lambda: log(method.prototypes),
        "swav": lambda: log(method.prototypes),
        "mocov2": lambda: log(method.queue + 1),
        "simclr": lambda: log(recipe.views.global_.count * (batch - 1) + 1),
        "simsiam": lambda: 0.0,
    }[method.name]()


def unseen_views(recipe: Recipe, data: str) -> Tensor:
    """Two global views of every image that training did not draw, normalised, [2, N, 3, S, S]."""
    source = open_source(data)
    make_views = ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed)
    pairs = [
        torch.from_numpy(make_views(decode(source.read(index)), UNSEEN_EPOCH, index)[0][:2])
        for index in range(len(source))
    ]
    return normalise(torch.stack(pairs, dim=1), recipe.data.mean, recipe.data.std)


@torch.no_grad()
def found(network: Backbone, views: Tensor) -> float:
    """Share of images, in percent, whose second view is the nearest to the first, by the cosine of their features."""
    estimate_batch_norm(network, views.flatten(0, 1).split(BATCH))
    network.eval()
    first, second = (torch.cat([F.normalize(network(batch), dim=1) for batch in view.split(BATCH)]) for view in views)
    nearest = (first @ second.T).argmax(dim=1)
    return round(100 * (nearest == torch.arange(len(nearest))).float().mean().item(), 1)


if __name__ == "__main__":
    main()
