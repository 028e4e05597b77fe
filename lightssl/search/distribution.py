"""Probabilities of the choices of a space, one softmax a gene: what a differentiable search learns."""

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from lightssl.search.masks import Gates
from lightssl.search.spaces import Space


class Distribution:
    """Candidates whose genes are drawn independently of each other. At first every choice is as likely as another.

    Args:
        space: The candidates.
        device: Where the logits are.
    """

    def __init__(self, space: Space, device: torch.device) -> None:
        self.space = space
        self.logits = [nn.Parameter(torch.zeros(size, device=device)) for size in space.gene_sizes.tolist()]
        self._open = np.flatnonzero(space.gene_sizes > 1)  # genes with something to choose

    def probabilities(self) -> list[Tensor]:
        """Return those of each gene's choices, float32 [choices], with gradients for the logits."""
        return [logits.softmax(dim=0) for logits in self.logits]

    def _values(self) -> list[np.ndarray]:
        return [logits.detach().double().softmax(dim=0).cpu().numpy() for logits in self.logits]

    def draw(self, generator: Generator, count: int) -> np.ndarray:
        """Draw all genes of candidates, int64 [count, G], those of blocks that they do not have included."""
        drawn = [generator.choice(len(values), size=count, p=values) for values in self._values()]
        return np.stack(drawn, axis=1)

    def most_probable(self) -> np.ndarray:
        """Return the most probable choice of each gene, int64 [G]."""
        return np.array([values.argmax() for values in self._values()])

    def gates(self, genes: np.ndarray) -> Gates:
        """Return binary gates: 1 for the choices of a candidate [G], 0 for all others.

        Their gradients go to the probabilities as they are (Cai et al. 2019, arXiv 1812.00332).
        """
        chosen = zip(self.probabilities(), genes.tolist(), strict=True)
        return [_StraightThrough.apply(probabilities, gene) for probabilities, gene in chosen]

    def probability(self, genes: np.ndarray) -> np.ndarray:
        """Return the geometric mean of the probabilities of the choices of candidates, [N, G] -> [N].

        It is a mean, so that candidates of many blocks compare with those of few, and leaves out what is not chosen:
        genes of blocks that a candidate does not have, and those with a single choice.
        """
        values = self._values()
        logs = np.stack([np.log(values[gene][genes[:, gene]]) for gene in range(len(values))], axis=1)
        chosen = self.space.in_use(genes) & (self.space.gene_sizes > 1)
        return np.exp(np.where(chosen, logs, 0.0).sum(axis=1) / np.maximum(1, chosen.sum(axis=1)))

    def entropies(self) -> dict[int, float]:
        """Return how open each choice is, by genes: 1 where all are alike, 0 where it is decided."""
        probabilities = self._values()
        values = {gene: torch.from_numpy(probabilities[gene]) for gene in self._open.tolist()}
        return {gene: float(torch.special.entr(p).sum() / np.log(len(p))) for gene, p in values.items()}


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, probabilities: Tensor, choice: int) -> Tensor:
        gate = torch.zeros_like(probabilities)
        gate[choice] = 1.0
        return gate

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
