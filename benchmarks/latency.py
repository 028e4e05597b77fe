"""What the exported network costs on this CPU, beside torch eager: MobileNetV2 and ResNet18 at 224 pixels::

    python -m benchmarks.latency

Weights do not change the time, so the networks are not trained. ONNX Runtime runs in a fresh process for each number of
threads; torch eager runs in this one. Ratios are of medians within one run.
"""

import json
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
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


def main() -> None:
    """Export, time, and write the table."""
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
        for measurement in measurements:
            row = asdict(measurement)
            rows.append(
                {
                    "network": name,
                    "mflops": round(count_cost(network, SIZE).flops / 1e6),
                    "max_error": exported.max_error_random,
                    **{key: row[key] for key in row if key not in ("model_sha256", "kind")},
                }
            )
    result = {
        "what": f"one image of {SIZE} px, fp32",
        "measured": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "machine": describe_machine(),
        "versions": versions(),
        "rows": rows,
    }
    write_json(RESULTS / "latency.json", result)
    for row in rows:
        print(
            json.dumps(
                {key: row[key] for key in ("network", "runtime", "threads", "latency_ms_p50", "peak_memory_mib")}
            )
        )


if __name__ == "__main__":
    main()
