#!/usr/bin/env python3
"""Time a LiteRT model on this machine's CPU and print one JSON object.

    python3 run_litert.py model.tflite --threads 2

Options, input and what is printed are those of run_onnx.py, which must lie beside it. Needs numpy and ai-edge-litert.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from run_onnx import Loaded, main

if TYPE_CHECKING:
    import numpy as np


def load(model: str, threads: int, batch: int) -> Loaded:
    """Load a model of one image input."""
    from ai_edge_litert.interpreter import Interpreter

    if batch != 1:
        raise ValueError("the model takes one image at a time: time it with a batch of 1")
    interpreter = Interpreter(model_path=model, num_threads=threads)
    interpreter.allocate_tensors()
    (images_details,), (features_details,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(images_details["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(features_details["index"])

    return Loaded("litert", version("ai-edge-litert"), "XNNPACK", images_details["shape"].tolist(), run)


if __name__ == "__main__":
    main("ai_edge_litert.interpreter", load)
