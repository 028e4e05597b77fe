"""Training a network to find objects. Each task that does so is one file: ``detect.py``, ``segment.py``."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim import SGD

from lightssl.backbones.base import Backbone
from lightssl.data.coco import CocoImages
from lightssl.data.coco_loader import Photograph, Photographs, photographs_in_order, training_photographs
from lightssl.data.loader import clear_worker_errors
from lightssl.data.sources import names_digest
from lightssl.errors import DataError
from lightssl.evaluation.average_precision import Detections, average_precision
from lightssl.evaluation.detector import Detector, DetectorOptions
from lightssl.evaluation.training import Training, UnderWay, fingerprint, train
from lightssl.precision import precision_of
from lightssl.progress import Narrator
from lightssl.schedules import warmup_steps_down
from lightssl.types import BadImage

_MOMENTUM, _WEIGHT_DECAY = 0.9, 1e-4
_MILESTONES = (2 / 3, 8 / 9)  # shares of the training from which the learning rate is a tenth: 60k, 80k of 90k
_WARMUP_FROM = 0.001  # of the learning rate
_SURE = 0.5  # of a pixel that belongs to an object


@dataclass(frozen=True)
class Surroundings:
    """Photographs to train on and to test on, and how a network is fed with them."""

    train: CocoImages
    test: CocoImages
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    workers: int = 0
    device: torch.device | str = "cpu"
    under_way: Path | None = None  # folder for the state of trainings, which go on from there


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    iterations: int
    batch_size: int
    learning_rate: float
    warmup: int  # iterations in which it rises

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, as a share of the full one."""
        return warmup_steps_down(
            step,
            total_steps=self.iterations,
            warmup_steps=self.warmup,
            warmup_from=_WARMUP_FROM,
            peak=1.0,
            milestones=_MILESTONES,
        )


class Detected(NamedTuple):
    """Where a training ended."""

    result: dict[str, Any]  # ready for JSON: ``ap`` in percent and what else is worth writing down
    detector: Detector
    found: list[Detections]  # in each test image


def train_detector(
    backbone: Backbone,
    photographs: Surroundings,
    options: DetectorOptions,
    schedule: Schedule,
    *,
    seed: int,
    title: str,
    narrator: Narrator,
) -> Detected:
    """Train a detector on a copy of a backbone, all layers of it, and measure it on the test images in the end.

    It trains in bfloat16 where the device computes in it, but for coordinates and losses, and is measured in float32.

    Args:
        backbone: Where it begins.
        photographs: What is known of the images.
        options: What the detector is like.
        schedule: How long and how fast.
        seed: Draws its other layers, the order of images, and what a step looks at.
        title: What is said to be under way.
        narrator: Told how it goes.

    Raises:
        DataError: There are too few images, or too many of them cannot be read.
        LightSSLError: The loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector(
            deepcopy(backbone),
            photographs.train.class_names,
            mean=photographs.mean,
            std=photographs.std,
            options=options,
        )
    _train(detector, photographs, schedule, seed=seed, title=title, narrator=narrator)
    found, unusable = find_objects(detector, photographs, title=title, narrator=narrator)
    result = {
        **average_precision(photographs.test, found, masks=options.masks),
        **({"box_ap": average_precision(photographs.test, found)["ap"]} if options.masks else {}),
        "iterations": schedule.iterations,
        "batch_size": min(schedule.batch_size, len(photographs.train.with_objects())),
        "learning_rate": schedule.learning_rate,
        "precision": precision_of(photographs.device),
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "train_images": len(photographs.train),
        "test_images": len(photographs.test),
        **({"unusable_test_images": unusable} if unusable else {}),  # whose objects count as missed
    }
    return Detected(result, detector, found)


def _train(
    detector: Detector, photographs: Surroundings, schedule: Schedule, *, seed: int, title: str, narrator: Narrator
) -> None:
    images, device = photographs.train.with_objects(), photographs.device
    batch_size = min(schedule.batch_size, len(images))
    if batch_size < 2:
        raise DataError("There is a single image to learn from.", "Batch norm needs two at least.")

    def batches(start_step: int) -> Iterator[Photographs]:
        return training_photographs(
            images,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            total_steps=schedule.iterations,
            masks=detector.options.masks,
            workers=photographs.workers,
        )

    def loss(batch: Photographs) -> torch.Tensor:
        losses = detector.losses([_moved(one, device) for one in batch.images])
        return torch.stack(list(losses.values())).sum()

    training = Training(
        detector.train(),
        detector.costly_parts,
        SGD(detector.parameters(), lr=schedule.learning_rate, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY),
        batches,
        loss,
        schedule.rate,
        steps=schedule.iterations,
        batch_size=batch_size,
        images=len(images),
        seed=seed,
        device=device,
    )
    kept = None
    if photographs.under_way is not None:
        numbers = [images.sizes, images.starts, images.boxes, images.box_labels, images.areas, images.crowds]
        masks = (images.masks or []) if detector.options.masks else []
        codes = [one if isinstance(one, bytes) else fingerprint(*one).encode() for one in masks]
        what = {
            "images": [images.name, names_digest(images), fingerprint(*numbers, *codes)],
            "pixels": [photographs.mean, photographs.std],
            "schedule": asdict(schedule),
            "detector": asdict(detector.options),
        }
        kept = UnderWay(photographs.under_way, what)
    train(training, f"Learning to find objects, {title}", narrator, kept)


def find_objects(
    detector: Detector, photographs: Surroundings, *, title: str, narrator: Narrator
) -> tuple[list[Detections], int]:
    """Return what a detector finds in each test image, nothing in one that cannot be used, and how many those are."""
    detector.to(photographs.device).eval()
    found: list[Detections] = []
    total, bad = len(photographs.test), 0
    with narrator.work(f"Finding objects, {title}", total) as bar, torch.inference_mode(), clear_worker_errors():
        for index, pixels in photographs_in_order(photographs.test, workers=photographs.workers):
            if isinstance(pixels, BadImage):
                bad += 1
                found.append(Detections(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0), []))
            else:
                found.append(_found(detector, pixels.to(photographs.device)))
            bar(index + 1)
    if bad:
        narrator.say(f"{bad:,} test images could not be used: nothing was found in them.")
    detector.to("cpu")
    return found, bad


def _found(detector: Detector, pixels: torch.Tensor) -> Detections:
    boxes, labels, scores, masks = detector(pixels / 255)
    codes = None
    if masks is not None:
        from pycocotools import mask as coder

        drawn = (masks >= _SURE).to("cpu", torch.uint8).numpy()
        codes = [coder.encode(np.asfortranarray(one)) for one in drawn]
    return Detections(boxes.cpu().numpy(), labels.cpu().numpy(), scores.cpu().numpy(), codes)


def _moved(photograph: Photograph, device: torch.device | str) -> Photograph:
    parts: list[Any] = [None if part is None else part.to(device, non_blocking=True) for part in photograph]
    return Photograph(*parts)
