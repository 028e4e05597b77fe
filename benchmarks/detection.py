"""What is pre-training worth for finding objects? Detectors on pre-trained networks and on the same from random::

    python -m benchmarks.pasted --objects 'data/cifar10-*.tar' --backgrounds data/photos-250.tar --out pasted
    python -m benchmarks.detection --data pasted runs/few_labels/200k-examples/seed*

Faster and Mask R-CNN at the quick scale, all layers trained alike, one thread; what was done is not done again. Test
photographs, of other objects and other backgrounds, choose nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from benchmarks.training import lightssl
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"
TASKS = {"detect": ("ap", "ap50", "ap75"), "segment": ("ap", "ap50", "ap75", "box_ap")}


def main() -> None:
    """Train what is missing, and write the table as far as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Run, help="pre-trained alike, of one seed each")
    parser.add_argument("--data", required=True, help="what benchmarks.pasted made")
    parser.add_argument("--label", default="1,000 and 300 photographs with pasted CIFAR-10 images")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    options = parser.parse_args()
    found: list[dict[str, dict[str, Any]]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for run, results in zip(
            options.runs, pool.map(lambda run: measure(run, options.data), options.runs), strict=True
        ):
            found.append(results)
            write_result(found, options.runs, options.label)
            for task in TASKS if run is options.runs[0] else ():
                with Image.open(run.picture_path(task)) as picture:  # of photographs: a third of its size as JPEG
                    picture.convert("RGB").save(RESULTS / f"detection_{task}.jpg", quality=88)


def measure(run: Run, data: str) -> dict[str, dict[str, Any]]:
    """Return what each task has found on a run."""
    for task in TASKS:
        if not run.evaluation_path(task).exists():
            lightssl("evaluate", str(run), "--task", task, "--data", data)
    return {task: json.loads(run.evaluation_path(task).read_text(encoding="utf-8")) for task in TASKS}


def write_result(found: Sequence[Mapping[str, Mapping[str, Any]]], runs: Sequence[Run], label: str) -> None:
    """Write a row for each task and measure: of each run, pre-trained and from random."""
    rows = []
    for task, names in TASKS.items():
        for name in names:
            by_network = {
                network: [
                    row[name] for results in found for row in results[task]["results"] if row["network"] == network
                ]
                for network in ("pre-trained", "random")
            }
            gains = [after - before for after, before in zip(*by_network.values(), strict=True)]
            every = {**by_network, "gain": gains}
            rows.append(
                {
                    "task": task,
                    "measure": name,
                    **{key: [round(value, 2) for value in values] for key, values in every.items()},
                    "mean": {key: round(mean(values), 2) for key, values in every.items()},
                }
            )
    recipe = runs[0].recipe()
    settings = {task: found[0][task]["results"][0] for task in TASKS}
    keys = ("iterations", "batch_size", "learning_rate", "precision", "parameters", "train_images", "test_images")
    write_json(
        RESULTS / "detection.json",
        {
            "what": f"{recipe['name']} at scale {recipe['scale']}, pre-trained on {recipe['train']['duration']}",
            "data": label,
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions(),
            "seeds": [results["detect"]["seed"] for results in found],
            "settings": {task: {key: row[key] for key in keys} for task, row in settings.items()},
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
