"""From photographs with objects in them to what a detector is trained and tested on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightssl.data.coco import CocoImages
from lightssl.data.loader import StepSampler, data_loader, read_image, received, substitute
from lightssl.errors import LightSSLError
from lightssl.types import BadImage


class Photograph(NamedTuple):
    """One image, and what is to be found in it."""

    pixels: Tensor  # uint8 [3, H, W]
    boxes: Tensor  # float32 [N, 4], pixels: left, top, right, bottom
    labels: Tensor  # int64 [N], positions in the classes
    masks: Tensor | None  # uint8 [N, H, W]


class Photographs(NamedTuple):
    """Those of one step."""

    images: list[Photograph]
    bad: list[BadImage]  # met while this batch was made, replaced by other images


def training_photographs(
    images: CocoImages,
    *,
    batch_size: int,
    seed: int,
    total_steps: int,
    masks: bool,
    workers: int = 0,
    start_step: int = 0,
) -> Iterator[Photographs]:
    """Yield the photographs of each step, every other one mirrored.

    Which those are, and whether one is mirrored, depends on the seed, the epoch and the image alone.

    Args:
        images: All of them.
        batch_size: Images in a step.
        seed: Draws order and mirroring.
        total_steps: One past the last step.
        masks: Draw the masks as well.
        workers: Processes that read images; 0 reads them in this one.
        start_step: The first step to yield.

    Raises:
        DataError: A batch cannot be filled; or, while iterating, too many images in a row cannot be used.
    """
    sampler = StepSampler(
        len(images),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        total_steps=total_steps,
        rank=0,
        world_size=1,
    )
    yield from received(data_loader(_Batches(images, seed, masks), workers, seed, sampler=sampler, batch_size=None))


def photographs_in_order(images: CocoImages, *, workers: int = 0) -> Iterator[tuple[int, Tensor | BadImage]]:
    """Yield each image once, uint8 [3, H, W], or why it cannot be used, with its position."""
    yield from enumerate(
        received(data_loader(_Images(images), workers, 0, sampler=range(len(images)), batch_size=None))
    )


class _Batches(Dataset[Any]):
    """Asked for the (epoch, index) pairs of a step, answers with its photographs."""

    def __init__(self, images: CocoImages, seed: int, masks: bool) -> None:
        self._images, self._seed, self._masks = images, seed, masks

    def __getitem__(self, keys: list[tuple[int, int]]) -> Photographs | LightSSLError:
        bad: list[BadImage] = []
        try:
            return Photographs([self._photograph(*key, bad) for key in keys], bad)
        except LightSSLError as error:
            return error

    def _photograph(self, epoch: int, index: int, bad: list[BadImage]) -> Photograph:
        pixels, used = read_image(self._images, index), index
        if isinstance(pixels, BadImage):
            bad.append(pixels)
            pixels, used = substitute(self._images, index, bad)
        boxes, labels, masks = self._images.objects(used, masks=self._masks)
        if np.random.default_rng((self._seed, epoch, index)).random() < 0.5:
            pixels, boxes = pixels[:, ::-1], boxes.copy()
            boxes[:, [0, 2]] = pixels.shape[1] - boxes[:, [2, 0]]
            masks = None if masks is None else masks[:, :, ::-1]
        return Photograph(
            _channels_first(pixels),
            torch.from_numpy(boxes),
            torch.from_numpy(labels),
            None if masks is None else torch.from_numpy(np.ascontiguousarray(masks)),
        )


class _Images(Dataset[Any]):
    """Asked for an index, answers with the image, or why it cannot be used."""

    def __init__(self, images: CocoImages) -> None:
        self._images = images

    def __getitem__(self, index: int) -> Tensor | BadImage:
        pixels = read_image(self._images, index)
        return pixels if isinstance(pixels, BadImage) else _channels_first(pixels)


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
