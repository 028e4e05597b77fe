"""From a source of images to batches: for pre-training, and for evaluation.

Which images are in the batch of a step is a function of (seed, step) alone, and what replaces a bad image is a function
of its index. Any number of workers or processes, and a resumed run, therefore see the same batches.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, cycle
from math import prod
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightssl.data.buffers import batch_buffers
from lightssl.data.decode import UndecodableImage, decode
from lightssl.data.sources import Source
from lightssl.errors import DataError, LightSSLError
from lightssl.files import append_json_lines, read_json_lines
from lightssl.types import BadImage, Batch


class MakeViews(Protocol):
    """Draws the views of an image, at random by epoch and index alone. Copied into every worker."""

    @property
    def shapes(self) -> Sequence[tuple[int, int, int, int]]:
        """Of one image's views, [V, h, w, 3] a resolution."""

    @property
    def largest_shapes(self) -> Sequence[tuple[int, int, int, int]]:
        """Those into which the views of every step fit."""

    def at(self, step: int, total_steps: int) -> "MakeViews":
        """Return what draws the views of one step."""

    def reduction(self, height: int, width: int, epoch: int, index: int) -> int:
        """Return by how much the sides of an image may be divided before its views are drawn."""

    def left_to_do(self, epoch: int, index: int) -> Sequence[Sequence[float]]:
        """Return for each view the numbers of what the device has still to do with it; empty if that is nothing."""

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: Sequence[np.ndarray]) -> object:
        """Draw the views of an image, uint8 [H, W, 3], into ``out``, uint8 arrays of :attr:`shapes`."""


CROP_SHARE = 224 / 256  # as ImageNet is evaluated
_SUBSTITUTES = 20  # images tried in place of a bad one before the data is called unusable
_PREFETCH = 2  # batches that a worker makes in advance
# Of evaluation batches: with more pixels, each layer waits for memory.
_SMALLEST_BATCH, _LARGEST_BATCH, _BATCH_PIXELS = 16, 256, 2**21
_JUDGED_FROM = 200  # images; of fewer, a share says little


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return how many whole batches one pass over the images makes; the rest of a pass is dropped.

    Args:
        images: Images in the source.
        batch_size: Images in one step over all processes.

    Raises:
        DataError: Not even one batch can be filled.
    """
    if images < batch_size:
        raise DataError(
            f"A batch of {batch_size:,} images cannot be filled from {images:,}.",
            f"Use more images, or a smaller batch: --set train.batch_size={max(1, 2 ** (images.bit_length() - 1))}",
        )
    return images // batch_size


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields, for each step from ``start_step`` on, this process's part of the global batch as (epoch, index) pairs.

    Step s of epoch e takes images ``[k * G, (k + 1) * G)`` of the permutation drawn from (seed, e), where G is the
    global batch and k = s mod steps per epoch; process r of W takes the r-th of W equal slices.

    Raises:
        DataError: The batch is larger than the data, or cannot be split evenly over the processes.
    """

    def __init__(
        self, images: int, *, batch_size: int, seed: int, start_step: int, total_steps: int, rank: int, world_size: int
    ) -> None:
        if batch_size % world_size:
            raise DataError(
                f"A batch of {batch_size} images cannot be split evenly over {world_size} processes.",
                f"Make it a multiple: --set train.batch_size={-(-batch_size // world_size) * world_size}",
            )
        self.steps_per_epoch = steps_per_epoch(images, batch_size)
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.start_step, self.total_steps = start_step, total_steps
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world_size
        drawn, order = -1, np.empty(0, np.int64)
        for step in range(self.start_step, self.total_steps):
            epoch, k = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                drawn, order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.images)
            first = k * self.batch_size + self.rank * share
            yield [(epoch, index) for index in order[first : first + share].tolist()]

    def __len__(self) -> int:
        return max(0, self.total_steps - self.start_step)


class PretrainingLoader:
    """Iterates over :class:`lightssl.types.Batch`, one a step. Made by :func:`pretraining_loader`.

    The views of a batch are there until the next batch is asked for: their memory is then used again.
    """

    def __init__(self, batches: DataLoader[Any], made: "ViewBatches", pin_memory: bool) -> None:
        self._batches, self._made, self._pin_memory = batches, made, pin_memory

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for slot, step, indices, bad, rows in received(self._batches):
            views = self._made.room(slot, self._made.maker(step))
            left = torch.from_numpy(rows).transpose(0, 1).split([len(group) for group in views]) if rows.size else ()
            batch = Batch(views, torch.tensor(indices), bad, list(left))
            yield batch.pin_memory() if self._pin_memory else batch


def pretraining_loader(
    source: Source,
    make_views: MakeViews,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> PretrainingLoader:
    """Build the loader of a pre-training run.

    An image that cannot be decoded is replaced by another one, chosen from its index, and listed in ``Batch.bad``.

    Args:
        source: The images.
        make_views: Draws the views of one image.
        batch_size: Images in one step over all processes.
        seed: With the epoch, decides the order of the images.
        start_step: The first step to yield, which is how a run resumes.
        total_steps: One past the last step.
        rank: Which process this is.
        world_size: How many processes share each batch.
        workers: Worker processes; 0 prepares the batches in this process.
        pin_memory: Move batches to page-locked memory, for a CUDA device.

    Raises:
        DataError: At once, when the batch does not fit the data or the processes; while iterating, when so many images
            are bad that no substitute is found, or when a worker was killed.
    """
    sampler = StepSampler(
        len(source),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        total_steps=total_steps,
        rank=rank,
        world_size=world_size,
    )
    # While one batch is used, every worker may be making as many as it is asked for in advance.
    slots = 1 + workers * _PREFETCH
    made = ViewBatches(
        source, make_views, images=batch_size // world_size, slots=slots, shared=workers > 0, total_steps=total_steps
    )
    batches = data_loader(made, workers, seed, sampler=_Slots(sampler, slots), batch_size=None)
    return PretrainingLoader(batches, made, pin_memory)


class EvaluationLoader:
    """Iterates over (uint8 [B, size, size, 3], int64 [B] positions in the source), in the order of the source.

    Images that cannot be decoded are left out, and listed in ``bad``. Made by :func:`evaluation_loader`.
    """

    def __init__(self, source: Source, batches: DataLoader[Any]) -> None:
        self.bad: list[BadImage] = []
        self._source, self._batches = source, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.bad = []
        for images, indices, bad in received(self._batches):
            self.bad += bad
            if len(indices):
                yield images, indices
        if len(self.bad) == len(self._source):
            raise DataError(
                f"None of the {len(self.bad):,} images of {self._source.name} can be used.", _some(self.bad)
            )


def evaluation_loader(
    source: Source,
    *,
    size: int,
    crop_share: float = CROP_SHARE,
    batch_size: int | None = None,
    workers: int = 0,
) -> EvaluationLoader:
    """Build a loader that passes once over the images, resized and cut to their centre.

    Args:
        source: The images.
        size: Side of the crop, in pixels.
        crop_share: Side of the crop over the short side of the resized image, above 0.
        batch_size: Images in a batch; the last one may hold fewer, and so may one with bad images. By default as many
            as a CPU works on without moving much memory.
        workers: Worker processes; 0 prepares the batches in this process, and so do images that need no decoding:
            those are cut in less time than another process takes to hand them over.
    """
    batch_size = batch_size or min(_LARGEST_BATCH, max(_SMALLEST_BATCH, _BATCH_PIXELS // size**2))
    workers = 0 if _is_decoded(source) else workers
    order = [range(first, min(first + batch_size, len(source))) for first in range(0, len(source), batch_size)]
    return EvaluationLoader(
        source, data_loader(_CentreCrops(source, size, crop_share), workers, 0, batch_sampler=order)
    )


def centre_crop(image: np.ndarray, size: int, crop_share: float = CROP_SHARE) -> np.ndarray:
    """Resize the short side to ``size / crop_share`` and cut out the centre: uint8 [H, W, 3] -> [size, size, 3]."""
    height, width = image.shape[:2]
    ratio = round(size / crop_share) / min(height, width)
    height, width = max(size, round(height * ratio)), max(size, round(width * ratio))
    # Averaging areas is free of aliasing when pixels are merged, and blocky when they are split.
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


class BadImages:
    """Counts the images of a run that could not be used, each once, and stops a run that has too many.

    Args:
        images: Images in the source; a second pass over them does not dilute the share.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.seen = 0
        self._bad: dict[int, BadImage] = {}
        self._unwritten: list[BadImage] = []

    def __len__(self) -> int:
        return len(self._bad)

    def __iter__(self) -> Iterator[BadImage]:
        return iter(self._bad.values())

    def add(self, bad: Iterable[BadImage], *, seen: int) -> None:
        """Count one batch: its bad images, and how many images it asked for."""
        self.seen = min(self.images, self.seen + seen)
        for image in bad:
            if image.index not in self._bad:
                self._bad[image.index] = image
                self._unwritten.append(image)

    def check(self, max_share: float) -> None:
        """Stop a run with too many bad images.

        Args:
            max_share: Largest share of the images seen that is put up with, 0 to 1. At the beginning as many are put up
                with as among a few hundred images, or the first bad one would stop any run.

        Raises:
            DataError: There are more.
        """
        if len(self) <= max_share * max(self.seen, min(_JUDGED_FROM, self.images)):
            return
        share = len(self) / self.seen
        raise DataError(
            f"{len(self):,} of the first {self.seen:,} images could not be used (limit {100 * max_share:.3g} %):",
            f"{_some(list(self))}\nThe run's skipped.jsonl lists them. Mend or remove them, or allow "
            f"more: --set data.max_bad_share={min(1.0, 1.5 * share):.2g}",
        )

    def write(self, path: Path) -> None:
        """Append the images met since the last call to a file of JSON lines, unless the file has them already."""
        if self._unwritten:
            listed = {row["index"] for row in read_json_lines(path)}
            append_json_lines(path, [image._asdict() for image in self._unwritten if image.index not in listed])
            self._unwritten = []


@contextmanager
def clear_worker_errors() -> Iterator[None]:
    """Turn torch's report that a worker died into a DataError that says what to do.

    Torch raises it from a signal handler, at any place of the main thread: wrap the loop, not only the loader.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "A worker process that prepares images was killed.",
            "Most often memory ran out. Use fewer workers: --set data.workers=0",
        ) from error


def read_image(source: Source, index: int, reduction: Callable[[int, int], int] | None = None) -> np.ndarray | BadImage:
    """Read and decode one image, uint8 [H, W, 3], or say why it cannot be used."""
    try:
        return decode(source.read(index), reduction=reduction)
    except UndecodableImage as error:
        reason = error.reason
    except OSError as error:  # gone, or not readable, since the source was listed
        reason = f"cannot be read: {error.strerror or error}"
    return BadImage(index, source.item_name(index), reason)


def _is_decoded(source: Source) -> bool:
    try:
        return len(source) > 0 and isinstance(source.read(0), np.ndarray)
    except (OSError, LightSSLError):  # whoever needs this image will say so
        return False


def substitute(
    source: Source, index: int, bad: list[BadImage], reduction: Callable[[int, int], int] | None = None
) -> tuple[np.ndarray, int]:
    """Read another image, chosen by the index of a bad one.

    Args:
        source: The images.
        index: Of the bad one.
        bad: Bad images met on the way are added.
        reduction: As in :func:`lightssl.data.decode.decode`.

    Returns:
        The image, and its index.

    Raises:
        DataError: None of those tried can be used.
    """
    # Drawn at random and not next in order: damage comes in runs, as when a copy stopped half-way.
    for candidate in np.random.default_rng(index).integers(len(source), size=_SUBSTITUTES).tolist():
        image = read_image(source, candidate, reduction)
        if not isinstance(image, BadImage):
            return image, candidate
        bad.append(image)
    raise DataError(f"Of {len(bad)} images of {source.name} tried in a row, none could be used.", _some(bad))


class _Slots(Sampler[tuple[int, int, list[tuple[int, int]]]]):
    """Says for each batch of a sampler which buffer it is made in, and of which step it is."""

    def __init__(self, sampler: StepSampler, slots: int) -> None:
        self._sampler, self._slots = sampler, slots

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        return zip(cycle(range(self._slots)), count(self._sampler.start_step), self._sampler, strict=False)


class ViewBatches(Dataset[Any]):
    """Asked for the (epoch, index) pairs of a step, makes their views in a buffer, and answers with all the rest.

    That is (slot of the buffer, step, positions of the images in the source, bad images met, float32 [B, V, 16] of
    :meth:`MakeViews.left_to_do` or nothing).

    Args:
        source: The images.
        make_views: Draws the views of one image.
        images: In a batch.
        slots: How many batches there are at a time.
        shared: Whether processes that are started from this one make them.
        total_steps: Of the training.
    """

    def __init__(
        self, source: Source, make_views: MakeViews, *, images: int, slots: int, shared: bool, total_steps: int
    ) -> None:
        self._source, self._make_views, self._images, self._total_steps = source, make_views, images, total_steps
        largest = [(views, images, *pixels) for views, *pixels in make_views.largest_shapes]
        self._buffers = batch_buffers(largest, slots=slots, shared=shared)

    def maker(self, step: int) -> MakeViews:
        """Return what draws the views of a step."""
        return self._make_views.at(step, self._total_steps)

    def room(self, slot: int, make_views: MakeViews) -> list[Tensor]:
        """Return the part of a buffer that views are drawn in, uint8 [V, B, h, w, 3] a resolution."""
        shapes = [(views, self._images, *pixels) for views, *pixels in make_views.shapes]
        return [
            buffer.view(-1)[: prod(shape)].view(shape)
            for buffer, shape in zip(self._buffers[slot], shapes, strict=True)
        ]

    def __getitem__(
        self, batch: tuple[int, int, list[tuple[int, int]]]
    ) -> tuple[int, int, list[int], list[BadImage], np.ndarray] | LightSSLError:
        slot, step, keys = batch
        make_views = self.maker(step)
        try:
            groups = [group.numpy() for group in self.room(slot, make_views)]
            return slot, step, *self._make(keys, make_views, groups)
        except LightSSLError as error:
            return error

    def _make(
        self, keys: Sequence[tuple[int, int]], make_views: MakeViews, groups: Sequence[np.ndarray]
    ) -> tuple[list[int], list[BadImage], np.ndarray]:
        indices, bad, left = [], [], []
        for position, (epoch, index) in enumerate(keys):
            # Keyed by the index that was asked for: a substitute drawn twice into a batch still gives different views.
            reduction = partial(make_views.reduction, epoch=epoch, index=index)
            image, used = read_image(self._source, index, reduction), index
            if isinstance(image, BadImage):
                tried = [image]
                image, used = substitute(self._source, index, tried, reduction)
                bad += tried
            make_views(image, epoch, index, [group[:, position] for group in groups])
            indices.append(used)
            left.append(make_views.left_to_do(epoch, index))
        return indices, bad, np.array(left, np.float32)


class _CentreCrops(Dataset[Any]):
    """Asked for some indices, answers with (images uint8 [B, size, size, 3], indices int64 [B], bad images)."""

    def __init__(self, source: Source, size: int, crop_share: float) -> None:
        self._source, self._size, self._crop_share = source, size, crop_share

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, list[BadImage]] | LightSSLError:
        crops, used, bad = [], [], []
        try:
            for index in indices:
                image = read_image(self._source, index)
                if isinstance(image, BadImage):
                    bad.append(image)
                else:
                    crops.append(centre_crop(image, self._size, self._crop_share))
                    used.append(index)
        except LightSSLError as error:
            return error
        images = np.stack(crops) if crops else np.empty((0, self._size, self._size, 3), np.uint8)
        return torch.from_numpy(images), torch.tensor(used, dtype=torch.int64), bad


def data_loader(dataset: Dataset[Any], workers: int, seed: int, **batches: Any) -> DataLoader[Any]:
    """Build torch's loader of a data set that makes whole batches, with workers that disturb nothing."""
    return DataLoader(
        dataset,
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        # Forked workers share the source's index with this process instead of each loading a copy.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # A generator of its own: otherwise every loader draws from torch's global one, and a resumed run would differ.
        generator=torch.Generator().manual_seed(seed),
        **batches,
    )


def received(batches: DataLoader[Any]) -> Iterator[Any]:
    """Yield what the workers made. Their LightSSLErrors come as values, for torch would bury them in a traceback."""
    iterator = iter(batches)
    try:
        while True:
            with clear_worker_errors():
                batch = next(iterator, None)
            if batch is None:
                return
            if isinstance(batch, LightSSLError):
                raise batch
            yield batch
    finally:
        del iterator  # Ends the workers now: the traceback of an error would keep them, and a later fork inherit them.


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    # A terminal sends Ctrl-C to every process; the training one decides when to stop, and needs its workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One core a worker: the workers themselves are the parallelism.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # libjpeg and libtiff print every oddity of a file straight to descriptor 2, across the progress display. What
    # Python has to say still gets through.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _some(bad: Sequence[BadImage]) -> str:
    lines = [f"  {image.name}: {image.reason}" for image in bad[:3]]
    return "\n".join(lines + ([f"  and {len(bad) - 3:,} more"] if len(bad) > 3 else []))
