"""``differentiable``: gradients choose, on the images that the weights do not see."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, cast

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.optim import Adam

from lightssl.methods.base import Method
from lightssl.search.budget import Limits, bring_within
from lightssl.search.cost import LATENCY, CostTable
from lightssl.search.distribution import Distribution
from lightssl.search.scores import SupernetScore, SupernetScorer
from lightssl.search.spaces import Candidate
from lightssl.search.study import explore
from lightssl.search.supernet import Supernet, activate
from lightssl.search.task import Scored, Task
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.loop import Passes
from lightssl.types import Batch, Clock, NonNegative, Positive, PositiveInt
from lightssl.units import Duration

DifferentiableScore = Literal["probability"] | SupernetScore

_BETAS = (0.0, 0.999)  # ProxylessNAS's
_DRAWN = 5000  # candidates that the most probable one is chosen from
_WEIGHTS, _ARCHITECTURE = 0, 1  # what candidates are drawn for


def differentiable(
    task: Task,
    *,
    supernet: Duration = Duration(160, "epochs"),
    warmup: Duration = Duration(25, "percent"),
    every: PositiveInt = 5,
    rate: Positive = 1e-3,
    penalty: NonNegative = 0.2,
    penalty_power: Positive = 0.3,
    candidates: PositiveInt = 100,
    images: PositiveInt = 2048,
    score: DifferentiableScore = "probability",
) -> list[Scored]:
    """Train a supernet and the probabilities of its candidates in turns, then look at the most probable ones.

    The search of ProxylessNAS (Cai et al. 2019, arXiv 1812.00332), without labels, over the whole space. A step of the
    weights trains one candidate, drawn from the probabilities. A step of the architecture, on the other half of the
    images, draws one as well, and changes the probabilities of all choices by gradients: see
    :mod:`lightssl.search.masks`. There, ProxylessNAS takes two choices of each gene at a time, to save memory; here all
    of them take part. Its loss grows with the cost that candidates are expected to have: see :func:`penalised`.

    The first candidate is the most probable one that was found within the budget; others are drawn from the
    probabilities, and brought into it.

    Args:
        task: What is searched for.
        supernet: How long the supernet is trained. An epoch is one pass over its half of the images.
        warmup: How long all candidates stay equally probable at the start.
        every: Steps of the weights to one of the architecture.
        rate: Learning rate of the architecture.
        penalty: Share of the loss that is added for candidates whose expected cost is the limit.
        penalty_power: How the penalty grows with the logarithm of the cost.
        candidates: How many are looked at.
        images: Held-out images that candidates are scored on, and training images that batch norm is estimated on.
        score: What candidates are compared by: ``probability``, the geometric mean of the probabilities of their
            choices, or one of :class:`lightssl.search.scores.SupernetScorer`.

    Raises:
        Stopped: The user stopped it.
    """
    distribution = Distribution(task.table.space, task.lab.device)

    def steps(clock: Clock, batches: Callable[[int], Iterable[Batch]]) -> ArchitectureSteps:
        return ArchitectureSteps(
            distribution.logits,
            Adam(distribution.logits, lr=rate, betas=_BETAS),
            batches,
            every=every,
            start=clock.steps(warmup),
            prepare=partial(choose, distribution, task.seed),
            objective=lambda loss: penalised(
                loss, distribution, task.table, task.limits, weight=penalty, power=penalty_power
            ),
            figures=lambda: figures(distribution, task.table, task.limits),
        )

    trained = task.lab.train(supernet, one_candidate(distribution, task.seed), steps)
    of_supernet = SupernetScorer(
        *trained, task.lab, images=images, score="agreement" if score == "probability" else score
    )

    def scorer(candidate: Candidate) -> Mapping[str, float]:
        probability = float(distribution.probability(task.table.space.encode(candidate)[None])[0])
        scores = {**of_supernet(candidate), "probability": probability}
        return {**scores, "score": scores["probability"]} if score == "probability" else scores

    def draw(number: int, generator: Generator) -> np.ndarray:
        if number > 0:
            return distribution.draw(generator, 1)
        return most_probable_within(distribution, task.table, task.limits, generator)

    return explore(task, scorer, candidates=candidates, draw=draw)


def one_candidate(distribution: Distribution, seed: int) -> Passes:
    """Make every step one pass of one candidate, drawn from a distribution by seed and step."""

    def passes(method: Method, clock: Clock) -> Sequence[Callable[[], None]]:
        (genes,) = distribution.draw(np.random.default_rng((seed, clock.step, _WEIGHTS)), 1)
        return [partial(activate, method, distribution.space.decode(genes))]

    return passes


def choose(distribution: Distribution, seed: int, method: Method, clock: Clock) -> None:
    """Draw a candidate by seed and step, and let the method compute as it, its encoder with gradients for all choices.

    A teacher or key encoder, which has no gradients, is the candidate itself.
    """
    (genes,) = distribution.draw(np.random.default_rng((seed, clock.step, _ARCHITECTURE)), 1)
    activate(method, distribution.space.decode(genes))
    cast(Supernet, method.encoder).choose(distribution.gates(genes))


def most_probable_within(
    distribution: Distribution, table: CostTable, limits: Limits, generator: Generator
) -> np.ndarray:
    """Return the most probable candidate [1, G] of thousands that were drawn and brought into a budget.

    The most probable choices of all genes together may cost far more or less than is asked for.
    """
    drawn = np.concatenate([distribution.most_probable()[None], distribution.draw(generator, _DRAWN)])
    within = bring_within(table, limits, generator, drawn)
    return within[distribution.probability(within).argmax()][None]


def penalised(
    loss: Tensor, distribution: Distribution, table: CostTable, limits: Limits, *, weight: float, power: float
) -> Tensor:
    """Return ``loss + weight * |loss| * (log E[cost] / log limit) ** power``, with one such term for each limit.

    That is ProxylessNAS's penalty on FLOPs, where losses are positive; those of SimSiam are not.

    Args:
        loss: Scalar.
        distribution: Over which costs are expected.
        table: Of the costs.
        limits: The budget.
        weight: Of the penalty.
        power: Of the penalty.
    """
    expected = expected_costs(distribution, table, limits)
    # In ns, a latency is as large a number as FLOPs are: of ms, logarithms would be near 0, or below.
    units = {name: 1e6 if name == LATENCY else 1.0 for name in limits}
    shares = [
        ((units[name] * cost).log() / np.log(units[name] * limits[name])) ** power for name, cost in expected.items()
    ]
    return loss + weight * loss.abs() * torch.stack(shares).sum().to(loss.dtype)


def expected_costs(distribution: Distribution, table: CostTable, limits: Limits) -> dict[str, Tensor]:
    """Return what candidates cost on average of each thing that is limited, float64, with gradients for the logits."""
    expected = table.expected(distribution.probabilities())
    return {name: expected[table.names.index(name)] for name in limits}


def figures(distribution: Distribution, table: CostTable, limits: Limits) -> dict[str, float]:
    """Return what is logged: expected costs, and how open choices are, over all and by stage."""
    entropies = distribution.entropies()
    stages = {
        f"entropy_stage{number}": [entropy for gene, entropy in entropies.items() if at.width <= gene < at.blocks.stop]
        for number, at in enumerate(table.space.columns, 1)
    }
    expected = expected_costs(distribution, table, limits)
    return {
        **{f"expected_{name}": cost.item() for name, cost in expected.items()},
        "entropy": float(np.mean(list(entropies.values()))),
        **{name: float(np.mean(of_stage)) for name, of_stage in stages.items() if of_stage},
    }
