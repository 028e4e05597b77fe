"""How far the features of an ONNX model are from torch's."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lightssl.deploy.onnx import ModelDescription, first_line, open_session
from lightssl.errors import ExportError


@dataclass(frozen=True)
class Parity:
    """The features of a model beside the expected ones, on the same images."""

    images: int
    max_error: float  # largest absolute difference of a feature
    mean_error: float  # mean absolute difference
    max_feature: float  # largest absolute feature expected, which the errors are to be held against
    cosine: float  # between the two feature vectors of an image, mean over the images


def compare_features(features: Tensor, expected: Tensor) -> Parity:
    """Compare features with the expected ones, both float32 [N, D].

    Raises:
        ExportError: They have different shapes, or ``features`` are not finite.
    """
    if features.shape != expected.shape:
        raise ExportError(
            f"The model's features have shape {list(features.shape)}, torch's {list(expected.shape)}.",
            "Give the run that the model was exported from.",
        )
    if not bool(torch.isfinite(features).all()):
        raise ExportError("The model's features are not finite.", "Its precision is too low for this network.")
    error = (features - expected).abs()
    return Parity(
        images=len(features),
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        max_feature=float(expected.abs().max()),
        cosine=float(cosine_similarity(features, expected, dim=1).mean()),
    )


def check_fits(path: Path, description: ModelDescription, size: int) -> None:
    """Raise ExportError unless a model maps any number of images [B, 3, size, size] to features [B, D]."""
    batch, *image = description.input_shape or (1,)
    if isinstance(batch, int) or image != [3, size, size] or len(description.output_shape) != 2:
        raise ExportError(
            f"{path} maps {list(description.input_shape)} to {list(description.output_shape)}; the run's network maps "
            f"images [batch, 3, {size}, {size}] to features [batch, width].",
            "Give the run that the model was exported from.",
        )


def file_input(images: Tensor, metadata: Mapping[str, str]) -> Tensor:
    """Turn normalised images, float32 [B, 3, S, S], into what a file takes that has this ``metadata_props``."""
    if metadata.get("normalisation") != "inside":
        return images
    mean, std = (torch.tensor(json.loads(metadata[name])).view(1, 3, 1, 1) for name in ("mean", "std"))
    return images * std + mean


class OnnxNetwork(nn.Module):
    """An ONNX model in place of the torch network that it was exported from: both map the same images to features.

    Args:
        model: Serialised, with one image input and one output.
        metadata: Its ``metadata_props``, which say whether it normalises images itself.
        in_float: Compute in float what the nodes of a quantised model say, rather than with the integer kernels of this
            machine. Where those saturate, as on x86 without VNNI, only this tells what other machines compute.

    Raises:
        ExportError: ONNX Runtime cannot load the model.
    """

    def __init__(self, model: bytes, metadata: Mapping[str, str], *, in_float: bool = False) -> None:
        super().__init__()
        self.in_float = in_float
        self._session = open_session(model, in_float=in_float)
        self._metadata = metadata

    def as_input(self, images: Tensor) -> dict[str, object]:
        """Turn normalised images, float32 [B, 3, S, S], into what the session is fed with."""
        return {self._session.get_inputs()[0].name: file_input(images, self._metadata).numpy()}

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images, float32 [B, 3, S, S], to features [B, D].

        Raises:
            ExportError: The model fails on them.
        """
        try:
            features = self._session.run(None, self.as_input(images))[0]
        except Exception as error:  # the runtime's errors have no public base class
            raise ExportError(f"The model fails on images {list(images.shape)}: {first_line(error)}") from error
        return torch.from_numpy(features)


def is_of_this_machine(architecture: str) -> bool:
    """Whether the integer kernels of this machine compute a file made for ``architecture`` as they do there."""
    machine = platform.machine().lower()
    if architecture == "arm":
        return machine.startswith(("arm", "aarch64"))
    if architecture == "x86":
        return machine in ("x86_64", "amd64", "i386", "i686")
    return True
