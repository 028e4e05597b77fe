"""Instance segmentation: boxes and masks, by Mask R-CNN with a feature pyramid."""

from functools import wraps
from typing import Any

from lightssl.backbones.base import Backbone
from lightssl.evaluation.detect import detect
from lightssl.evaluation.detection import Detected, Surroundings
from lightssl.progress import Narrator


@wraps(detect, assigned=("__annotations__",))  # whose options it has
def segment(backbone: Backbone, photographs: Surroundings, narrator: Narrator, title: str, **options: Any) -> Detected:
    """Train Mask R-CNN (He et al. 2017, arXiv 1703.06870) on a backbone, and measure its masks.

    All else is as in :func:`lightssl.evaluation.detect.detect`: the boxes are found in the same way, and of the result
    ``box_ap`` is theirs.
    """
    return detect(backbone, photographs, narrator, title, True, **options)
