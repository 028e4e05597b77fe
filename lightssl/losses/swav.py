"""SwAV's targets (Caron et al. 2020, arXiv 2006.09882). Its loss is :mod:`lightssl.losses.cross_view`."""

import torch
from torch import Tensor

from lightssl.distributed import max_over_processes, sum_over_processes


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Assign samples to prototypes so that all prototypes get about the same share of them (Sinkhorn-Knopp).

    Each iteration gives every prototype the same total, then every sample the total 1. The samples of all processes
    are assigned together.

    Args:
        scores: [T, N, K], of N samples of this process in T independent problems, with K prototypes.
        epsilon: Smoothness: lower is sharper.
        iterations: As published, 3: far from converged.

    Returns:
        [T, N, K], each sample's probabilities, in float32.
    """
    scores = scores.float() / epsilon
    # The first iteration goes by logarithms: the exponentials of a sharp problem are out of range.
    largest = max_over_processes(scores.amax(dim=1, keepdim=True))  # [T, 1, K]
    totals = largest + sum_over_processes((scores - largest).exp().sum(dim=1, keepdim=True)).log()
    assigned = (scores - totals).softmax(dim=2)
    for _ in range(iterations - 1):
        assigned /= sum_over_processes(assigned.sum(dim=1, keepdim=True)).clamp_min(torch.finfo(torch.float32).tiny)
        assigned /= assigned.sum(dim=2, keepdim=True)
    return assigned
