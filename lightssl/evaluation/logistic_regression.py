"""Multinomial logistic regression, solved for several weight decays at once.

The problem is convex, so that no learning rate has to be chosen. Its Hessian is bounded by that of a least-squares
problem (Boehning 1992, Annals of the Institute of Statistical Mathematics 44), which is diagonal in the principal axes
of the features: there, a gradient step of its own length for each axis needs no line search. Steps are accelerated with
restarts (O'Donoghue and Candes 2015, arXiv 1204.3982). All weight decays share each pass over the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightssl.evaluation.minibatches import Standardised

TOLERANCE = 1e-3  # length of a last step, as the bound measures it; half of it moved top-1 by .2 points at most
MAX_STEPS = 1000
_ROWS = 8192  # features in work at a time


@dataclass(frozen=True)
class LinearClassifier:
    """Names features by the largest of ``features @ weight.T + bias``."""

    weight: Tensor  # float32 [C, D]
    bias: Tensor  # float32 [C]

    def predict(self, features: Tensor) -> Tensor:
        """Return classes, int64 ``[N]``, of features, float32 ``[N, D]``."""
        return torch.addmm(self.bias, features, self.weight.T).argmax(dim=1)


def fit_classifiers(
    features: Tensor, labels: Tensor, classes: int, weight_decays: Sequence[float]
) -> list[LinearClassifier]:
    """Minimise the mean cross entropy plus ``weight_decay / 2 * |W|^2`` for each weight decay.

    Features are standardised first, each dimension to mean 0 and standard deviation 1; the classifiers take them as
    they are. Biases do not decay.

    Args:
        features: float32 ``[N, D]``.
        labels: int64 ``[N]``, below ``classes``.
        classes: C.
        weight_decays: Above 0.

    Returns:
        A classifier for each weight decay.
    """
    standardised = Standardised.of(features)
    x = standardised(features)
    variances, axes = _principal_axes(x)
    x = torch.cat([x @ axes, x.new_ones(len(x), 1)], dim=1)  # a last coordinate of 1 stands for the bias
    curvature = torch.cat([variances, variances.new_ones(1)])[:, None, None] / 2
    decay = features.new_tensor(weight_decays)[None, :, None].repeat(len(curvature), 1, 1)
    decay[-1] = 0
    w = _minimise(x, labels, classes, decay, step=1 / (curvature + decay))
    weight = torch.einsum("d,da,asc->scd", standardised.scale, axes, w[:-1])
    bias = w[-1] - weight @ standardised.mean
    return [LinearClassifier(*pair) for pair in zip(weight, bias, strict=True)]


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances along the principal axes of centred features, [D], and the axes in columns, [D, D]."""
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(_ROWS):
        covariance += rows.double().T @ rows.double() / len(x)
    variances, axes = torch.linalg.eigh(covariance)
    return variances.clamp(min=0).to(x.dtype), axes.to(x.dtype)


def _minimise(x: Tensor, labels: Tensor, classes: int, decay: Tensor, *, step: Tensor) -> Tensor:
    """Return weights [A, S, C] for coordinates x [N, A] and S settings; decay and step are [A, S, 1]."""
    w = x.new_zeros(*decay.shape[:2], classes)
    ahead, age = w, torch.ones_like(decay[:1])
    for _ in range(MAX_STEPS):
        gradient = _gradient(x, labels, ahead) + decay * ahead
        after = ahead - step * gradient
        if bool(((step * gradient.square()).sum(dim=(0, 2)) < TOLERANCE**2).all()):
            return after
        restart = (gradient * (after - w)).sum(dim=(0, 2), keepdim=True) > 0
        older = (1 + (1 + 4 * age.square()).sqrt()) / 2
        momentum = torch.where(restart, 0, (age - 1) / older)
        w, ahead = after, after + momentum * (after - w)
        age = torch.where(restart, 1, older)
    return w


def _gradient(x: Tensor, labels: Tensor, w: Tensor) -> Tensor:
    """Return the gradient [A, S, C] of the mean cross entropy."""
    axes, settings, classes = w.shape
    total = torch.zeros(axes, settings * classes, dtype=x.dtype, device=x.device)
    for rows, truth in zip(x.split(_ROWS), labels.split(_ROWS), strict=True):
        logits = (rows @ w.flatten(1)).view(len(rows), settings, classes)
        residual = logits.softmax(dim=2) - one_hot(truth, classes)[:, None]
        total.addmm_(rows.T, residual.flatten(1))
    return (total / len(x)).view(w.shape)
