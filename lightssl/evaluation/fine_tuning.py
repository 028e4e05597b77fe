"""Training a whole network to name images. Each task that does so is one file: ``finetune.py``, ``semi.py``."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lightssl.backbones.base import Backbone
from lightssl.data.loader import evaluation_loader, pretraining_loader, steps_per_epoch
from lightssl.data.sources import Source, names_digest
from lightssl.errors import DataError
from lightssl.evaluation.classifier import Classifier
from lightssl.evaluation.features import extract_features
from lightssl.evaluation.held_out import accuracy
from lightssl.evaluation.training import Training, UnderWay, fingerprint, train
from lightssl.images import normalise
from lightssl.precision import precision_of
from lightssl.progress import Narrator
from lightssl.schedules import warmup_cosine
from lightssl.types import Batch
from lightssl.views.plan import Scale
from lightssl.views.training import TrainingCrop


class Start(NamedTuple):
    """Where a fine-tuning begins; it works on copies."""

    network: str  # what the result calls it
    backbone: Backbone
    head: nn.Sequential | None  # layers before the last one of a projection head, if there is one


class FineTuned(NamedTuple):
    """Where it ended."""

    result: dict[str, Any]  # ready for JSON: ``top1`` in percent and what else is worth writing down
    classifier: Classifier
    trained_on: Source


@dataclass(frozen=True)
class LabelledImages:
    """Images to fine-tune on and to test on, and how a network is fed with them."""

    train: Source  # with labels
    test: Source
    size: int  # pixels of a side
    crop_share: float  # of test images: see :func:`lightssl.data.loader.centre_crop`
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    workers: int = 0
    device: torch.device | str = "cpu"
    under_way: Path | None = None  # folder for the state of trainings, which go on from there


@dataclass(frozen=True)
class Course:
    """How long and how fast. The learning rates of an optimiser rise linearly and fall to 0 along a cosine."""

    epochs: int
    batch_size: int  # or as many images as there are
    area: Scale  # share of an image that a crop covers, least and most
    warmup: float = 0.0  # share of all steps
    label_smoothing: float = 0.0


def fine_tune(
    classifier: Classifier,
    images: LabelledImages,
    trained_on: Source,
    optimizer: Optimizer,
    course: Course,
    *,
    seed: int,
    title: str,
    narrator: Narrator,
    frozen: bool = False,
) -> dict[str, Any]:
    """Train a classifier, and measure it in the end: see :func:`measured`.

    It trains in bfloat16 where the device computes in it, and is measured in float32. See
    :func:`lightssl.evaluation.training.train`.

    Args:
        classifier: Trained in place; it ends on the CPU, in eval mode.
        images: What is known of the images.
        trained_on: Those to train on.
        optimizer: Of its parameters; the learning rates it has are those of the peak.
        course: How long and how fast.
        seed: With the epoch and the image, decides order and crops.
        title: What is said to be under way.
        narrator: Told how it goes.
        frozen: Train the head alone; the backbone stays in eval mode.

    Raises:
        DataError: There are too few images, or too many of them cannot be read.
        LightSSLError: The loss is not finite.
    """
    batch_size = min(course.batch_size, len(trained_on))
    if batch_size < 2:
        raise DataError("There is a single image to fine-tune on.", "Batch norm needs two at least.")
    total = course.epochs * steps_per_epoch(len(trained_on), batch_size)
    labels = torch.from_numpy(np.asarray(trained_on.labels, dtype=np.int64))

    def batches(start_step: int) -> Iterable[Batch]:
        return pretraining_loader(
            trained_on,
            TrainingCrop(images.size, course.area, seed=seed),
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            total_steps=total,
            workers=images.workers,
            pin_memory=torch.device(images.device).type == "cuda",
        )

    def loss(batch: Batch) -> Tensor:
        inputs = normalise(batch.views[0][0].to(images.device, non_blocking=True), images.mean, images.std)
        targets = labels[batch.indices].to(images.device, non_blocking=True)
        return cross_entropy(classifier(inputs), targets, label_smoothing=course.label_smoothing)

    def rate(step: int) -> float:
        warmup = round(course.warmup * total)
        return warmup_cosine(step, total_steps=total, warmup_steps=warmup, warmup_from=0.0, peak=1.0, end=0.0)

    classifier.train()
    if frozen:
        classifier.backbone.eval().requires_grad_(False)
    training = Training(
        classifier,
        [classifier],
        optimizer,
        batches,
        loss,
        rate,
        steps=total,
        batch_size=batch_size,
        images=len(trained_on),
        seed=seed,
        device=images.device,
    )
    kept = None
    if images.under_way is not None:
        what = {
            "images": [trained_on.name, names_digest(trained_on), fingerprint(labels)],
            "pixels": [images.size, images.mean, images.std],
            "course": asdict(course),
        }
        kept = UnderWay(images.under_way, what)
    train(training, f"Fine-tuning, {title}", narrator, kept)
    classifier.eval()
    found = measured(classifier, images)
    left_out = len(images.test) - found["test_images"]
    if left_out:
        narrator.say(f"{left_out:,} of {len(images.test):,} test images cannot be used, and are left out.")
    return found


def measured(classifier: Classifier, images: LabelledImages) -> dict[str, Any]:
    """Return ``top1``, the percentage of test images that a classifier names right, and ``test_images``, how many."""
    shown = evaluation_loader(images.test, size=images.size, crop_share=images.crop_share, workers=images.workers)
    logits, positions = extract_features(classifier, shown, mean=images.mean, std=images.std, device=images.device)
    top1 = accuracy(logits.argmax(dim=1), torch.from_numpy(np.asarray(images.test.labels))[positions])
    return {"top1": top1, "test_images": len(positions)}


def begin(start: Start, images: LabelledImages, *, seed: int) -> Classifier:
    """Copy a start into a classifier, its last layer drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(deepcopy(start.backbone), images.train.classes or [], deepcopy(start.head))


def require_every_class(source: Source, images: LabelledImages) -> None:
    """Refuse to train on images that do not show every class of the test images.

    Raises:
        DataError: A class is missing.
    """
    missing = sorted(set(classes_shown(images.test)) - set(classes_shown(source)))
    if missing:
        names = [(images.train.classes or [])[label] for label in missing]
        raise DataError(
            f"No image to fine-tune on shows {', '.join(map(repr, names[:5]))}"
            f"{f' and {len(names) - 5} more classes' if len(names) > 5 else ''} of the test set.",
            "The test set could never be named right. Give images of every class.",
        )


def classes_shown(source: Source) -> list[int]:
    """Return the labels that at least one image has."""
    labels: list[int] = np.unique(np.asarray(source.labels)).tolist()
    return labels


def describe_course(course: Course, trained_on: Source, device: torch.device | str) -> dict[str, Any]:
    """Return what a result says of how it was trained."""
    return {
        "epochs": course.epochs,
        "batch_size": min(course.batch_size, len(trained_on)),
        "train_images": len(trained_on),
        "crop_area": list(course.area),
        "precision": precision_of(device),
    }
