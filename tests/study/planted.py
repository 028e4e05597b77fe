"""Studies whose answer is known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightssl.study.table import Row


def row(**changes: object) -> Row:
    """One result, with everything set that was not stated."""
    values = {
        "member": "a",
        "family": "resnet basic",
        "backbone": "resnet",
        "depths": (2, 2, 2, 2),
        "width": None,
        "flops": 10**9,
        "parameters": 10**7,
        "recipe": "resnet18_simclr_cifar",
        "method": "simclr",
        "seed": 0,
        "scenario": "one",
        "task": "linear_cv",
        "top1": 50.0,
    }
    return Row(**{**values, **changes})


def study(
    accuracy: ArrayLike,
    *,
    seeds: int = 1,
    noise: float = 0.0,
    names: Sequence[str] = (),
    random: int = 0,
    **changes: object,
) -> list[Row]:
    """Results of networks in scenarios ``s0``, ``s1``, ...: accuracy [N, S], and noise of each seed on top.

    Costs grow with the number of the network.
    """
    table = np.asarray(accuracy, dtype=float)
    rng = np.random.default_rng(random)
    return [
        row(
            **{
                "member": names[number] if names else f"n{number}",
                "flops": 10**8 * (number + 1),
                "parameters": 10**6 * (number + 1),
                "seed": seed,
                "scenario": f"s{column}",
                "top1": float(value + noise * rng.normal()),
                **changes,
            }
        )
        for number, values in enumerate(table)
        for seed in range(seeds)
        for column, value in enumerate(values)
    ]


def correlated(networks: int = 12, scenarios: int = 4, seed: int = 0) -> np.ndarray:
    """Accuracies [N, S] that go together, with a spread of five times what they do not share."""
    rng = np.random.default_rng(seed)
    return 60 + 5 * rng.normal(size=(networks, 1)) + rng.normal(0, 1, (networks, scenarios))


def trained(method: str, table: np.ndarray, **options: object) -> list[Row]:
    """Results of one pre-training of several."""
    return study(table, recipe=f"resnet18_{method}", method=method, **options)


def in_widths(gain: float, *, series: int = 6, noise: float = 0.0, seeds: int = 1, **changes: object) -> list[Row]:
    """Results of networks in three widths each; ``gain`` points for twice the width."""
    rng = np.random.default_rng(5)
    return [
        row(
            member=f"f{number}-{width:g}",
            family=f"f{number}",
            width=width,
            seed=seed,
            scenario=scenario,
            top1=50 + number + gain * np.log2(width) + noise * rng.normal(),
            **changes,
        )
        for number in range(series)
        for width in (1.0, 2.0, 4.0)
        for seed in range(seeds)
        for scenario in ("s0", "s1")
    ]
