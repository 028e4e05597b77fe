"""Semi-supervised learning: fine-tuning on few of the labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from annotated_types import Gt, Le, MinLen
from torch.optim import SGD

from lightssl.data.sources import Source, Subset, some_of_each_class
from lightssl.errors import ConfigError, DataError
from lightssl.evaluation.fine_tuning import (
    Course,
    FineTuned,
    LabelledImages,
    Start,
    begin,
    classes_shown,
    describe_course,
    fine_tune,
    require_every_class,
)
from lightssl.progress import Narrator
from lightssl.types import Positive, PositiveInt
from lightssl.views.plan import Scale

_PUBLISHED_BATCH = 1024
_Fraction = Annotated[float, Gt(0), Le(1)]


def semi(
    start: Start,
    images: LabelledImages,
    narrator: Narrator,
    *,
    seed: int = 0,
    labels: Annotated[Sequence[_Fraction], MinLen(1)] = (0.01, 0.1),
    epochs: Annotated[Sequence[PositiveInt], MinLen(1)] = (60, 30),
    images_from: str | None = None,
    batch_size: PositiveInt = 1024,
    learning_rate: Positive = 0.03,
    crop_area: Scale = (0.08, 1.0),
) -> Iterator[FineTuned]:
    """Train the backbone, and the projection head with its last layer replaced, on few labelled images.

    SSLight's protocol (arXiv 2210.02808): SGD with Nesterov momentum .9, no weight decay, the learning rate falling to
    0 along a cosine. Without a projection head, as of imported weights, a linear layer follows the features.

    Args:
        start: Where backbone and head begin.
        images: To draw the labelled ones from, and to test on.
        narrator: Told how it goes.
        seed: Draws the labelled images, the last layer, the order of images and their crops.
        labels: Shares of the training images; of each class as many.
        epochs: Passes over them, one number for each share.
        images_from: A file that names the labelled images instead, one a line, with or without their folders; trained
            on for the first number of ``epochs``.
        batch_size: Images of a step, or all there are.
        learning_rate: At the start, of steps of 1024 images; of smaller ones that much less.
        crop_area: Share of an image that a training crop covers, least and most.

    Yields:
        The classifier after the last epoch on each share. Of its result, ``top1`` is in percent and ``labels`` says how
        many labels there were; the rest says how it was trained.

    Raises:
        ConfigError: ``epochs`` does not fit ``labels``, or the file cannot be read.
        DataError: The file names an image that is not there, or there is none of a class of the test images.
    """
    if images_from is None and len(epochs) != len(labels):
        raise ConfigError(
            f"semi.labels has {len(labels)} shares and semi.epochs {len(epochs)} numbers.",
            "Say for each share how many epochs it is trained: --set 'semi.labels=[0.01]' --set 'semi.epochs=[60]'",
        )
    drawn = (
        [_balanced(images.train, share, seed) for share in labels]
        if images_from is None
        else [_named(images.train, Path(images_from))]
    )
    for source in drawn:  # before the first is trained on
        require_every_class(source, images)
    for source, passes in zip(drawn, epochs, strict=False):
        classifier = begin(start, images, seed=seed)
        course = Course(passes, batch_size, crop_area)
        rate = learning_rate * min(batch_size, len(source)) / _PUBLISHED_BATCH
        title = f"{100 * len(source) / len(images.train):.3g} % of the labels"
        found = fine_tune(
            classifier,
            images,
            source,
            SGD(classifier.parameters(), lr=rate, momentum=0.9, nesterov=True),
            course,
            seed=seed,
            title=f"{start.network}, {title}",
            narrator=narrator,
        )
        trained = {**describe_course(course, source, images.device), "learning_rate": rate}
        yield FineTuned({"labels": title, **found, **trained}, classifier, source)


def _balanced(source: Source, share: float, seed: int) -> Source:
    count, classes = round(share * len(source)), len(classes_shown(source))
    if count < classes:
        raise DataError(
            f"{100 * share:.3g} % of {len(source):,} images are {count}, fewer than the {classes} classes.",
            f"Take a larger share: --set 'semi.labels=[{ceil(100 * classes / len(source)) / 100:g}]' "
            "--set 'semi.epochs=[60]'",
        )
    return some_of_each_class(source, count, seed=seed)


def _named(source: Source, path: Path) -> Source:
    """Find the images that a file names, each by its full name or, where only one has it, by the last part of it."""
    try:
        wanted = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Name a file with one image a line.") from error
    names = [source.item_name(index) for index in range(len(source))]
    known = {**_positions([PurePosixPath(name).name for name in names]), **_positions(names)}
    missing = [name for name in wanted if name not in known]
    if missing or not wanted:
        what = (
            f"{len(missing):,} images of {path} are not among those of {source.name}" if missing else f"{path} is empty"
        )
        raise DataError(
            f"{what}{f', such as {missing[0]!r}' if missing else ''}.",
            f"Name one image a line, as in: {names[0]}",
        )
    return Subset(source, np.unique([known[name] for name in wanted]), source.name)


def _positions(names: Sequence[str]) -> dict[str, int]:
    """Return where each name stands that only one image has."""
    counts = Counter(names)
    return {name: index for index, name in enumerate(names) if counts[name] == 1}
