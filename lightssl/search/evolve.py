"""``evolve``: candidates share the weights of one supernet, and the good ones have children."""

from lightssl.search.sandwich import sandwich
from lightssl.search.scores import SupernetScore, SupernetScorer
from lightssl.search.study import explore
from lightssl.search.task import Scored, Task
from lightssl.types import PositiveInt, Share
from lightssl.units import Duration


def evolve(
    task: Task,
    *,
    supernet: Duration = Duration(100, "epochs"),
    middle: PositiveInt = 2,
    candidates: PositiveInt = 1000,
    population: PositiveInt = 50,
    mutation: Share = 0.1,
    images: PositiveInt = 2048,
    score: SupernetScore = "agreement",
) -> list[Scored]:
    """Train a supernet with the method's own objective, then evolve candidates that compute with its weights.

    The flow is that of Once-for-All (Cai et al. 2019, arXiv 1908.09791) and BigNAS (Yu et al. 2020, arXiv 2003.11142),
    without labels.

    Args:
        task: What is searched for.
        supernet: How long the supernet is trained.
        middle: Random candidates in each training step, besides the smallest and the largest.
        candidates: How many are scored.
        population: How many make a generation.
        mutation: Probability with which each choice of a child is drawn anew.
        images: Held-out images that candidates are scored on, and training images that batch norm is estimated on.
        score: What candidates are compared by: see :class:`lightssl.search.scores.SupernetScorer`.

    Raises:
        Stopped: The user stopped it.
    """
    trained = task.lab.train(supernet, sandwich(task.table.space, middle=middle, seed=task.seed))
    scorer = SupernetScorer(*trained, task.lab, images=images, score=score)
    return explore(task, scorer, candidates=candidates, population=population, mutation=mutation)
