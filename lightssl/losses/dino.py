"""DINO's targets (Caron et al. 2021, arXiv 2104.14294). Its loss is :mod:`lightssl.losses.cross_view`."""

from torch import Tensor
from torch.nn import functional as F


def dino_targets(teacher_scores: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centre and sharpen the teacher's scores: ``softmax((scores - center) / temperature)``, without gradient.

    Args:
        teacher_scores: [G, B, K] for the G global views.
        center: [K] or [1, K].
        temperature: The teacher's; lower is sharper.
    """
    return F.softmax((teacher_scores.detach().float() - center) / temperature, dim=-1)
