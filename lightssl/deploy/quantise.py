"""Smaller files from an exported one: half precision, and 8 bits by static quantisation."""

import tempfile
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lightssl.deploy.onnx import check_valid, first_line, quiet
from lightssl.deploy.parity import OnnxNetwork
from lightssl.errors import ExportError

Architecture = Literal["arm", "x86"]
ARCHITECTURES: tuple[Architecture, ...] = ("arm", "x86")

# Below this agreement with fp32, the layers that cost most are left in float, ...
MIN_AGREEMENT = 0.99
# ... as long as they hold at most this share of the weights: in float they are four times as large.
MAX_FLOAT_WEIGHTS = 0.01

_BATCH = 16  # images that pass through a model at a time
_WEIGHTED = ("Conv", "Gemm", "MatMul")
# What is computed in 8 bits: layers with weights, sums of convolutions, and what passes between them. Everything else
# stays in float: the pooling that makes the features, normalisation, attention, and the stream that the blocks of a
# transformer add to, whose few large values leave 8 bits too coarse for the others.
_QUANTISED = (*_WEIGHTED, "Add", "Clip", "Relu", "MaxPool")


@dataclass(frozen=True)
class Quantisation:
    """How a model was quantised. ``dataclasses.asdict`` of it is ready for JSON."""

    activations: str
    weights: str
    per_channel: bool  # a scale for each output channel of a layer's weights, rather than one for all
    float_layers: tuple[str, ...]  # nodes left in float
    calibration_images: int
    held_out_images: int  # other images, on which everything above was decided, by the agreements below
    agreement: float  # see `agreement`
    agreement_per_tensor: float  # with no layer in float
    agreement_per_channel: float


@dataclass(frozen=True)
class _Candidate:
    content: bytes
    per_channel: bool
    float_layers: tuple[str, ...]
    agreement: float


def to_fp16(model: bytes) -> bytes:
    """Store weights and compute in float16; input and output stay float32.

    Raises:
        ExportError: The model cannot be converted.
    """
    with quiet():
        from onnxruntime.transformers.float16 import convert_float_to_float16

        try:
            converted = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
        except Exception as error:  # the converter's errors have no common class
            raise ExportError(f"The model cannot be converted to fp16: {first_line(error)}") from error
    return _finished(converted, model, precision="fp16", architecture="any")


class Quantiser:
    """Quantises a model to 8 bits by the ranges that its activations take on real images.

    Args:
        model: The fp32 model, as :func:`lightssl.deploy.onnx.export_onnx` writes it.
        calibration: Normalised images that the ranges are measured on, float32 [N, 3, S, S].
        held_out: Other normalised images that decisions are made on, float32 [M, 3, S, S].

    Raises:
        ExportError: ONNX Runtime's tools cannot prepare the model.
    """

    def __init__(self, model: bytes, calibration: Tensor, held_out: Tensor) -> None:
        self._model = model
        self._metadata = _metadata(onnx.load_from_string(model))
        self._calibration_images = len(calibration)
        self._held_out = held_out
        float_network = OnnxNetwork(model, self._metadata)
        self._expected = _features(float_network, held_out)
        feeds = (float_network.as_input(images) for images in torch.split(calibration, _BATCH))
        with quiet(), tempfile.TemporaryDirectory() as folder:
            try:
                self._prepared = _prepare(model, Path(folder))
                self._ranges = _measure_ranges(Path(folder), feeds)
            except Exception as error:  # the tools' errors have no common class
                raise ExportError(f"The model cannot be prepared for quantisation: {first_line(error)}") from error
        initializers = {tensor.name: tensor for tensor in self._prepared.graph.initializer}
        nodes = self._prepared.graph.node
        convolved = {node.output[0] for node in nodes if node.op_type == "Conv"}
        self._in_float = {node.name for node in nodes if node.op_type == "Add" and convolved.isdisjoint(node.input)}
        self._weights = {
            node.name: _elements(initializers[node.input[1]])
            for node in nodes
            if node.op_type in _WEIGHTED and node.input[1] in initializers
        }
        self._nodes = {node.name for node in nodes if node.op_type in _QUANTISED}
        if not self._weights:
            raise ExportError("The model has no layer that could be quantised.")

    def quantise(self, architecture: Architecture) -> tuple[bytes, Quantisation]:
        """Quantise for one architecture: activations unsigned, weights signed, symmetric.

        x86 processors without VNNI add products of 8 bits in 16, which overflows: weights made for x86 take 7 bits.
        One scale for a layer and one for each of its channels are both tried, and the better is taken. Where its
        :func:`agreement` is below ``MIN_AGREEMENT``, each layer is quantised alone to see what it costs, and the
        dearest are left in float, one after the other, until the rest is good enough or they hold
        ``MAX_FLOAT_WEIGHTS``.

        Returns:
            The serialised model and how it came about.

        Raises:
            ExportError: ONNX Runtime's tools cannot quantise the model, or cannot load what they made.
        """
        reduce_range = architecture == "x86"
        per_tensor, per_channel = (self._try(scheme, reduce_range) for scheme in (False, True))
        best = max(per_channel, per_tensor, key=lambda candidate: candidate.agreement)
        if best.agreement < MIN_AGREEMENT:
            best = self._spare_the_dearest(best, reduce_range)
        quantisation = Quantisation(
            activations="uint8",
            weights="int8, 7 bits of it" if reduce_range else "int8",
            per_channel=best.per_channel,
            float_layers=best.float_layers,
            calibration_images=self._calibration_images,
            held_out_images=len(self._held_out),
            agreement=best.agreement,
            agreement_per_tensor=per_tensor.agreement,
            agreement_per_channel=per_channel.agreement,
        )
        model = onnx.load_from_string(best.content)
        return _finished(model, self._model, precision="int8", architecture=architecture), quantisation

    def _spare_the_dearest(self, best: _Candidate, reduce_range: bool) -> _Candidate:
        alone = {
            layer: self._try(best.per_channel, reduce_range, excluded=self._nodes - {layer}).agreement
            for layer in self._weights
        }
        room = MAX_FLOAT_WEIGHTS * sum(self._weights.values())
        spared: tuple[str, ...] = ()
        for layer in sorted(alone, key=lambda layer: alone[layer]):
            if self._weights[layer] > room:
                continue
            room -= self._weights[layer]
            spared = (*spared, layer)
            candidate = self._try(best.per_channel, reduce_range, excluded=spared)
            best = max(best, candidate, key=lambda candidate: candidate.agreement)
            if best.agreement >= MIN_AGREEMENT:
                break
        return best

    def _try(self, per_channel: bool, reduce_range: bool, excluded: Collection[str] = ()) -> _Candidate:
        with quiet():
            from onnxruntime.quantization import QDQQuantizer, QuantType

            try:
                quantizer = QDQQuantizer(
                    deepcopy(self._prepared),
                    per_channel=per_channel,
                    reduce_range=reduce_range,
                    weight_qType=QuantType.QInt8,
                    activation_qType=QuantType.QUInt8,
                    tensors_range=deepcopy(self._ranges),
                    nodes_to_quantize=[],
                    nodes_to_exclude=[*self._in_float, *excluded],
                    op_types_to_quantize=list(_QUANTISED),
                    extra_options={
                        "MatMulConstBOnly": True,  # the products of attention have no weights
                        "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],  # they go on in float
                    },
                )
                quantizer.quantize_model()
            except Exception as error:  # the tools' errors have no common class
                raise ExportError(f"The model cannot be quantised: {first_line(error)}") from error
        content = quantizer.model.model.SerializeToString()
        # In float, so that the same file comes out whatever machine quantises.
        network = OnnxNetwork(content, self._metadata, in_float=True)
        agrees = agreement(_features(network, self._held_out), self._expected)
        return _Candidate(content, per_channel, tuple(excluded), agrees)


def agreement(features: Tensor, expected: Tensor) -> float:
    """Compare features, both float32 [N, D], by what tells the images apart: 1 is the same.

    It is the cosine between the two feature vectors of an image, each less the mean expected one, averaged over the
    images. Without that, the part that all images share would hide the error.
    """
    mean = expected.mean(dim=0)
    return float(cosine_similarity(features - mean, expected - mean, dim=1).mean())


def _prepare(model: bytes, folder: Path) -> onnx.ModelProto:
    """Infer shapes and fold batch norm into convolutions, as ONNX Runtime's quantiser expects."""
    from onnxruntime.quantization import quant_pre_process

    quant_pre_process(onnx.load_from_string(model), str(folder / "prepared.onnx"))
    return onnx.load(folder / "prepared.onnx")


def _measure_ranges(folder: Path, feeds: Iterator[dict[str, object]]) -> Any:
    """Return the smallest and largest value of every activation of the prepared model."""
    from onnxruntime.quantization import create_calibrator

    calibrator = create_calibrator(
        folder / "prepared.onnx", list(_QUANTISED), augmented_model_path=str(folder / "augmented.onnx")
    )
    calibrator.set_execution_providers(["CPUExecutionProvider"])
    calibrator.collect_data(_Reader(feeds))
    return calibrator.compute_data()


class _Reader:
    """What the calibrator asks for its next input, and None at the end."""

    def __init__(self, feeds: Iterator[dict[str, object]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, object] | None:
        return next(self._feeds, None)


def _features(network: OnnxNetwork, images: Tensor) -> Tensor:
    return torch.cat([network(chunk) for chunk in torch.split(images, _BATCH)])


def _elements(tensor: onnx.TensorProto) -> int:
    return int(torch.Size(tensor.dims).numel())


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _finished(model: onnx.ModelProto, source: bytes, *, precision: str, architecture: str) -> bytes:
    """Serialise a model made from ``source`` with the metadata of that, and check it."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).topological_sort()  # the tools append what they add at the end
    used = {node.domain for node in model.graph.node}
    domains = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    metadata = _metadata(onnx.load_from_string(source))
    onnx.helper.set_model_props(model, {**metadata, "precision": precision, "architecture": architecture})
    check_valid(model)
    return bytes(model.SerializeToString())
