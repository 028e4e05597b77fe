"""What frozen features are worth. One file a task.

Every task is a function ``(features: Features, *, seed: int, **options) -> dict[str, Any]``. It learns
from the training part of the features alone, draws all its randomness from ``seed``, and returns ``"top1"``, the
percentage of test images it names right, next to whatever else is worth writing down: ``others``, top-1 of other
settings by their names, and ``curve``, rows of ``epoch`` and ``top1``, are shown as such.
"""

from lightssl.registry import Registry

EVALUATIONS = Registry(
    "evaluation task",
    {
        "knn": "lightssl.evaluation.knn:knn_accuracy",
        "linear": "lightssl.evaluation.linear:linear_accuracy",
        "mlp": "lightssl.evaluation.mlp:mlp_accuracy",
        "logistic": "lightssl.evaluation.logistic:logistic_accuracy",
    },
)
DEFAULT_EVALUATIONS = ("knn", "linear")
