#!/usr/bin/env python3
"""Time an OpenVINO model on this machine's CPU and print one JSON object.

    python3 run_openvino.py model.openvino.xml --threads 2

Options, input and what is printed are those of run_onnx.py, which must lie beside it. Needs numpy and openvino.
"""

import sys
from typing import Any

from run_onnx import Loaded, main

# Converters of OpenVINO send telemetry with it; what is used here does not, and does without.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def load(model: str, threads: int, batch: int) -> Loaded:
    """Load an OpenVINO file, or an ONNX one, as an app that waits for each image would."""
    import openvino as ov

    core = ov.Core()
    network = core.read_model(model)
    _, *image = network.input(0).partial_shape
    network.reshape([batch, *image])
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Left alone, float32 is computed in bfloat16 where the processor can.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()
    return Loaded(
        "openvino",
        ov.get_version().split("-")[0],
        "CPU",
        list(compiled.input(0).shape),
        lambda images: request.infer({0: images}, share_inputs=True)[0],
    )


if __name__ == "__main__":
    main("openvino", load)
