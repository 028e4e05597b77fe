"""A linear classifier on a frozen network that sees other crops of the training images in every epoch."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightssl.backbones.base import Backbone, Stage
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
from lightssl.optim import LARS
from lightssl.progress import Narrator
from lightssl.types import Positive, PositiveInt
from lightssl.views.plan import Scale

_RATE_OF = 256  # images in a step that a learning rate is given for


class LinearFeatures(Backbone):
    """What published linear evaluations look at, as the features of a backbone: see :meth:`Backbone.linear_features`.

    Args:
        backbone: Used as it is, not copied.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_width = backbone.linear_blocks * backbone.feature_width
        self.stages: tuple[Stage, ...] = backbone.stages
        self.smallest_image = backbone.smallest_image

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to features [B, D]."""
        return self.backbone.linear_features(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return those of the backbone."""
        return self.backbone.feature_maps(images)


def linear_augmented(
    start: Start,
    images: LabelledImages,
    narrator: Narrator,
    *,
    seed: int = 0,
    epochs: PositiveInt = 100,
    batch_size: PositiveInt | None = None,
    learning_rate: Positive | None = None,
    crop_area: Scale = (0.08, 1.0),
) -> Iterator[FineTuned]:
    """Train a linear layer by SSLight's protocol (arXiv 2210.02808): random crops, mirrored half of the time.

    On the features of convolutional networks, LARS with a learning rate of .05 and steps of 4096 images; on the class
    tokens of the last four blocks of transformers, SGD with .01 and steps of 1024. No weight decay, momentum .9; the
    learning rate falls to 0 along a cosine. The released code reports its best epoch on the test images; here it is
    the last.

    Args:
        start: The network, which stays as it is.
        images: To train on and to test on.
        narrator: Told how it goes.
        seed: Draws the start of the layer, the order of images and their crops.
        epochs: Passes over the training images.
        batch_size: Images of a step, or all there are; by default as published.
        learning_rate: At the start, of steps of 256 images; of larger ones that much more. By default as published.
        crop_area: Share of an image that a training crop covers, least and most.

    Yields:
        The classifier after the last epoch. Of its result, ``top1`` is in percent; the rest says how it was trained.

    Raises:
        DataError: No training image shows a class of the test images.
    """
    require_every_class(images.train, images)
    convolutional = start.backbone.linear_blocks == 1
    batch_size = min(batch_size or (4096 if convolutional else 1024), len(images.train))
    learning_rate = learning_rate or (0.05 if convolutional else 0.01)
    features = LinearFeatures(start.backbone)
    classifier = begin(Start(start.network, features, None), images, seed=seed)
    rate = learning_rate * batch_size / _RATE_OF
    course = Course(epochs, batch_size, crop_area)
    found = fine_tune(
        classifier,
        images,
        images.train,
        _optimizer(classifier.head, rate, lars=convolutional),
        course,
        seed=seed,
        title=f"{start.network}, linear layer",
        narrator=narrator,
        frozen=True,
    )
    trained = {**describe_course(course, images.train, images.device), "learning_rate": rate}
    yield FineTuned({**found, **trained}, classifier, images.train)


def _optimizer(head: nn.Module, rate: float, *, lars: bool) -> Optimizer:
    if not lars:
        return SGD(head.parameters(), lr=rate, momentum=0.9)
    weights = [p for p in head.parameters() if p.ndim > 1]
    biases = [p for p in head.parameters() if p.ndim <= 1]
    return LARS([{"params": weights, "lr": rate}, {"params": biases, "lr": rate, "adapt": False}])
