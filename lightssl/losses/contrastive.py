"""Contrastive losses: an image's views against those of other images."""

import torch
from torch import Tensor

from lightssl.distributed import gather_with_gradient, process_rank
from lightssl.losses.balance import balanced_mean, balanced_pairs


def info_nce(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    global_views: int,
    temperature: float = 0.2,
    weights: tuple[float, float],
) -> Tensor:
    """MoCo's loss (He et al. 2019, arXiv 1911.05722): find an image's key among those of earlier images.

    Args:
        queries: [V, B, D], L2-normalised, the global views first.
        keys: [B, D], L2-normalised, of another global view of the same images; no gradient reaches them.
        queue: [K, D], L2-normalised keys of other images.
        global_views: How many of the V queries come from global views.
        temperature: Of the softmax over the key and the queue.
        weights: Of the mean over global and the mean over local queries.

    Returns:
        The scalar loss; ``log(K + 1)`` when all similarities are equal.
    """
    with torch.autocast(queries.device.type, enabled=False):
        positive = torch.einsum("vbd,bd->vb", queries.float(), keys.detach().float()) / temperature
        negative = torch.einsum("vbd,kd->vbk", queries.float(), queue.float()) / temperature
    terms = (torch.logaddexp(positive, negative.logsumexp(dim=-1)) - positive).mean(dim=1)
    return balanced_mean(terms[:global_views], terms[global_views:], weights)


def nt_xent(embeddings: Tensor, *, global_views: int, temperature: float = 0.5, weights: tuple[float, float]) -> Tensor:
    """SimCLR's loss (Chen et al. 2020, arXiv 2002.05709): find another global view of an image among all images'.

    View v of an image is the anchor, global view t of the same image its positive, the global views of all other images
    of all processes its negatives. With two views this is the published loss. Further views of the same image are
    neither positives nor negatives of a term, so that local views only add terms.

    Args:
        embeddings: [V, B, D], L2-normalised, the global views first; B is at least 2 over all processes.
        global_views: G, how many of the V views are global.
        temperature: Of the softmax.
        weights: Of the mean global-global and the mean global-local term.
    """
    targets = gather_with_gradient(embeddings[:global_views].transpose(0, 1))  # [N, G, D], N images over all processes
    batch = embeddings.shape[1]
    own = torch.arange(batch, device=embeddings.device) + process_rank() * batch  # of the N images, this process's
    with torch.autocast(embeddings.device.type, enabled=False):
        similarity = torch.einsum("vbd,ntd->vbnt", embeddings.float(), targets.float()) / temperature
    rows = torch.arange(batch, device=embeddings.device)
    positive = similarity[:, rows, own]  # [V, B, G]
    others = torch.ones(batch, len(targets), 1, dtype=torch.bool, device=embeddings.device)
    others[rows, own] = False
    negative = similarity.masked_fill(~others, float("-inf")).flatten(2).logsumexp(dim=-1, keepdim=True)  # [V, B, 1]
    terms = (torch.logaddexp(positive, negative) - positive).mean(dim=1).T  # [G, V]
    return balanced_pairs(terms, global_views, weights)
