"""The cheap proof that a method works with a backbone: it can learn to tell 1,000 images apart.

Every cell trains for some minutes on 1,000 images of the embedded sample, at the quick scale, on views whose colours
are left alone. Two things must then hold. The loss is well below that of outputs which say nothing. And the other
global view of an image is found among those of all 1,000 far more often than by the same network before training, both
with batch norm estimated on them::

    python -m benchmarks.proof
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.subset import write_subset
from benchmarks.training import train
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.config.load import load_recipe
from lightssl.config.schema import Recipe
from lightssl.data.decode import decode
from lightssl.data.sources import open_source
from lightssl.files import read_json_lines, write_json
from lightssl.images import normalise
from lightssl.machine import describe_machine, versions
from lightssl.pipeline import build_backbone, load_backbone
from lightssl.runs import Run
from lightssl.views.maker import ViewMaker

RESULTS = Path(__file__).parent / "results"
RECIPES = [
    f"{backbone}_{method}"
    for backbone in ("mobilenetv2", "resnet18", "vit_tiny")
    for method in ("dino", "swav", "mocov2", "simsiam_cifar", "simclr_cifar")
]
# Changes of colour take longer to learn to ignore. A queue must be short for 1,000 images not to be in it twice. The
# transformer's outputs take longer to differ without batch norm in the head, and SimSiam takes longer than the others.
SETTINGS = {
    "": ["augment.jitter.probability=0", "augment.grey=0"],
    "mocov2": ["method.queue=256"],
    "vit_tiny": ["schedule.base_rate=7e-4"],
    "vit_tiny_dino": ["method.head_batch_norm=true"],
    "simsiam": ["train.duration=60k examples"],
}
UNSEEN_EPOCH = 10**6  # of views that no training drew
BATCH = 100


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--duration", default="24k examples")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/proof"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = str(write_subset("sample", 100, options.out / "data", with_test=False))
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda name: train_cell(name, data, options), options.recipes)
        for name, run in zip(options.recipes, runs, strict=True):
            rows.append(measure(name, run, data, options))
            print(json.dumps(rows[-1]))
            result = {
                "what": f"scale quick, {options.duration}, 1,000 images of the embedded sample, seed {options.seed}",
                "settings": SETTINGS,
                "measured": datetime.now(UTC).date().isoformat(),
                "jobs": options.jobs,
                "threads_per_job": 1,
                "machine": describe_machine(),
                "versions": versions(),
                "rows": rows,
            }
            write_json(RESULTS / "proof.json", result)


def train_cell(name: str, data: str, options: argparse.Namespace) -> Run:
    """Train one recipe."""
    folder = options.out / f"{name}-seed{options.seed}"
    settings = [f"train.duration={options.duration}", *settings_of(name)]
    return train(name, data=data, folder=folder, seed=options.seed, settings=settings)


def settings_of(name: str) -> list[str]:
    """What is set otherwise than in the recipe."""
    return [setting for part, settings in SETTINGS.items() if part in name for setting in settings]


def measure(name: str, run: Run, data: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a trained network with the one that it started as."""
    recipe = load_recipe(name, scale="quick", overrides=[*settings_of(name), f"train.seed={options.seed}"])
    rows = read_json_lines(run.metrics_path)
    views = unseen_views(recipe, data)
    return {
        "recipe": name,
        "loss_uniform": round(uniform_loss(recipe), 3),
        "loss": round(rows[-1]["loss"], 3),
        "effective_rank": round(rows[-1]["effective_rank"], 1),
        "found_by_random_network": found(build_backbone(recipe), views),
        "found": found(load_backbone(run), views),
    }


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
