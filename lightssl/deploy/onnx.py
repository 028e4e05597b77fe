"""From a torch network to one ONNX file that is known to compute the same, and back to what the file says of itself."""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from torch import Tensor, nn

from lightssl import __version__
from lightssl.errors import ExportError
from lightssl.files import write_bytes

# Official builds of ONNX Runtime send telemetry unless told not to before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

OPSET = 18
INPUT, FEATURES, LOGITS = "images", "features", "logits"  # and the two kinds of outputs

# Largest difference allowed between a feature of the file and torch's, as a share of the largest feature. Folding batch
# norm into convolutions and other orders of summation cost about 1e-6; a wrong operator costs far more than this.
TOLERANCE = 1e-4

Normalisation = tuple[float, float, float]  # one value a channel, red, green, blue


@dataclass(frozen=True)
class ExportResult:
    """What was written and how well it agrees with torch. ``dataclasses.asdict`` of it is ready for JSON."""

    path: str
    bytes: int
    sha256: str
    opset: int
    input_size: int
    feature_width: int
    max_error_random: float  # largest absolute difference of a feature from torch's, on random inputs
    max_error_images: float | None  # the same on real images, None when there were none
    max_feature: float  # largest absolute feature met, which the errors are to be held against


@dataclass(frozen=True)
class ModelDescription:
    """What an ONNX file says of itself."""

    bytes: int
    sha256: str
    opset: int
    input_shape: tuple[int | str, ...]  # a str names a dimension that is free
    output_shape: tuple[int | str, ...]
    metadata: dict[str, str]  # empty for a model that did not come from lightssl

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``int8``."""
        return self.metadata.get("precision", "unknown")

    @property
    def architecture(self) -> str:
        """The processors that it is made for: ``any``, ``arm`` or ``x86``."""
        return self.metadata.get("architecture", "any")

    @property
    def normalises(self) -> bool:
        """Whether the graph takes images in 0..1 and normalises them itself."""
        return self.metadata.get("normalisation") == "inside"


class Normalised(nn.Module):
    """A network that takes RGB images in 0..1 and normalises them itself.

    Args:
        network: Maps normalised float32 [B, 3, S, S] to features [B, D].
        mean, std: Of each channel, in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Normalisation, std: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [B, 3, S, S] in 0..1 to features [B, D]."""
        features: Tensor = self.network((images - self.mean) / self.std)
        return features


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    input_size: int,
    mean: Normalisation,
    std: Normalisation,
    include_normalisation: bool,
    metadata: Mapping[str, str],
    images: Tensor | None,
    output: str = FEATURES,
) -> ExportResult:
    """Write ``network`` as one self-contained ONNX file with free batch size, and prove that it computes the same.

    The file has one input, ``images``, float32 [B, 3, S, S], RGB, and one output, float32 [B, D]. What ONNX Runtime
    computes is compared with those of torch in evaluation mode, on random inputs and on ``images``, before
    anything is written. A copy on the CPU is exported: ``network`` itself is not touched.

    Args:
        network: Maps normalised float32 [B, 3, S, S] to features [B, D].
        path: File to write. An existing one is replaced only when all went well.
        input_size: S, in pixels.
        mean, std: How the network's input is normalised, for each channel, in 0..1.
        include_normalisation: The graph takes images in 0..1 and normalises them itself, rather than normalised ones.
        metadata: More entries for the file's ``metadata_props``. Those that the exporter writes itself win.
        images: Real images to compare on, uint8 [N, S, S, 3], or None.
        output: Name of the output.

    Raises:
        ExportError: The network cannot be expressed in ONNX, has another output than [B, D], its features are not
            finite, or differ from torch's by more than ``TOLERANCE``.
        LightSSLError: The file cannot be written.
    """
    if images is not None:
        _check_images(images, input_size)
    network = evaluation_copy(network)
    exported = Normalised(network, mean, std) if include_normalisation else network
    model = _trace(exported, input_size, output)
    onnx.helper.set_model_props(model, {**metadata, **_own_metadata(input_size, mean, std, include_normalisation)})
    check_valid(model)
    content = model.SerializeToString()

    parity = _Parity(content, exported, output)
    max_error_random = max(parity.compare(_random_input(batch, input_size, include_normalisation)) for batch in (1, 3))
    max_error_images = None
    if images is not None:
        scale = nn.Identity() if include_normalisation else Normalised(nn.Identity(), mean, std)
        pixels = images.cpu().permute(0, 3, 1, 2)
        max_error_images = max(parity.compare(scale(chunk / 255)) for chunk in torch.split(pixels, 16))

    write_bytes(path, content)
    return ExportResult(
        path=str(path),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=OPSET,
        input_size=input_size,
        feature_width=parity.feature_width,
        max_error_random=max_error_random,
        max_error_images=max_error_images,
        max_feature=parity.max_feature,
    )


def evaluation_copy(network: nn.Module) -> nn.Module:
    """Copy a network to the CPU, in evaluation mode, float32 and plain memory order."""
    copy = deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()
    layers: Iterator[Any] = copy.modules()
    for layer in layers:
        if getattr(layer, "inplace", False):  # the same numbers, but the exporter takes such operations apart, slowly
            layer.inplace = False
    return copy


def as_exported(network: nn.Module, description: ModelDescription) -> nn.Module:
    """Copy a network to the CPU, taking the images that the file takes which was exported from it."""
    network = evaluation_copy(network)
    if not description.normalises:
        return network
    mean, std = (json.loads(description.metadata[name]) for name in ("mean", "std"))
    return Normalised(network, mean, std)


def describe_model(path: Path) -> ModelDescription:
    """Read what an ONNX file says of itself, without loading its weights into a runtime.

    Raises:
        ExportError: There is no such file, or it is not a whole ONNX model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"Cannot read the model {path}: {error.strerror}.", "Write one with: lightssl export --onnx"
        ) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise _not_a_model(path, "it is damaged, cut short or of another kind") from error
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets or not model.graph.input or not model.graph.output:
        raise _not_a_model(path, "it holds no graph with an input and an output")
    return ModelDescription(
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=opsets[0],
        input_shape=_shape(model.graph.input[0]),
        output_shape=_shape(model.graph.output[0]),
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return the ``metadata_props`` of an ONNX file. Raises what :func:`describe_model` raises."""
    return describe_model(path).metadata


def check_valid(model: onnx.ModelProto | bytes) -> None:
    """Raise ExportError unless the ONNX checker accepts a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The model is not valid ONNX: {first_line(error)}") from error


def open_session(model: bytes, *, in_float: bool = False) -> Any:
    """Load a serialised model into ONNX Runtime, on the CPU, with as many threads as torch has.

    Args:
        model: ONNX.
        in_float: Leave quantised operators to float kernels instead of integer ones.

    Raises:
        ExportError: The runtime refuses it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.disable_quant_qdq", "1" if in_float else "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no public base class
        raise ExportError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _trace(network: nn.Module, input_size: int, output: str) -> onnx.ModelProto:
    # A batch of 2: torch.export takes a dimension of 1 for a constant.
    example = torch.zeros(2, 3, input_size, input_size)
    try:
        with torch.no_grad():
            features = network(example)
    except RuntimeError as error:
        raise ExportError(f"The network fails on images of {input_size} px: {first_line(error)}") from error
    if not (isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(example)):
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ExportError(f"The network maps {list(example.shape)} to {got}, not to features [{len(example)}, D].")
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[output],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"The network cannot be exported to ONNX: {first_line(error.__cause__ or error)}") from error
    if program is None:
        raise ExportError("The exporter returned nothing.")
    model = program.model_proto  # a new copy at each access
    _forget_origin(model)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence a converter's warnings, log lines and graph dumps: what matters is checked afterwards."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _forget_origin(message: Message) -> None:
    """Remove, at every level, the exporter's notes: they hold paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                _forget_origin(part)


def _own_metadata(input_size: int, mean: Normalisation, std: Normalisation, inside: bool) -> dict[str, str]:
    return {
        "input_size": str(input_size),
        "input_layout": "float32 [batch, channels, height, width], RGB",
        "input_range": "0..1" if inside else "(x - mean) / std of x in 0..1",
        "normalisation": "inside" if inside else "outside",
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "precision": "fp32",
        "architecture": "any",
        "opset": str(OPSET),
        "lightssl_version": __version__,
        "torch_version": torch.__version__,
    }


class _Parity:
    """Compares the features of an ONNX model in ONNX Runtime with those of a torch network."""

    def __init__(self, model: bytes, network: nn.Module, output: str) -> None:
        self._session = open_session(model)
        self._network = network
        self._output = output
        self.feature_width = 0
        self.max_feature = 0.0

    def compare(self, images: Tensor) -> float:
        """Return the largest absolute difference over ``images``, float32 [B, 3, S, S].

        Raises:
            ExportError: It is too large, or a feature is not finite.
        """
        with torch.no_grad():
            expected = self._network(images).numpy()
        try:
            (features,) = self._session.run([self._output], {INPUT: images.numpy()})
        except Exception as error:  # as above
            raise ExportError(f"The exported model fails on a batch of {len(images)}: {first_line(error)}") from error
        if features.shape != expected.shape:
            raise ExportError(f"The exported model's features have shape {features.shape}, torch's {expected.shape}.")
        if not (np.isfinite(features).all() and np.isfinite(expected).all()):
            raise ExportError(
                "The network's features are not finite.", "It has diverged or is damaged: take an earlier checkpoint."
            )
        error_size, magnitude = float(np.abs(features - expected).max()), float(np.abs(expected).max())
        if error_size > TOLERANCE * magnitude:
            raise ExportError(
                f"The exported model does not compute what the network does: a feature is off by {error_size:.3g}, "
                f"where the largest is {magnitude:.3g} and {TOLERANCE * magnitude:.3g} is allowed.",
                "Look for something random, or a branch that depends on the input, in the network's evaluation mode.",
            )
        self.feature_width = features.shape[1]
        self.max_feature = max(self.max_feature, magnitude)
        return error_size


def _random_input(batch: int, size: int, include_normalisation: bool) -> Tensor:
    draw = torch.rand if include_normalisation else torch.randn
    return draw(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def _check_images(images: Tensor, size: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3) or len(images) == 0:
        raise ExportError(f"Expected uint8 images [N, {size}, {size}, 3], got {images.dtype} {list(images.shape)}.")


def _shape(value: Any) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _not_a_model(path: Path, reason: str) -> ExportError:
    return ExportError(f"{path} is not an ONNX model: {reason}.", "Write it again with: lightssl export --onnx")
