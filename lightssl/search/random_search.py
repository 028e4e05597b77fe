"""``random``: as ``evolve``, but every candidate is drawn at random."""

from lightssl.search.sandwich import sandwich
from lightssl.search.scores import SupernetScore, SupernetScorer
from lightssl.search.study import explore
from lightssl.search.task import Scored, Task
from lightssl.types import PositiveInt
from lightssl.units import Duration


def random_search(
    task: Task,
    *,
    supernet: Duration = Duration(100, "epochs"),
    middle: PositiveInt = 2,
    candidates: PositiveInt = 1000,
    images: PositiveInt = 2048,
    score: SupernetScore = "agreement",
) -> list[Scored]:
    """Train a supernet, then score candidates that are drawn at random within the budget.

    That is random search with weight sharing (Li and Talwalkar 2019, arXiv 1902.07638), the baseline that tells what
    the evolution adds: same supernet, same scores, as many candidates.

    Args:
        task: What is searched for.
        supernet: As for :func:`lightssl.search.evolve.evolve`.
        middle: As there.
        candidates: How many are drawn.
        images: As there.
        score: As there.

    Raises:
        Stopped: The user stopped it.
    """
    trained = task.lab.train(supernet, sandwich(task.table.space, middle=middle, seed=task.seed))
    scorer = SupernetScorer(*trained, task.lab, images=images, score=score)
    return explore(task, scorer, candidates=candidates)
