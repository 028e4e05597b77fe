"""Which network for which task? A study of 24 small networks in five scenarios, by two workers of which one is killed::

    python -m benchmarks.scenarios --objects 'data/cifar10-*.tar' --photographs data/photos-250.tar --out scenarios
    python -m benchmarks.study --train 'data/cifar10-*.tar' --label CIFAR-10 --scenarios scenarios

Networks are those of ``benchmarks/study.yaml``, pre-trained by SimCLR and by rotation at the quick scale, one thread
each. A second worker joins; when a few networks are done it is killed, and a third takes its place, as on a machine
that fails. What was stopped goes on where it was. Test images choose nothing: ``linear_cv`` cross-validates.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.pipeline import study_report
from lightssl.study.table import read_table, write_table

RESULTS = Path(__file__).parent / "results"
GRID = Path(__file__).with_name("study.yaml")
SCENARIOS = ("objects", "orientation", "places", "digits", "clothes")
METHODS = ("simclr", "rotation")
KILLED_AFTER = 3  # results in the table


def main() -> None:
    """Run the study to its end, and keep what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="images to pre-train on")
    parser.add_argument("--label", help="what the results call them")
    parser.add_argument("--scenarios", type=Path, required=True, help="what benchmarks.scenarios made")
    parser.add_argument("--duration", default="16k examples", help="of each pre-training")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--keep", action="store_true", help="only keep what is known so far, of a study under way")
    options = parser.parse_args()
    if options.keep:
        keep(options.out, options.label or options.train)
        return
    log = options.out / "killed.json"
    lead = start(lead_arguments(options))
    wait_until(lead, lambda: (options.out / "study" / "jobs.db").exists())
    helper = start(["--join", str(options.out)])
    if not log.exists():
        wait_until(lead, lambda: measured(options.out) >= KILLED_AFTER)
        os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        write_json(log, {"when": datetime.now(UTC).isoformat(timespec="seconds"), "networks": measured(options.out)})
        helper = start(["--join", str(options.out)])
    if lead.wait() or helper.wait():
        sys.exit("A worker failed: see what it said above.")
    keep(options.out, options.label or options.train)


def lead_arguments(options: argparse.Namespace) -> list[str]:
    """Return how the worker is started that leads."""
    if (options.out / "study" / "study.json").exists():
        return ["--resume", str(options.out)]
    downstream = ",".join(str(options.scenarios / name) for name in SCENARIOS)
    methods = [word for method in METHODS for word in ("--method", method)]
    settings = ["--scale", "quick", "--set", f"train.duration={options.duration}", "--image-size", "32"]
    what = ["--grid", str(GRID), *methods, "--train", options.train, "--downstream", downstream]
    return [*what, *settings, "--seeds", options.seeds, "--out", str(options.out)]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a worker of one thread, in a process group of its own."""
    command = [sys.executable, "-m", "lightssl", "study", "run", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_until(lead: subprocess.Popen[bytes], condition: Any) -> None:
    """Wait for a condition while a worker lives."""
    while not condition() and lead.poll() is None:
        time.sleep(1)


def measured(out: Path) -> int:
    """Return how many networks the table holds so far."""
    path = out / "study" / "results.parquet"
    return len({(row.member, row.recipe, row.seed) for row in read_table(path)}) if path.exists() else 0


def keep(out: Path, label: str) -> None:
    """Write the page, and what it says with the table that it says it of, under names that mean something elsewhere."""
    with TemporaryDirectory() as folder:
        place = Path(folder) / "study"
        rows = [replace(row, scenario=Path(row.scenario).name) for row in read_table(out / "study" / "results.parquet")]
        write_table(place / "results.parquet", rows)
        asked = json.loads((out / "study" / "study.json").read_text(encoding="utf-8"))["asked"]
        asked["question"] |= {"grid": GRID.name, "downstream": list(SCENARIOS)}
        write_json(place / "study.json", {"asked": {**asked, "train": label}})
        report = study_report(folder)
        copyfile(place / "report.html", RESULTS / "study.html")
        copyfile(place / "results.parquet", RESULTS / "study.parquet")
    trained = {(row.member, row.recipe, row.seed) for row in rows if row.top1 is not None}
    write_json(
        RESULTS / "study.json",
        {
            "what": f"{GRID.name} at the quick scale, each network pre-trained on {label}",
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "workers": 2,
            "killed": json.loads((out / "killed.json").read_text(encoding="utf-8")),
            "trained": len(trained),
            "asked": report["asked"],
            "verdict": report["verdict"],
            "scenarios": report["scenarios"],
            "networks": report["networks"],
            "correlations": report["correlations"][0]["spearman"] if report["correlations"] else None,
        },
    )


if __name__ == "__main__":
    main()
