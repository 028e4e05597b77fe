"""Features of the images of a source, as a recipe says they are fed to a network."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.config.schema import Recipe
from lightssl.data.loader import pretraining_loader
from lightssl.data.sources import Source
from lightssl.evaluation.features import Features, extract_features
from lightssl.pipeline.building import device_for, evaluation_batches, worker_count
from lightssl.views.maker import ViewMaker

_PAIRS_AT_A_TIME = 64


def features_of_splits(
    network: nn.Module,
    train: Source,
    test: Source,
    recipe: Recipe,
    on_batch: Callable[[int], None] | None = None,
    batch_size: int | None = None,
) -> Features:
    """Return features of labelled images to learn from and to test on."""
    extracted: list[tuple[Tensor, Tensor, Tensor]] = []
    for source in (train, test):
        features, indices = features_of_images(network, source, recipe, on_batch, batch_size)
        labels = torch.from_numpy(np.asarray(source.labels))[indices]
        extracted.append((features, labels, indices))
    (train_features, train_labels, train_indices), (test_features, test_labels, test_indices) = extracted
    return Features(
        train=train_features,
        train_labels=train_labels,
        train_indices=train_indices,
        test=test_features,
        test_labels=test_labels,
        test_indices=test_indices,
        classes=list(train.classes or []),
    )


def features_of_images(
    network: nn.Module,
    source: Source,
    recipe: Recipe,
    on_batch: Callable[[int], None] | None = None,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return features [N, D] of the images that can be decoded, and their positions in the source, [N]."""
    loader = evaluation_batches(source, recipe, batch_size=batch_size)
    mean, std = recipe.data.mean, recipe.data.std
    return extract_features(network, loader, mean=mean, std=std, device=device_for(network), on_batch=on_batch)


def features_of_views(
    network: nn.Module, source: Source, recipe: Recipe, on_batch: Callable[[int], None] | None = None
) -> Tensor:
    """Return features [2, P, D] of the first two global views of P images, as the first epoch of a training draws them.

    P is the number of images, or a little less: the last batch is whole.
    """
    plan = recipe.views.model_copy(
        update={
            "global_": recipe.views.global_.model_copy(update={"count": 2}),
            "local": recipe.views.local.model_copy(update={"count": 0, "min_count": None}),
            "start": None,
        }
    )
    batch_size = min(_PAIRS_AT_A_TIME, len(source))
    steps = len(source) // batch_size
    loader = pretraining_loader(
        source,
        ViewMaker(plan, recipe.augment, seed=recipe.train.seed),
        batch_size=batch_size,
        seed=recipe.train.seed,
        start_step=0,
        total_steps=steps,
        workers=worker_count(recipe),
    )
    pairs = ((batch.views[0][:2].flatten(0, 1), batch.indices.repeat(2)) for batch in loader)
    mean, std = recipe.data.mean, recipe.data.std
    features, _ = extract_features(network, pairs, mean=mean, std=std, device=device_for(network), on_batch=on_batch)
    return features.unflatten(0, (steps, 2, batch_size)).transpose(0, 1).flatten(1, 2)
