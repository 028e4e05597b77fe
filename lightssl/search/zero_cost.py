"""``zero-cost``: candidates are scored at random initialisation, without any training."""

from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightssl.backbones.batchnorm import in_eval_mode
from lightssl.collapse import effective_rank
from lightssl.search.spaces import Candidate
from lightssl.search.study import explore
from lightssl.search.task import Lab, Scored, Task
from lightssl.types import PositiveInt, Share

ZeroCostScore = Literal["naswot", "synflow", "rank"]

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU)


def zero_cost(
    task: Task,
    *,
    candidates: PositiveInt = 1000,
    population: PositiveInt = 50,
    mutation: Share = 0.1,
    images: PositiveInt = 64,
    score: ZeroCostScore = "naswot",
) -> list[Scored]:
    """Evolve candidates by what random networks show of them: a baseline that any search with training must beat.

    Networks are built as they will be deployed, at the input size of the budget.

    Args:
        task: What is searched for.
        candidates: How many are scored.
        population: How many make a generation.
        mutation: Probability with which each choice of a child is drawn anew.
        images: In the one batch that networks are shown.
        score: What candidates are compared by: see :class:`ZeroCostScorer`.

    Raises:
        Stopped: The user stopped it.
    """
    scorer = ZeroCostScorer(task.lab, images=images, score=score)
    return explore(task, scorer, candidates=candidates, population=population, mutation=mutation)


class ZeroCostScorer:
    """Scores networks at random initialisation.

    - ``naswot``: see :func:`naswot`.
    - ``synflow``: see :func:`synflow`.
    - ``rank``: effective rank of the features: see :func:`lightssl.collapse.effective_rank`.

    Args:
        lab: Builds networks and has images.
        images: In the one batch that networks are shown.
        score: Which of them is the score.
    """

    def __init__(self, lab: Lab, *, images: int, score: ZeroCostScore) -> None:
        self._lab, self._images, self._score = lab, images, score
        self._batches: dict[int, Tensor] = {}  # by input size

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Score one candidate."""
        size = candidate.image_size
        if size not in self._batches:
            self._batches[size] = torch.cat([*self._lab.images(self._images, held_out=True, size=size)])
        network = self._lab.build(candidate).train()  # batch norm uses the statistics of the batch
        determinant, features = naswot(network, self._batches[size])
        scores = {
            "naswot": determinant,
            "synflow": synflow(network, size),
            "rank": effective_rank(features),
        }
        return {"score": scores[self._score], **scores}


@torch.no_grad()
def naswot(network: nn.Module, images: Tensor) -> tuple[float, Tensor]:
    """Tell how differently the units of a network switch for different images (Mellor et al. 2021, arXiv 2006.04647).

    The log-determinant of the kernel that counts, for two images, the units that are on for both or off for both.

    Args:
        network: Its units are those in front of a ReLU, ReLU6 or GELU.
        images: [B, 3, H, W].

    Returns:
        The score, and the features [B, D] of the same pass.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        on = (inputs[0].flatten(1) > 0).float()
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    hooks = [layer.register_forward_pre_hook(count) for layer in network.modules() if isinstance(layer, _ACTIVATIONS)]
    try:
        features = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.linalg.slogdet(kernel).logabsdet), features


def synflow(network: nn.Module, image_size: int) -> float:
    """Tell how much would flow through a network, in log (Tanaka et al. 2020, arXiv 2006.05467).

    The sum of ``weight * gradient`` over all weights of the network made linear and positive: every weight is replaced
    by its magnitude, normalisation and activations are left out, and the image is all ones. In float64, since deep
    networks exceed float32.

    Args:
        network: Stays as it is.
        image_size: In pixels.
    """
    positive = deepcopy(network).double()
    for parent in list(positive.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, (*_ACTIVATIONS, _BatchNorm, nn.LayerNorm)):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    weight = next(positive.parameters())
    with in_eval_mode(positive):
        positive(weight.new_ones(1, 3, image_size, image_size)).sum().backward()
    flows = [(p * p.grad).sum() for p in positive.parameters() if p.grad is not None]
    return float(torch.stack(flows).sum().log().detach())
