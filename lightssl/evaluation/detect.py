"""Object detection: boxes, by Faster R-CNN with a feature pyramid."""

from lightssl.backbones.base import Backbone
from lightssl.evaluation.detection import Detected, Schedule, Surroundings, train_detector
from lightssl.evaluation.detector import DetectorOptions
from lightssl.progress import Narrator
from lightssl.types import NonNegativeInt, Positive, PositiveInt


def detect(
    backbone: Backbone,
    photographs: Surroundings,
    narrator: Narrator,
    title: str,
    masks: bool = False,
    *,
    seed: int = 0,
    iterations: PositiveInt = 90_000,
    batch_size: PositiveInt = 16,
    learning_rate: Positive = 0.02,
    warmup: NonNegativeInt = 1_000,
    short_sides: tuple[PositiveInt, PositiveInt] = (640, 800),
    long_side: PositiveInt = 1_333,
    smallest_anchor: PositiveInt = 32,
    width: PositiveInt = 256,
    hidden: PositiveInt = 1_024,
    regions: PositiveInt = 512,
) -> Detected:
    """Train Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) on a backbone, all layers of it, and measure its boxes.

    With ``masks`` it is Mask R-CNN: see :func:`lightssl.evaluation.segment.segment`.

    Defaults are SSLight's on COCO: the 1x schedule, at whose 60,000th and 80,000th of 90,000 steps the learning rate
    falls to a tenth, and batch norm on the statistics of the batch. Steps are at the same shares of a shorter training.

    Args:
        backbone: Where it begins; a copy is trained.
        photographs: To train on and to test on.
        narrator: Told how it goes.
        title: What is said to be under way.
        masks: Find outlines as well.
        seed: Draws new layers, the order of images, and the regions that a step looks at.
        iterations: Steps.
        batch_size: Images of a step, or as many as there are.
        learning_rate: Of SGD, for this batch.
        warmup: Steps in which it rises.
        short_sides: Pixels that the short side of an image is scaled to, least and most; the most when tested.
        long_side: Pixels of the long side at most.
        smallest_anchor: Side in pixels of the smallest of the boxes that proposals start from.
        width: Channels of the feature pyramid.
        hidden: Width of the layers that classify a region.
        regions: Of an image, that a step looks at.
    """
    options = DetectorOptions(masks, short_sides, long_side, smallest_anchor, width, hidden, regions)
    schedule = Schedule(iterations, batch_size, learning_rate, warmup)
    return train_detector(backbone, photographs, options, schedule, seed=seed, title=title, narrator=narrator)
