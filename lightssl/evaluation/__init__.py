"""What frozen features are worth. One file a task.

Every task is a function ``(features: Features, *, seed: int, **options) -> dict[str, float | int | str]``. It learns
from the training part of the features alone, draws all its randomness from ``seed``, and returns ``"top1"``, the
percentage of test images it names right, next to whatever else is worth writing down.
"""

from lightssl.registry import Registry

EVALUATIONS = Registry(
    "evaluation task",
    {
        "knn": "lightssl.evaluation.knn:knn_accuracy",
        "linear": "lightssl.evaluation.linear:linear_accuracy",
    },
)
