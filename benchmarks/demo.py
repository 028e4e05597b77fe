"""What ``make demo`` takes and gives: seconds and memory of each command, and what was learned::

python -m benchmarks.demo
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.commands import measure
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions
from lightssl.runs import Run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the commands of the Makefile's demo, one after the other, and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "demo")
        commands = {
            "pretrain": ["pretrain", "--recipe", "mobilenetv2_dino", "--out", str(run)],
            "evaluate": ["evaluate", str(run)],
            "export": ["export", str(run), "--onnx"],
            "bench": ["bench", str(run.onnx_path), "--target", "cpu"],
            "report": ["report", str(run)],
        }
        steps = {name: measure(arguments) for name, arguments in commands.items()}
        accuracies = {
            task: {
                row["network"]: row["top1"]
                for row in json.loads(run.evaluation_path(task).read_text(encoding="utf-8"))["results"]
            }
            for task in ("knn", "linear")
        }
        latencies = json.loads(run.bench_path("cpu").read_text(encoding="utf-8"))["rows"]
        recipe = run.recipe()
    result = {
        "what": "the commands of make demo: mobilenetv2_dino, scale quick, on the embedded sample",
        "measured": datetime.now(UTC).date().isoformat(),
        "seed": recipe["train"]["seed"],
        "duration": recipe["train"]["duration"],
        "machine": describe_machine(),
        "versions": versions(),
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_memory_mib": max(step["peak_memory_mib"] for step in steps.values()),
        "steps": steps,
        "top1": accuracies,
        "latency": [
            {key: row[key] for key in ("runtime", "threads", "latency_ms_p50", "latency_ms_p90", "latency_ms_p99")}
            for row in latencies
        ],
    }
    write_json(RESULTS / "demo.json", result)
    print(json.dumps({key: result[key] for key in ("seconds", "peak_memory_mib", "steps", "top1")}, indent=2))


if __name__ == "__main__":
    main()
