"""Whether the loader keeps up: a folder of a million images, and images a second with one and two workers::

    python -m benchmarks.loader --data 'photos/*.tar'

The million files are made in a temporary folder, a thousand a folder, and removed again. All of them are hard links to
a thousand small JPEG files, so they take hardly any space, and the system has their folders in memory when they are
listed. Every figure comes from a fresh process.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.commands import memory_mib
from lightssl.data.decode import decode
from lightssl.data.loader import PretrainingLoader, pretraining_loader
from lightssl.data.sources import open_source
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
PER_FOLDER = 1000  # file systems allow some ten thousand links to a file
RECIPE, BATCH = "mobilenetv2_dino", 32
MEMORY_WORKERS = 4
TICK = 2.5  # seconds; listings are kept of what has been as it is for two


def main() -> None:
    """Measure both parts, or one, and write them into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="photographs, for the throughput")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each throughput in each round")
    parser.add_argument("--only", nargs=2, metavar=("MEASURE", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure, workers = options.only
        print(json.dumps(MEASURES[measure](options, int(workers))))
        return
    path = RESULTS / "loader.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in options.parts:
        table[part] = {
            **PARTS[part](options),
            "measured": datetime.now(UTC).date().isoformat(),
            "rounds": options.rounds,
            "machine": describe_machine(),
            "versions": versions(),
        }
        write_json(path, table)


def many_files(options: argparse.Namespace) -> dict[str, Any]:
    """Open the million files with and without a kept listing, and see what their paths cost in memory."""
    with TemporaryDirectory() as folder:
        files, cache = Path(folder, "images"), Path(folder, "cache")
        write_files(files, options.images)
        time.sleep(TICK)
        seconds: dict[str, list[float]] = {"uncached": [], "cached": []}
        for number in range(options.rounds):
            for name, found in seconds.items():
                opened = in_its_own_process("opening", files, options, cache=cache / str(number))
                found.append(opened["seconds"])
                print(f"{name:10} {found[-1]:8.2f} s")
        kept = sum(file.stat().st_size for file in (cache / "0").iterdir())
        few, many = (
            in_its_own_process("memory", place, options, workers=MEMORY_WORKERS)
            for place in (next(files.iterdir()), files)
        )
    return {
        "what": f"{options.images:,} files, {PER_FOLDER:,} a folder; memory of a process and {MEMORY_WORKERS} workers, "
        "without a kept listing, which takes more",
        "seconds": {name: spread(found, 2) for name, found in seconds.items()},
        "kept_listing_mib": round(kept / 2**20, 1),
        f"memory_mib_{PER_FOLDER}_images": few,
        f"memory_mib_{options.images}_images": many,
        "memory_mib_of_the_paths": round(many["all"] - few["all"], 1),
    }


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Take batches as fast as one worker makes them, and two, in turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers, found in rates.items():
            found.append(in_its_own_process("rate", options.data, options, workers=workers)["images_per_s"])
            print(f"{workers} workers {found[-1]:8.1f} images/s")
    return {
        "what": f"views of {RECIPE}, scale paper, in batches of {BATCH}, by a consumer that only takes them",
        "images": len(open_source(options.data)),
        "images_per_s": {f"{workers}_workers": spread(found, 1) for workers, found in rates.items()},
        # Of each round on its own: what slows the machine down for a while slows both.
        "two_workers_over_one": spread([two / one for one, two in zip(rates[1], rates[2], strict=True)], 2),
    }


def in_its_own_process(
    measure: str, data: object, options: argparse.Namespace, *, workers: int = 0, cache: Path | None = None
) -> dict[str, Any]:
    """Measure one thing in a fresh process of one thread and the workers that it starts."""
    command = [sys.executable, "-m", "benchmarks.loader", "--data", str(data), "--seconds", str(options.seconds)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTSSL_CACHE": str(cache or os.devnull)}
    env["PYTHONWARNINGS"] = "ignore"  # torch's, of more workers than cores
    done = subprocess.run(
        [*command, "--only", measure, str(workers)], env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def opening(options: argparse.Namespace, _: int) -> dict[str, Any]:
    """Seconds that a source takes to open."""
    started = time.perf_counter()
    open_source(options.data)
    return {"seconds": time.perf_counter() - started}


def memory(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """MiB of this process and its workers, once each of them has read some hundred images."""
    batches = iter(loader(options.data, workers, scale="quick"))
    for _ in islice(batches, 16 * workers):
        pass
    return {"all": round(memory_mib(os.getpid()), 1), "of_each_worker_alone": private_mib(os.getpid())}


def rate(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Images a second that arrive, after all batches that were made in advance."""
    batches = iter(loader(options.data, workers, scale="paper"))
    for _ in islice(batches, 6 * workers):
        pass
    taken, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds:
        next(batches)
        taken += BATCH
    return {"images_per_s": taken / (time.perf_counter() - started)}


def loader(data: str, workers: int, *, scale: str) -> PretrainingLoader:
    """Build the loader as a pre-training run does, with no end."""
    from lightssl.config.load import load_recipe
    from lightssl.train.host import prepare_host
    from lightssl.views.maker import ViewMaker

    prepare_host()
    recipe = load_recipe(RECIPE, scale=scale)
    return pretraining_loader(
        open_source(data),
        ViewMaker(recipe.views, recipe.augment, seed=0),
        batch_size=BATCH,
        seed=0,
        start_step=0,
        total_steps=10**9,
        workers=workers,
    )


def private_mib(pid: int) -> list[float]:
    """MiB that each child of a process shares with no other process (Linux)."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        found.append(round(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024, 1))
    return found


def write_files(folder: Path, images: int) -> None:
    """Write images of the embedded sample, and links to them."""
    sample = open_source("sample")
    for number in range(-(-images // PER_FOLDER)):
        place = folder / f"n{number:08d}"
        place.mkdir(parents=True)
        first = place / f"n{number:08d}_0.JPEG"
        Image.fromarray(decode(sample.read(number % len(sample)))).save(first)
        for position in range(1, min(PER_FOLDER, images - number * PER_FOLDER)):
            (place / f"n{number:08d}_{position}.JPEG").hardlink_to(first)


def spread(found: list[float], digits: int) -> dict[str, float]:
    """Median, lowest and highest."""
    named = {"median": median(found), "lowest": min(found), "highest": max(found)}
    return {name: round(value, digits) for name, value in named.items()}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "many_files": many_files,
    "throughput": throughput,
}
MEASURES: dict[str, Callable[[argparse.Namespace, int], dict[str, Any]]] = {
    "opening": opening,
    "memory": memory,
    "rate": rate,
}


if __name__ == "__main__":
    main()
