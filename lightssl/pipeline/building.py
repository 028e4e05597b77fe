"""What a recipe describes, built; and what commands share."""

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.backbones.cost import count_cost
from lightssl.checkpoint import load_strictly
from lightssl.config.schema import Recipe, Section
from lightssl.data.loader import EvaluationLoader, evaluation_loader
from lightssl.data.sources import Source, Subset
from lightssl.evaluation.classifier import Classifier
from lightssl.evaluation.detector import Detector
from lightssl.images import normalise
from lightssl.machine import describe_machine, usable_cores, versions
from lightssl.methods import METHODS
from lightssl.methods.base import Method

SAMPLE = "sample"
PRETRAINED, RANDOM = "pre-trained", "random"  # what results call networks
_BATCH_NORM_IMAGES = 4096  # shown to estimate batch-norm statistics: more moves no figure
_BATCH_NORM_BATCH = 128


def build_backbone(recipe: Recipe) -> Backbone:
    """Build the recipe's backbone as it is at the start of training: its weights depend on the seed alone."""
    torch.manual_seed(recipe.train.seed)
    backbone: Backbone = BACKBONES[recipe.backbone.name](**options_of(recipe.backbone))
    return backbone


def build_method(recipe: Recipe, backbone: Backbone | None = None, changes: Mapping[str, Any] | None = None) -> Method:
    """Build the recipe's method around its backbone, or around another one, with some options changed."""
    backbone = backbone or build_backbone(recipe)
    options = {**options_of(recipe.method), **(changes or {})}
    method: Method = METHODS[recipe.method.name](backbone, recipe.views.weights, **options)
    return method


def options_of(section: Section) -> dict[str, Any]:
    """Return the keyword arguments that a component's section of the recipe holds."""
    return {key: value for key, value in fields_of(section).items() if key != "name"}


def fields_of(section: Section) -> dict[str, Any]:
    """Return all values of a recipe's section by name."""
    return {key: getattr(section, key) for key in type(section).model_fields}


def worker_count(recipe: Recipe) -> int:
    """Return how many processes read images."""
    # On a small CPU-only machine the views and the network want the same cores: one process draws ahead.
    if recipe.data.workers != "auto":
        return recipe.data.workers
    return max(1, min(8, usable_cores() - 1))


def device_for(network: nn.Module | None = None) -> str:
    """Return where to compute: on a GPU where there is one, if the network is torch's (others have no parameters)."""
    of_torch = network is None or next(network.parameters(), None) is not None
    return "cuda" if of_torch and torch.cuda.is_available() else "cpu"


def evaluation_batches(
    source: Source, recipe: Recipe, *, batch_size: int | None = None, size: int | None = None
) -> EvaluationLoader:
    """Return the images as an evaluation shows them: see :func:`lightssl.data.loader.evaluation_loader`.

    Args:
        source: The images.
        recipe: Says how they are cut.
        batch_size: Images in a batch, if it matters.
        size: Pixels of a side, if not as the recipe says.
    """
    return evaluation_loader(
        source,
        size=size or recipe.evaluation.image_size,
        crop_share=recipe.evaluation.crop_share,
        batch_size=batch_size,
        workers=worker_count(recipe),
    )


def standalone_backbone(encoder: nn.Module, recipe: Recipe) -> Backbone:
    """Copy a trained encoder to the CPU, without ties to other processes: its batch norm may be synchronised."""
    backbone = build_backbone(recipe)
    load_strictly(backbone, encoder.state_dict(), "the trained encoder")
    return backbone


def estimate_batch_norm_on(network: nn.Module, source: Source, recipe: Recipe) -> None:
    """Estimate batch-norm statistics on training images as an evaluation shows them."""
    order = np.random.default_rng(recipe.train.seed).permutation(len(source))[:_BATCH_NORM_IMAGES]
    loader = evaluation_batches(
        Subset(source, order, source.name), recipe, batch_size=min(_BATCH_NORM_BATCH, len(order))
    )

    def batches() -> Iterator[Tensor]:
        for images, _ in loader:
            if len(images) > 1:
                yield normalise(images, recipe.data.mean, recipe.data.std)

    estimate_batch_norm(network, batches())


def describe_network(recipe: Recipe, network: Backbone | Classifier | Detector) -> dict[str, Any]:
    """Return what is written beside the weights of a network; of a detector, the cost is that of its backbone."""
    size = recipe.evaluation.image_size
    backbone = network if isinstance(network, Backbone) else network.backbone
    cost = count_cost(backbone if isinstance(network, Detector) else network, size)
    return {
        "backbone": {"name": recipe.backbone.name, **options_of(recipe.backbone)},
        "feature_width": backbone.feature_width,
        **({} if isinstance(network, Backbone) else network.describe()),
        "input_size": size,
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "flops": cost.flops,
        "parameters": cost.parameters,
        "recipe": recipe.name,
        "scale": recipe.scale,
        "lightssl": versions()["lightssl"],
    }


def describe_environment(**what: Any) -> dict[str, Any]:
    """Return what a run was started with: the command, the machine, the versions, and whatever is given."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["lightssl", *sys.argv[1:]] if Path(sys.argv[0]).stem == "lightssl" else None,
        **what,
        "machine": describe_machine(),
        "versions": versions(),
    }
