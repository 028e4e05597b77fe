"""How many candidates a second the cost tables price, beside counting a network that was built for it::

    python -m benchmarks.search_cost

Every round prices a fresh population at once, without and with a device's latency, and counts one of its networks, for
each space; the median round counts. One thread. Below 10,000 candidates a second it fails.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lightssl.backbones.cost import Cost, count_cost
from lightssl.deploy.kernels import KINDS
from lightssl.deploy.prediction import COSTS, Fit
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.search.cost import CostTable
from lightssl.search.spaces import SPACES, Candidate, Space

# Of no device: how long predicting takes does not depend on what is predicted.
FIT = Fit(
    threads=1,
    costs=dict.fromkeys(COSTS, 100.0),
    kinds=list(KINDS),
    left_out="",
    held_out_error_percent=0,
    flops_error_percent=0,
    interval_factor=1,
    measured=[],
)
LOWEST = 10_000  # candidates a second
RESULT = Path(__file__).parent / "results" / "search_cost.json"


def main() -> None:
    """Time every space, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--population", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for space in SPACES.values():
        rows.append(measure(space, rounds=options.rounds, population=options.population))
        print(
            "{space}: {candidates_per_s:,} candidates/s, {with_latency_per_s:,} with latency, "
            "{ratio_to_counting:,} times as fast as counting".format(**rows[-1])
        )
        if min(rows[-1]["candidates_per_s"], rows[-1]["with_latency_per_s"]) < LOWEST:
            raise SystemExit(f"{space.name} prices fewer than {LOWEST:,} candidates/s")
    write_json(
        RESULT,
        {
            "what": "candidates priced in a second by the cost table, without and with latency; how many times as "
            "fast the former is as building one network and counting it; seconds that the tables take to be made",
            "measured": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "population": options.population,
            "machine": describe_machine(),
            "versions": versions(),
            "rows": rows,
        },
    )


def measure(space: Space, *, rounds: int, population: int) -> dict[str, Any]:
    """Time one space; refuse to do so if the table and the count disagree."""
    generator = np.random.default_rng(0)
    table_s, price_s, count_s = [], [], []
    latency_table_s, latency_s = [], []
    for _ in range(rounds):
        seconds, table = timed(CostTable, space)
        table_s.append(seconds)
        genes = space.sample(generator, population)
        seconds, prices = timed(table.prices, genes)
        price_s.append(seconds / population)
        seconds, with_latency = timed(partial(CostTable, space, fit=FIT))
        latency_table_s.append(seconds)
        seconds, _ = timed(with_latency.prices, genes)
        latency_s.append(seconds / population)
        candidate = space.decode(genes[0])
        seconds, cost = timed(build_and_count, space, candidate)
        count_s.append(seconds)
        if cost != tuple(prices[0]):
            raise SystemExit(f"{candidate} costs {cost}, the table says {prices[0]}")
    return {
        "space": space.name,
        "candidates_per_s": round(1 / median(price_s)),
        "with_latency_per_s": round(1 / median(latency_s)),
        "ratio_to_counting": round(median(count / price for count, price in zip(count_s, price_s, strict=True))),
        "count_s": round(median(count_s), 3),
        "table_s": round(median(table_s), 4),
        "table_with_latency_s": round(median(latency_table_s), 4),
    }


def build_and_count(space: Space, candidate: Candidate) -> Cost:
    """Count a candidate as it would be without a table."""
    return count_cost(space.build(candidate), candidate.image_size)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return how many seconds a call takes, and its result."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
