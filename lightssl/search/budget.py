"""Candidates within a budget: upper limits of what a network may cost, by the names of a cost table."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from lightssl.errors import ConfigError
from lightssl.search.cost import CostTable

Limits = Mapping[str, float]  # such as {"flops": 300e6, "parameters": 3.5e6}

_ROUNDS = 5000  # most walks end within a hundred; those to the smallest network of a space within a thousand


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
    smallest, largest = table.cost(space.smallest)._asdict(), table.cost(space.largest)._asdict()
    problems = [
        f"{name}: the limit is {limit:,.0f}, {space.smallest} has {smallest[name]:,}"
        for name, limit in limits.items()
        if smallest[name] > limit
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
            [
                f"{name}: the limit is {limit:,.0f}, {space.largest} has {largest[name]:,}"
                for name, limit in limits.items()
            ],
        )


def sample_within(
    table: CostTable, limits: Limits, generator: Generator, count: int, *, lowest: float = 0.95
) -> np.ndarray:
    """Draw random candidates that use up between ``lowest`` and all of a budget.

    Each starts anywhere in the space and takes random steps that lead it no further away from the budget.

    Args:
        table: Of the space to draw from.
        limits: The budget.
        generator: Equal states give equal candidates.
        count: How many.
        lowest: Share of the budget.

    Returns:
        Genes, int64 [count, G].

    Raises:
        ConfigError: No candidate fits, or none was found.
    """
    check_budget(table, limits, lowest=lowest)

    def distance(genes: np.ndarray) -> np.ndarray:
        shares = budget_shares(table, limits, genes)
        return np.maximum(np.maximum(lowest - shares, shares - 1.0), 0.0)

    genes = table.space.sample(generator, count)
    away = distance(genes)
    for _ in range(_ROUNDS):
        walking = np.flatnonzero(away)
        if not len(walking):
            return genes
        steps = table.space.mutate(generator, genes[walking], rate=1.5 / genes.shape[1])
        distances = distance(steps)
        taken = distances <= away[walking]
        genes[walking[taken]], away[walking[taken]] = steps[taken], distances[taken]
    raise ConfigError(
        f"Found no network of the space {table.space.name} that uses up {100 * lowest:.0f} to 100 % of the budget.",
        "Allow a smaller share, or change the limits.",
    )
