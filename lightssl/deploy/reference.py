"""What a device's output is held against: ONNX Runtime's on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightssl.deploy.runner import SEED, input_images, run_here
from lightssl.errors import TargetError

_ONCE = {"warmup": 0, "min_samples": 1, "min_seconds": 0, "max_seconds": 0}


class HostReference:
    """What ONNX Runtime on this machine makes of the input that a model is timed on.

    Args:
        model: ONNX file.
        batch: Images in the input.
        timeout: Seconds that it may take.

    Raises:
        TargetError: ONNX Runtime refuses the model, or does not come to an end.
    """

    def __init__(self, model: Path, *, batch: int, timeout: float) -> None:
        self._answer = run_here(model, {"batch": batch, "seed": SEED, **_ONCE}, timeout=timeout)
        self.images = input_images(self._answer["input_shape"])  # float32 [B, 3, S, S]

    def errors_of(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a :class:`~lightssl.deploy.latency.Measurement` that say how far an output is off.

        Raises:
            TargetError: It has another shape.
        """
        return {"max_error_vs_host": largest_error(answer, self._answer, "ONNX Runtime's here")}


def largest_error(answer: Mapping[str, Any], expected: Mapping[str, Any], whose: str) -> float:
    """Return the largest absolute difference of an output from the one expected.

    Args:
        answer: Of a runner: ``output_shape``, and the first values of the output, flat.
        expected: The same; as many values or more.
        whose: The expected output, in words.

    Raises:
        TargetError: They have different shapes.
    """
    output, reference = (np.asarray(side["output"], dtype=np.float32) for side in (answer, expected))
    shapes = [list(side["output_shape"]) for side in (answer, expected)]
    if shapes[0] != shapes[1] or not 0 < output.size <= reference.size:
        raise TargetError(f"The output has {output.size} values of shape {shapes[0]}, {whose} shape {shapes[1]}.")
    return float(np.abs(output - reference[: output.size]).max())
