"""What the exported network costs on this CPU, beside torch eager: MobileNetV2 and ResNet18 at 224 pixels::

    python -m benchmarks.latency

Weights do not change the time, so the networks are not trained. ONNX Runtime runs in a fresh process for each number of
threads; torch eager runs in this one. Ratios are of medians within one run. In turns with ours, ONNX Runtime is also
timed by the few lines that one would write oneself, to show that ours adds nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost
from lightssl.config.schema import DataOptions
from lightssl.deploy.onnx import export_onnx
from lightssl.deploy.profile import bench, load_profile
from lightssl.files import write_json
from lightssl.machine import describe_machine, versions

RESULTS = Path(__file__).parent / "results"
SIZE = 224

BY_HAND = """
import sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = {session.get_inputs()[0].name: numpy.random.rand(1, 3, 224, 224).astype("float32")}
times = []
for _ in range(10 + 100):
    started = time.perf_counter()
    session.run(None, images)
    times.append(time.perf_counter() - started)
print(1000 * numpy.median(times[10:]))
"""


def main() -> None:
    """Export, time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison with timing by hand")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    data = DataOptions()
    for name in ("mobilenetv2", "resnet18"):
        torch.manual_seed(0)
        network = BACKBONES[name]().eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            exported = export_onnx(
                network,
                path,
                input_size=SIZE,
                mean=data.mean,
                std=data.std,
                include_normalisation=True,
                metadata={},
                images=None,
            )
            measurements = bench(path, load_profile("cpu"), network=network)
            to_by_hand = ratios_to_by_hand(path, options.rounds)
        for measurement in measurements:
            row = asdict(measurement)
            rows.append(
                {
                    "network": name,
                    "mflops": round(count_cost(network, SIZE).flops / 1e6),
                    "max_error": exported.max_error_random,
                    "p50_to_by_hand": to_by_hand[measurement.threads] if row["runtime"] == "onnxruntime" else None,
                    **{key: row[key] for key in row if key not in ("model_sha256", "kind")},
                }
            )
    result = {
        "what": f"one image of {SIZE} px, fp32",
        "measured": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "rounds_by_hand": options.rounds,
        "machine": describe_machine(),
        "versions": versions(),
        "rows": rows,
    }
    write_json(RESULTS / "latency.json", result)
    for row in rows:
        print(
            json.dumps({key: row[key] for key in ("network", "runtime", "threads", "latency_ms_p50", "p50_to_by_hand")})
        )


def ratios_to_by_hand(path: Path, rounds: int) -> dict[int, float]:
    """Our p50 to that of the few lines, by number of threads; medians over rounds in turns."""
    found: dict[int, list[float]] = {}
    for _ in range(rounds):
        for measurement in bench(path, load_profile("cpu")):
            command = [sys.executable, "-c", BY_HAND, str(path), str(measurement.threads)]
            env = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
            by_hand = float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
            found.setdefault(measurement.threads, []).append(measurement.latency_ms_p50 / by_hand)
    return {threads: round(median(ratios), 3) for threads, ratios in found.items()}


if __name__ == "__main__":
    main()
