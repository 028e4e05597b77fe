"""How long a network takes on a device that is not there: a sum of seven costs, fitted to what was measured on one.

    ms = sum over kinds of kernel (cost x 10^9 multiply-accumulates) + cost x 10^9 bytes + cost x 10^3 kernels

Counting (:mod:`lightssl.deploy.kernels`) and predicting are apart: a search adds up the features of the blocks that a
candidate consists of, and predicts all candidates in one product.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Annotated, NamedTuple

import numpy as np
import scipy
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lightssl.deploy.kernels import KINDS, MAC_KINDS, Kernel
from lightssl.errors import TargetError
from lightssl.types import NonNegative, Positive, PositiveInt

COSTS = (*MAC_KINDS, "bytes", "kernels")

COVERAGE = 0.8  # share of networks whose time lies in the interval around their prediction

# No cost is negative, and two have a floor in another: general convolutions have no algorithm as fast as 3 x 3 ones,
# and depthwise ones use what they load fewer times than pointwise ones. Without it, noise can make a kind free that few
# layers have. Costs are this matrix times what is solved for.
_FLOORS = np.eye(len(COSTS))
_FLOORS[COSTS.index("conv"), COSTS.index("conv3x3")] = 1
_FLOORS[COSTS.index("depthwise"), COSTS.index("pointwise")] = 1

# A kind of kernel that fewer networks have cannot be told from what is particular to those networks.
_MIN_NETWORKS = 3

FloatArray = NDArray[np.float64]


class Sample(NamedTuple):
    """A network whose time on a device is known."""

    network: str
    left_out_with: str  # samples that share it are left out together
    kernels: Sequence[Kernel]
    latency_ms: float


class Measured(BaseModel):
    """What a fit was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    latency_ms: Positive
    held_out_ms: NonNegative  # predicted by a fit to the others


class Fit(BaseModel):
    """The costs of one number of threads on one device, and how far they can be trusted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: PositiveInt
    costs: dict[str, NonNegative]  # names in COSTS; ms for 10^9 multiply-accumulates or bytes, or for 10^3 kernels
    kinds: list[str]  # of kernels that it was fitted on
    left_out: str  # what was left out at a time
    held_out_error_percent: NonNegative  # median over the networks, each predicted by a fit to the others
    flops_error_percent: NonNegative  # the same of a fit to the multiply-accumulates alone
    interval_factor: Annotated[float, Ge(1)]  # COVERAGE of the networks were within prediction / or x this
    measured: list[Measured]

    def predict(self, features: FloatArray) -> FloatArray:
        """Map features [..., F] to milliseconds [...]."""
        return features @ np.array([self.costs.get(name, 0.0) for name in COSTS])

    def unknown(self, kernels: Iterable[Kernel]) -> list[str]:
        """Return the kinds of ``kernels`` that it was not fitted on."""
        return sorted({kernel.kind for kernel in kernels} - set(self.kinds))


def features(kernels: Iterable[Kernel]) -> FloatArray:
    """Return what a network's time is predicted from, float64 [F] in the order and units of ``COSTS``.

    Features of parts add up to those of the whole.
    """
    total = np.zeros(len(COSTS))
    for kernel in kernels:
        if kernel.kind in MAC_KINDS:
            total[MAC_KINDS.index(kernel.kind)] += kernel.macs / 1e9
        total[-2:] += kernel.bytes / 1e9, 1 / 1e3
    return total


def learn(samples: Sequence[Sample], *, threads: int, left_out: str) -> Fit:
    """Fit the costs of a device to measured networks.

    Args:
        samples: With one number of threads, one runtime and one precision.
        threads: That number.
        left_out: What ``left_out_with`` of the samples stands for, in words.

    Raises:
        TargetError: There are too few networks, or the fit predicts those left out no better than a fit to their
            multiply-accumulates alone.
    """
    x = np.stack([features(sample.kernels) for sample in samples]) if samples else np.zeros((0, len(COSTS)))
    y = np.array([sample.latency_ms for sample in samples])
    groups = [sample.left_out_with for sample in samples]
    needed = 1 + np.count_nonzero(x.any(axis=0))
    if len(samples) < needed or len(set(groups)) < 2:
        raise TargetError(
            f"{len(samples)} networks do not determine the costs of their kernels.",
            f"Measure at least {max(needed, 2)}, as different from each other as those to be predicted.",
        )
    held_out = _held_out(x @ _FLOORS, y, groups)
    macs_alone = _held_out(x[:, : len(MAC_KINDS)].sum(axis=1, keepdims=True), y, groups)
    error, flops_error = _median_error(held_out, y), _median_error(macs_alone, y)
    if error >= flops_error:
        raise TargetError(
            f"The fit predicts networks left out no better ({error:.1f} %) than their multiply-accumulates alone "
            f"({flops_error:.1f} %).",
            "Measure more networks, or with less else going on.",
        )
    costs = dict(zip(COSTS, _FLOORS @ _solve(x @ _FLOORS, y), strict=True))
    networks_with = {kind: sum(any(kernel.kind == kind for kernel in s.kernels) for s in samples) for kind in KINDS}
    kinds = [kind for kind, networks in networks_with.items() if networks >= _MIN_NETWORKS]
    return Fit(
        threads=threads,
        costs={name: float(f"{cost:.4g}") for name, cost in costs.items() if name in (*kinds, "bytes", "kernels")},
        kinds=kinds,
        left_out=left_out,
        held_out_error_percent=round(error, 1),
        flops_error_percent=round(flops_error, 1),
        interval_factor=_interval_factor(held_out, y),
        measured=[
            Measured(network=sample.network, latency_ms=sample.latency_ms, held_out_ms=float(f"{predicted:.4g}"))
            for sample, predicted in zip(samples, held_out, strict=True)
        ],
    )


def _solve(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return what [F], never negative, makes the squared relative error of ``x`` [N, F] times it on ``y`` [N] least."""
    solution: FloatArray = scipy.optimize.nnls(x / y[:, None], np.ones(len(y)))[0]
    return solution


def _held_out(x: FloatArray, y: FloatArray, groups: Sequence[str]) -> FloatArray:
    """Predict each sample [N] by a fit to those of other groups."""
    predicted = np.empty_like(y)
    for group in dict.fromkeys(groups):
        out = np.array([other == group for other in groups])
        predicted[out] = x[out] @ _solve(x[~out], y[~out])
    return predicted


def _median_error(predicted: FloatArray, y: FloatArray) -> float:
    return 100 * float(np.median(np.abs(predicted / y - 1)))


def _interval_factor(predicted: FloatArray, y: FloatArray) -> float:
    """Return the split-conformal factor of ``COVERAGE`` (https://arxiv.org/abs/1604.04173) of relative errors."""
    ratios = np.sort(np.maximum(predicted / y, y / np.maximum(predicted, 1e-9)))
    rank = min(len(ratios), ceil(COVERAGE * (len(ratios) + 1)))
    return ceil(1000 * float(ratios[rank - 1])) / 1000
