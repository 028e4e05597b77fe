"""What a network has learned. One file a task.

Tasks of frozen features are functions ``(features: Features, *, seed: int, **options) -> dict[str, Any]``. They learn
from the training part of the features alone, draw all their randomness from ``seed``, and return ``"top1"``, the
percentage of test images they name right, next to whatever else is worth writing down: ``others``, top-1 of other
settings by their names, and ``curve``, rows of ``epoch`` and ``top1``, are shown as such.

Tasks that take no labels are functions ``(features: Tensor, views: Tensor, *, seed: int, **options) -> dict[str,
Any]``: features of images and of two views of images, and measures by their names.

Tasks that train on crops of the training images are generators ``(start: Start, images: LabelledImages, narrator:
Narrator, *, seed: int, **options) -> Iterator[FineTuned]``. What they yield says, in the same form, what came out.

Tasks that find objects are functions ``(backbone: Backbone, photographs: Surroundings, narrator: Narrator, title: str,
*, seed: int, **options) -> Detected``, whose result has ``"ap"``, the average precision in percent.
"""

from lightssl.registry import Registry

EVALUATIONS = Registry(
    "evaluation task",
    {
        "knn": "lightssl.evaluation.knn:knn_accuracy",
        "linear": "lightssl.evaluation.linear:linear_accuracy",
        "mlp": "lightssl.evaluation.mlp:mlp_accuracy",
        "logistic": "lightssl.evaluation.logistic:logistic_accuracy",
        "linear_cv": "lightssl.evaluation.linear_cv:linear_cv_accuracy",
        "labelfree": "lightssl.evaluation.labelfree:label_free_measures",
        "linear_augmented": "lightssl.evaluation.linear_augmented:linear_augmented",
        "semi": "lightssl.evaluation.semi:semi",
        "finetune": "lightssl.evaluation.finetune:finetune",
        "detect": "lightssl.evaluation.detect:detect",
        "segment": "lightssl.evaluation.segment:segment",
    },
)
LABEL_FREE = ("labelfree",)  # those that take no labels
FINE_TUNINGS = ("linear_augmented", "semi", "finetune")  # those that run the network on crops of training images
DETECTIONS = ("detect", "segment")  # those that find objects in photographs
DEFAULT_EVALUATIONS = ("knn", "linear")
