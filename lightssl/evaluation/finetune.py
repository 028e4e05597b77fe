"""Fine-tuning on all labels, to a classifier that can be shipped."""

from collections.abc import Iterator

from torch.optim import AdamW

from lightssl.evaluation.classifier import layerwise_groups
from lightssl.evaluation.fine_tuning import (
    Course,
    FineTuned,
    LabelledImages,
    Start,
    begin,
    describe_course,
    fine_tune,
    require_every_class,
)
from lightssl.progress import Narrator
from lightssl.types import NonNegative, Positive, PositiveInt, Share
from lightssl.views.plan import Scale


def finetune(
    start: Start,
    images: LabelledImages,
    narrator: Narrator,
    *,
    seed: int = 0,
    epochs: PositiveInt = 30,
    batch_size: PositiveInt = 256,
    learning_rate: Positive = 1e-3,
    first_layer_rate: Share = 0.1,
    weight_decay: NonNegative = 0.05,
    warmup: Share = 0.1,
    label_smoothing: Share = 0.1,
    crop_area: Scale = (0.08, 1.0),
) -> Iterator[FineTuned]:
    """Train the backbone and a linear layer on its features, early layers slower than late ones.

    AdamW; the learning rate rises linearly and falls to 0 along a cosine. A common recipe, of no one paper.

    Args:
        start: Where the backbone begins. Layers of a projection head are not used: a linear layer ships lighter.
        images: To train on and to test on.
        narrator: Told how it goes.
        seed: Draws the last layer, the order of images and their crops.
        epochs: Passes over the training images.
        batch_size: Images of a step.
        learning_rate: Of the last layer, at its peak.
        first_layer_rate: Share of it at which the first layer learns; those in between follow a geometric series.
        weight_decay: Of AdamW; none on biases and on what normalises.
        warmup: Share of all steps in which the learning rate rises.
        label_smoothing: Share of each target that is spread over all classes.
        crop_area: Share of an image that a training crop covers, least and most.

    Yields:
        The classifier after the last epoch. Of its result, ``top1`` is in percent; the rest says how it was trained.

    Raises:
        DataError: No training image shows a class of the test images.
    """
    require_every_class(images.train, images)
    classifier = begin(start._replace(head=None), images, seed=seed)
    course = Course(epochs, batch_size, crop_area, warmup, label_smoothing)
    groups = layerwise_groups(classifier, rate=learning_rate, first=first_layer_rate)
    found = fine_tune(
        classifier,
        images,
        images.train,
        AdamW(groups, weight_decay=weight_decay, fused=True),
        course,
        seed=seed,
        title=start.network,
        narrator=narrator,
    )
    trained = {**describe_course(course, images.train, images.device), "learning_rate": learning_rate}
    yield FineTuned({**found, **trained}, classifier, images.train)
