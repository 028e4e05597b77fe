#!/usr/bin/env python3
"""Time an ExecuTorch program on this machine's CPU and print one JSON object.

    python3 run_executorch.py model.pte --threads 2

Options, input and what is printed are those of run_onnx.py, which must lie beside it. Needs executorch and torch; the
memory of both counts in.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import torch  # whose libraries ExecuTorch's need
from run_onnx import Loaded, main

if TYPE_CHECKING:
    import numpy as np


def load(model: str, threads: int, batch: int) -> Loaded:
    """Load a program of one image input."""
    # Not through its wrapper, which imports all that lowers networks.
    from executorch.extension.pybindings._C import _load_for_executorch, _unsafe_reset_threadpool

    if batch != 1:
        raise ValueError("the program takes one image at a time: time it with a batch of 1")
    _unsafe_reset_threadpool(threads)
    module = _load_for_executorch(model)
    shape = module.method_meta("forward").input_tensor_meta(0).sizes()

    def run(images: np.ndarray) -> np.ndarray:
        return module.forward([torch.from_numpy(images)])[0].numpy()

    return Loaded("executorch", version("executorch"), "XNNPACK", shape, run)


if __name__ == "__main__":
    main("executorch.extension.pybindings._C", load)
