"""Search for networks that learn well at a given cost: spaces, costs, weight sharing, strategies.

Every strategy is a function ``(task: Task, **options) -> list[Scored]``: from what is asked to the candidates that it
looked at, each with a score, and the stock networks with theirs. The best of those within the budget wins. Its options
are its keyword-only arguments. A new one is a file here and a line in ``STRATEGIES``.
"""

from lightssl.registry import Registry

STRATEGIES = Registry(
    "search strategy",
    {
        "differentiable": "lightssl.search.differentiable:differentiable",
        "evolve": "lightssl.search.evolve:evolve",
        "random": "lightssl.search.random_search:random_search",
        "zero-cost": "lightssl.search.zero_cost:zero_cost",
    },
)
