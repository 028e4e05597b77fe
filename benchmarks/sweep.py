"""Which views suit a small network on few images: four values of each choice of SSLight, one at a time::

    python -m benchmarks.sweep --data 'data/cifar10-*.tar' --label CIFAR-10

MobileNetV2 of half the width at the quick scale, on a subset, one thread. The sweep is killed once in the middle of a
training and resumed; the point that it was at is then measured once more, alone, and must have the same score. What was
stopped goes on where it was. Scores are of images that are held out from the training images: no test image is used.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from typing import Any

from benchmarks.subset import write_subset
from lightssl.files import read_json_lines, write_json, write_text
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
RECIPE = "mobilenetv2_dino"
# The recipe's own values are among them: 0.3, 18 (of 32 pixels, as 128 of 224), 4 and 0.6.
AXES = {
    "boundary": "0.14,0.2,0.3,0.4",
    "local_size": "10,14,18,22",
    "local_count": "1,2,4,8",
    "balance": "0.4,0.6,0.8,pairs",
}
SETTINGS = ["backbone.width=0.5", "train.precision=32-true", "train.checkpoint_every=5%"]


def main() -> None:
    """Sweep, kill, resume, measure one point again, and write page, picture and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--per-class", type=int, default=1000, help="images of the subset")
    parser.add_argument("--duration", default="20k examples", help="of each training")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    data = write_subset(options.data, options.per_class, options.out, with_test=False)
    run = options.out / "run"
    runs = len(options.seeds.split(",")) * (1 + 3 * len(AXES))

    killed = options.out / "killed.json"
    if not killed.exists():
        arguments = ["--recipe", RECIPE, "--scale", "quick", "--data", str(data), "--seeds", options.seeds]
        arguments += [word for axis, values in AXES.items() for word in ("--axis", f"{axis}={values}")]
        settings = [*SETTINGS, f"train.duration={options.duration}"]
        arguments += [word for setting in settings for word in ("--set", setting)]
        begun = (run / "sweep" / "sweep.json").exists()
        process = start(["--resume", str(run)] if begun else [*arguments, "--out", str(run)])
        write_json(killed, {"point": kill_midway(process, run / "sweep" / "points", runs // 2), "of_runs": runs})
    if not (run / "sweep" / "recommended.yaml").exists():
        wait(start(["--resume", str(run)]))
    point = json.loads(killed.read_text(encoding="utf-8"))["point"]
    again = json.loads(wait(start(["--resume", str(run), "--point", point, "--json"])))
    if again["score"] != again["before"]:
        raise SystemExit(f"{point} has {again['score']!r} alone, and {again['before']!r} in the sweep")
    write_results(run, point, again, options)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a sweep of one thread; its progress goes to the terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "lightssl", "views", "sweep", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its workers are killed with it
    )


def wait(process: subprocess.Popen[str]) -> str:
    """Wait for the end, and return what was printed."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return printed


def kill_midway(process: subprocess.Popen[str], points: Path, done: int) -> str:
    """Kill a sweep in the middle of a training once so many are done; return the name of that training."""
    while process.poll() is None:
        finished = {path.parent.name for path in points.glob("*/score.json")}
        if len(finished) >= done:
            for log in points.glob("*/metrics.jsonl"):
                rows = read_json_lines(log)
                if log.parent.name not in finished and rows and (log.parent / "checkpoints" / "last.pt").exists():
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    return log.parent.name
        time.sleep(0.1)
    raise SystemExit("The sweep ended before it could be killed.")


def write_results(run: Path, point: str, again: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what was found to the results."""
    found = json.loads((run / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    options.results.mkdir(parents=True, exist_ok=True)
    copyfile(run / "sweep" / "sweep.png", options.results / "sweep.png")
    page = (run / "sweep" / "sweep.html").read_text(encoding="utf-8")  # names the folder as this machine does
    write_text(options.results / "sweep.html", page.replace(str(options.out), "runs/sweep"))
    write_json(
        options.results / "sweep.json",
        {
            "what": f"{RECIPE}, {', '.join(SETTINGS)}, scale quick, {options.duration} a training: kNN in % on "
            "held-out images over four values of each choice of views, one at a time",
            "data": options.label or options.data,
            "images_a_class": options.per_class,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "killed_in": point,
            "that_point_alone": {"score": again["score"], "in the sweep": again["before"]},
            "training_minutes": round(
                sum(row["minutes"] * len(row["by_seed"]) for row in found["points"] if "minutes" in row), 1
            ),
            **{key: found[key] for key in ("verdict", "recommended", "seed_spread", "effects", "points")},
        },
    )
    print(found["verdict"])


if __name__ == "__main__":
    main()
