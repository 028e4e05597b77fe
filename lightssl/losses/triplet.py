"""Triplet losses: an image's views closer to each other than to those of other images."""

import torch
from torch import Tensor

from lightssl.distributed import gather_with_gradient, process_rank


def semi_hard_triplets(embeddings: Tensor, *, margin: float = 0.5) -> Tensor:
    """FaceNet's loss on semi-hard triplets (Schroff et al. 2015, arXiv 1503.03832), as Exemplar takes it.

    For every pair of views of one image the negative is the view of another image that is nearest among those farther
    away than the pair is wide; if there is none, the farthest of all. Distances are squared Euclidean ones.

    Args:
        embeddings: [V, B, D], L2-normalised; V is at least 2, and so is B over all processes.
        margin: By which a negative should be farther away.

    Returns:
        The scalar mean over all ordered pairs of views of one image.
    """
    views, batch = embeddings.shape[:2]
    targets = gather_with_gradient(embeddings.transpose(0, 1))  # [N, V, D], N images over all processes
    images = len(targets)
    own = torch.arange(batch, device=embeddings.device) + process_rank() * batch  # of the N images, this process's
    with torch.autocast(embeddings.device.type, enabled=False):
        anchors, others = embeddings.float().flatten(0, 1), targets.float().transpose(0, 1).flatten(0, 1)
        squares = anchors.square().sum(dim=1)[:, None] + others.square().sum(dim=1)[None]
        distance = (squares - 2 * anchors @ others.T).clamp(min=0.0)  # [V * B, V * N]
    anchor = (
        torch.arange(views, device=own.device).repeat_interleave(batch),
        own.repeat(views),
    )  # their views and images
    other = (
        torch.arange(views, device=own.device).repeat_interleave(images),
        torch.arange(images, device=own.device).repeat(views),
    )
    same = anchor[1][:, None] == other[1][None]
    # The negatives of each anchor in ascending order, then its positives and itself, out of reach.
    negatives, _ = distance.masked_fill(same, torch.inf).sort(dim=1)
    farther = torch.searchsorted(negatives.detach(), distance.detach(), right=True)
    negative = negatives.gather(1, farther.clamp(max=(images - 1) * views - 1))
    pairs = same & (anchor[0][:, None] != other[0][None])
    # Not ``terms[pairs]``, whose length an accelerator would have to tell first: it is known.
    terms = (margin + distance - negative).clamp(min=0.0) * pairs
    return terms.sum() / (views * batch * (views - 1))
