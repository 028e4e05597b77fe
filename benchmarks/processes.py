"""What it costs to train in two processes: two of one thread beside one of two threads, on the same batch::

    python -m benchmarks.processes

Both take lightssl's training step as :mod:`benchmarks.training_step` does. Two processes take half the images each,
under torchrun, with synchronised batch norm, averaged gradients and shared queues. In turns, each in fresh processes.
"""

import argparse
import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks.training_step import compare_pairs, lightssl, measure, step_options

CORES = 2


def main() -> None:
    """Time both in turns and write the table."""
    parser = step_options(__doc__)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        found = measure(lightssl(options.methods[0], options.networks[0], precision="32-true"), options.steps)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
        return
    how = f"fp32: {CORES} processes of one thread beside one of {CORES}"
    compare_pairs(compare, options, result="processes", how=how)


def compare(method: str, network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time one process and several, round by round."""
    rates: dict[int, list[float]] = {1: [], CORES: []}
    for _ in range(options.rounds):
        for processes, found in rates.items():
            found.append(images_per_second(processes, method, network, options.steps))
            print(f"{network:12} {method:7} {processes} processes {found[-1]:8.2f} images/s", flush=True)
    row: dict[str, Any] = {}
    for name, found in (("one", rates[1]), ("several", rates[CORES])):
        row[name] = {
            "images_per_s": round(median(found), 2),
            "lowest": round(min(found), 2),
            "highest": round(max(found), 2),
        }
    # Of each round on its own: what slows the machine down for a while slows both.
    row["ratio"] = round(median(many / one for one, many in zip(rates[1], rates[CORES], strict=True)), 3)
    return row


def images_per_second(processes: int, method: str, network: str, steps: int) -> float:
    """Time the step in fresh processes, which share the cores."""
    arguments = ["-m", "benchmarks.processes", "--here", "--methods", method, "--networks", network]
    arguments += ["--steps", str(steps)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": str(CORES // processes)}
    command = [sys.executable, *(torchrun if processes > 1 else []), *arguments]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return float(json.loads(line)["images_per_s"])


if __name__ == "__main__":
    main()
