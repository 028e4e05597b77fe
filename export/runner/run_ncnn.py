#!/usr/bin/env python3
"""Time an ncnn model on this machine's CPU and print one JSON object.

    python3 run_ncnn.py model.ncnn.param --threads 2

Options, input and what is printed are those of run_onnx.py, which must lie beside it; model.ncnn.bin must lie beside
the model. Needs numpy and ncnn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from run_onnx import Loaded, main

if TYPE_CHECKING:
    import numpy as np


def load(model: str, threads: int, batch: int) -> Loaded:
    """Load an ncnn network of one image input, whose size its first layer tells."""
    import ncnn
    import numpy as np

    if batch != 1:
        raise ValueError("ncnn takes one image at a time: time it with a batch of 1")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if net.load_param(model) != 0 or net.load_model(str(Path(model).with_suffix(".bin"))) != 0:
        raise ValueError("ncnn cannot read it")
    (images_name,), (features_name,) = net.input_names(), net.output_names()

    def run(images: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input(images_name, ncnn.Mat(images[0]))
        status, features = extractor.extract(features_name)
        if status != 0:
            raise ValueError(f"ncnn failed with {status}")
        return np.array(features)[None]

    return Loaded("ncnn", ncnn.__version__, "CPU", [1, *input_shape(Path(model))], run)


def input_shape(param: Path) -> list[int]:
    """Return channels, height and width of the input, which ncnn's own loader does not tell."""
    for line in param.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split()
        if kind == "Input":
            sizes = dict(field.split("=") for field in fields if "=" in field)
            return [int(sizes[key]) for key in ("2", "1", "0")]
    raise ValueError("the model has no input")


if __name__ == "__main__":
    main("ncnn", load)
