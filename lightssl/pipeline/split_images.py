"""A recipe's images, those that training sees and those that are held out from it, as networks are shown them."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightssl.config.schema import Recipe
from lightssl.data.loader import pretraining_loader
from lightssl.data.sources import Source, Subset, require_labels
from lightssl.errors import DataError
from lightssl.images import normalise
from lightssl.pipeline.building import evaluation_batches, worker_count
from lightssl.views.maker import ViewMaker

_T = TypeVar("_T")
_HELD_OUT, _HELD_OUT_SHARE = 4096, 0.2  # images that training leaves out: so many, or that share of few
_BATCH = 128  # images of an evaluation


class SplitImages:
    """Splits the images of a source, by the recipe's seed, and shows them as the recipe does.

    Images and views are normalised and on the device. They can be gone through more than once, are in the same order
    each time, and may be fewer than asked for. No batch is of a single image.

    Args:
        recipe: Resolved.
        source: All images.
        device: Where images are shown.
    """

    def __init__(self, recipe: Recipe, source: Source, device: torch.device) -> None:
        self.device = device
        self._recipe, self._source = recipe, source

    @cached_property
    def _parts(self) -> dict[bool, Source]:
        """The images that training sees, and those held out."""
        order = np.random.default_rng(self._recipe.train.seed).permutation(len(self._source))
        count = min(_HELD_OUT, int(_HELD_OUT_SHARE * len(order)))
        if count < 2:
            raise DataError(f"{self._source.name} has {len(order)} images: too few to hold any out.", "Use more.")
        parts = {False: order[count:], True: order[:count]}  # shuffled: the first images of each are a fair sample
        return {held_out: Subset(self._source, part, self._source.name) for held_out, part in parts.items()}

    def part(self, count: int | None = None, *, held_out: bool) -> Source:
        """Return so many of the images that training sees, or of those held out; all by default.

        Raises:
            DataError: There are too few to hold any out.
        """
        part = self._parts[held_out]
        return part if count is None else Subset(part, np.arange(min(count, len(part))), part.name)

    def images(self, count: int, *, held_out: bool, size: int | None = None) -> Iterable[Tensor]:
        """Return images as evaluations show them, float [B, 3, S, S]; S is that of the recipe if it is not given."""
        batches = [images for images, _ in self._evaluated(count, held_out, size or self._recipe.evaluation.image_size)]
        return _Again(lambda: map(self._shown, batches))

    def labels(self, count: int, *, held_out: bool) -> Tensor:
        """Return the labels of the same images, int64 [N], on the CPU.

        Raises:
            DataError: There are none.
        """
        part = self._parts[held_out]
        require_labels(part, "a score by labels")
        positions = [of_batch for _, of_batch in self._evaluated(count, held_out, self._recipe.evaluation.image_size)]
        return torch.from_numpy(np.asarray(part.labels, dtype=np.int64))[torch.cat(positions)]

    def views(self, count: int) -> Iterable[list[Tensor]]:
        """Return batches of views of held-out images, as methods take them: [V, B, 3, H, W] a resolution."""
        source, recipe = self._parts[True], self._recipe
        batch = min(recipe.train.batch_size, len(source))
        loader = pretraining_loader(
            source,
            ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed),
            batch_size=batch,
            seed=recipe.train.seed,
            start_step=0,
            total_steps=max(1, min(count, len(source)) // batch),
            workers=worker_count(recipe),
        )
        batches = [[group.clone() for group in made.views] for made in loader]
        return _Again(lambda: ([self._shown(group) for group in groups] for groups in batches))

    def _evaluated(self, count: int, held_out: bool, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [B, S, S, 3], and their positions, int64 [B]."""
        part = self.part(count, held_out=held_out)
        loader = evaluation_batches(part, self._recipe, batch_size=_BATCH, size=size)
        return ((images, positions) for images, positions in loader if len(images) > 1)

    def _shown(self, images: Tensor) -> Tensor:
        return normalise(images.to(self.device), self._recipe.data.mean, self._recipe.data.std)


class _Again(Generic[_T]):
    """Batches that can be gone through more than once: in between they stay bytes, a quarter of what they become."""

    def __init__(self, begin: Callable[[], Iterator[_T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[_T]:
        return self._begin()
