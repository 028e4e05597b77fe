"""What a device's output is held against: ONNX Runtime's on this machine, and torch's where there is the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.deploy.onnx import ModelDescription, as_exported
from lightssl.deploy.runner import SEED, input_images, run_here
from lightssl.errors import TargetError

_ONCE = {"warmup": 0, "min_samples": 1, "min_seconds": 0, "max_seconds": 0}
_OTHER_NETWORK = "Give the network that the model was exported from."


class TorchReference:
    """What torch makes of the input that a model is timed on.

    Args:
        network: The network that the model was exported from, mapping normalised float32 [B, 3, S, S] to [B, D].
        description: Of the model.
        images: The input, float32 [B, 3, S, S].

    Raises:
        TargetError: The network fails on such an input.
    """

    def __init__(self, network: nn.Module, description: ModelDescription, images: np.ndarray) -> None:
        self.network = as_exported(network, description)
        self.images: Tensor = torch.from_numpy(images)
        try:
            with torch.inference_mode():
                expected = self.network(self.images)
        except RuntimeError as error:
            raise TargetError(
                f"The network fails on the model's input {list(images.shape)}.", _OTHER_NETWORK
            ) from error
        self._answer = {"output_shape": list(expected.shape), "output": expected.numpy().ravel()}

    def error_of(self, answer: Mapping[str, Any]) -> float:
        """Return the largest absolute difference of a feature from torch's.

        Raises:
            TargetError: The features have another shape.
        """
        return largest_error(answer, self._answer, "torch's", _OTHER_NETWORK)


class HostReference:
    """What this machine makes of the input that a model is timed on elsewhere.

    Args:
        model: ONNX file.
        description: Of the model.
        network: The network that it was exported from, where there is one.
        batch: Images in the input.
        timeout: Seconds that ONNX Runtime may take.

    Raises:
        TargetError: ONNX Runtime refuses the model, does not come to an end, or the network is not what is in the file.
    """

    def __init__(
        self, model: Path, description: ModelDescription, network: nn.Module | None, *, batch: int, timeout: float
    ) -> None:
        self._answer = run_here(model, {"batch": batch, "seed": SEED, **_ONCE}, timeout=timeout)
        self.images = input_images(self._answer["input_shape"])  # float32 [B, 3, S, S]
        self._torch = None if network is None else TorchReference(network, description, self.images)
        self.errors_of(self._answer)  # another network is told before the device is asked

    def errors_of(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a :class:`~lightssl.deploy.latency.Measurement` that say how far an output is off.

        Raises:
            TargetError: It has another shape.
        """
        return {
            "max_error_vs_torch": None if self._torch is None else self._torch.error_of(answer),
            "max_error_vs_host": largest_error(answer, self._answer, "ONNX Runtime's here"),
        }


def largest_error(answer: Mapping[str, Any], expected: Mapping[str, Any], whose: str, hint: str | None = None) -> float:
    """Return the largest absolute difference of an output from the one expected.

    Args:
        answer: Of a runner: ``output_shape``, and the first values of the output, flat.
        expected: The same; as many values or more.
        whose: The expected output, in words.
        hint: What to do about another shape.

    Raises:
        TargetError: They have different shapes.
    """
    output, reference = (np.asarray(side["output"], dtype=np.float32) for side in (answer, expected))
    shapes = [list(side["output_shape"]) for side in (answer, expected)]
    if shapes[0] != shapes[1] or not 0 < output.size <= reference.size:
        raise TargetError(f"The output has {output.size} values of shape {shapes[0]}, {whose} shape {shapes[1]}.", hint)
    return float(np.abs(output - reference[: output.size]).max())
