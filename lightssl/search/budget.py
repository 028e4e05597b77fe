"""Candidates within a budget: upper limits of what a network may cost, by the names of a cost table."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from lightssl.errors import ConfigError
from lightssl.search.cost import CostTable, figure
from lightssl.search.spaces import Candidate

Limits = Mapping[str, float]  # such as {"flops": 300e6, "parameters": 3.5e6, "latency_ms": 20.0}

_ROUNDS = 10_000  # far more than it takes to reach a budget that some network of the space uses up


def budget_shares(table: CostTable, limits: Limits, genes: np.ndarray) -> np.ndarray:
    """Return how much of a budget candidates [N, G] use up, [N]: of several limits, the share of the tightest."""
    used = [table.names.index(name) for name in limits]
    return (table.prices(genes)[:, used] / np.array(list(limits.values()))).max(axis=1)


def check_budget(table: CostTable, limits: Limits, *, lowest: float = 0.95) -> None:
    """Refuse a budget that no candidate fits, or of which none uses up the share ``lowest``.

    Raises:
        ConfigError: Says what the smallest or the largest network of the space costs.
    """
    space = table.space
    smallest, largest = table.named(space.smallest), table.named(space.largest)
    problems = [
        _beside(name, limit, space.smallest, smallest) for name, limit in limits.items() if smallest[name] > limit
    ]
    if problems:
        raise ConfigError(
            f"No network of the space {space.name} is that small:",
            "Raise the limit, lower the input size, or choose another space.",
            problems,
        )
    if all(largest[name] < lowest * limit for name, limit in limits.items()):
        raise ConfigError(
            f"No network of the space {space.name} is that large:",
            "Lower the limit, raise the input size, or choose another space.",
            [_beside(name, limit, space.largest, largest) for name, limit in limits.items()],
        )


def _beside(name: str, limit: float, candidate: Candidate, costs: Mapping[str, float]) -> str:
    return f"{name}: the limit is {figure(name, limit)}, {candidate} has {figure(name, costs[name])}"


def sample_within(
    table: CostTable, limits: Limits, generator: Generator, count: int, *, lowest: float = 0.95
) -> np.ndarray:
    """Draw random candidates that use up between ``lowest`` and all of a budget: int64 [count, G].

    Raises:
        ConfigError: As for :func:`bring_within`.
    """
    return bring_within(table, limits, generator, table.space.sample(generator, count), lowest=lowest)


def bring_within(
    table: CostTable, limits: Limits, generator: Generator, genes: np.ndarray, *, lowest: float = 0.95
) -> np.ndarray:
    """Change candidates at random until they use up between ``lowest`` and all of a budget.

    Of those that cost too much, one choice after the other is made smaller, and of those that cost too little, larger.
    Candidates within the budget stay as they are.

    Args:
        table: Of their space.
        limits: The budget.
        generator: Equal states give equal candidates.
        genes: int64 [N, G].
        lowest: Share of the budget.

    Returns:
        int64 [N, G].

    Raises:
        ConfigError: No candidate of the space fits, or none was found.
    """
    check_budget(table, limits, lowest=lowest)

    genes = genes.copy()
    for _ in range(_ROUNDS):
        shares = budget_shares(table, limits, genes)
        outside = (shares < lowest) | (shares > 1.0)
        if not outside.any():
            return genes
        genes[outside] = table.space.step(generator, genes[outside], larger=shares[outside] < lowest)
    raise ConfigError(
        f"Found no network of the space {table.space.name} that uses up {100 * lowest:g} to 100 % of the budget.",
        "Allow a smaller share, or change the limits.",
    )
