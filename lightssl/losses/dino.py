"""DINO's self-distillation loss (Caron et al. 2021, arXiv 2104.14294) with SSLight's re-balanced terms."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.losses.balance import balanced_mean


def dino_targets(teacher_scores: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centre and sharpen the teacher's scores: ``softmax((scores - center) / temperature)``, without gradient.

    Args:
        teacher_scores: [G, B, K] for the G global views.
        center: [K] or [1, K].
        temperature: The teacher's; lower is sharper.
    """
    return F.softmax((teacher_scores.detach().float() - center) / temperature, dim=-1)


def dino_loss(
    student_scores: Tensor, targets: Tensor, *, temperature: float = 0.1, weights: tuple[float, float]
) -> Tensor:
    """Cross entropy of every student view with every other global view of the teacher.

    Args:
        student_scores: [V, B, K], the G global views first.
        targets: [G, B, K] from :func:`dino_targets`.
        temperature: The student's.
        weights: Of the mean global-global and the mean global-local term.

    Returns:
        The scalar loss; ``log K`` when student and teacher are both uniform.
    """
    log_student = F.log_softmax(student_scores.float() / temperature, dim=-1)
    # terms[g, v]: teacher view g against student view v, mean over the batch.
    terms = -torch.einsum("gbk,vbk->gv", targets, log_student) / targets.shape[1]
    teacher_view = torch.arange(len(targets), device=terms.device)[:, None]
    student_view = torch.arange(len(student_scores), device=terms.device)[None, :]
    compared = teacher_view != student_view
    is_global = (student_view < len(targets)).expand_as(terms)
    return balanced_mean(terms[compared], is_global[compared], weights)
