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
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training_step import BATCH, BOTTLENECK, VIEWS, WIDTHS, lightssl, measure
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
CORES = 2


def main() -> None:
    """Time both in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=BOTTLENECK, default=list(BOTTLENECK))
    parser.add_argument("--networks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of each side in each round, after two that warm up")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        found = measure(lightssl(options.methods[0], options.networks[0], precision="32-true"), options.steps)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
        return
    rows = []
    for network in options.networks:
        for method in options.methods:
            rows.append(compare(method, network, options))
            result = {
                "what": "one training step on "
                + " and ".join(f"{count} views of {size}" for count, size in VIEWS)
                + f" pixels of {BATCH} images, fp32: {CORES} processes of one thread beside one of {CORES}",
                "measured": datetime.now(UTC).date().isoformat(),
                "rounds": options.rounds,
                "steps": options.steps,
                "machine": describe_machine(),
                "versions": versions(),
                "rows": rows,
            }
            write_json(RESULTS / "processes.json", result)


def compare(method: str, network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time one process and several, round by round."""
    rates: dict[int, list[float]] = {1: [], CORES: []}
    for _ in range(options.rounds):
        for processes, found in rates.items():
            found.append(images_per_second(processes, method, network, options.steps))
            print(f"{network:12} {method:7} {processes} processes {found[-1]:8.2f} images/s", flush=True)
    row: dict[str, Any] = {"network": network, "method": method}
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
