"""From a network that finds objects to one ONNX file that is known to find the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torchvision.ops import box_iou

from lightssl import __version__
from lightssl.deploy.onnx import INPUT, OPSET, check_valid, first_line, open_session, quiet
from lightssl.errors import ExportError
from lightssl.files import write_bytes, write_text

BOXES, LABELS, SCORES, MASKS = "boxes", "labels", "scores", "masks"
_COMPARED_FROM = 0.1  # score; below it, one of two equally poor boxes may suppress the other for a rounding error
_OVERLAP, _SCORE = 0.95, 1e-2  # of a box found by both: intersection over union at least, difference of scores at most
_AGREEMENT = 0.98  # share of such boxes, at least


class DetectorManifest(BaseModel):
    """What was exported, from what, and by which versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    scale: str
    backbone: str
    input: str
    input_shape: tuple[int, int, int, int]  # float32 [1, 3, H, W], RGB in 0..1; the file normalises it
    outputs: dict[str, str]  # what each is
    classes: list[str]
    file: str  # its name, in the folder of the manifest
    bytes: int
    sha256: str
    opset: int
    compared_images: int  # real ones, that torch and the file were given
    compared_boxes: int  # that torch found in them
    agreement: float  # share of those that the file found as well
    max_score_error: float  # of those
    versions: dict[str, str | None]


class Findings(NamedTuple):
    """What was found in one image."""

    boxes: Tensor  # [N, 4]
    labels: Tensor  # [N]
    scores: Tensor  # [N]


class Comparison(NamedTuple):
    """How well two networks agree on what they find."""

    boxes: int  # that the first one found
    agreement: float  # share of them that the second one found as well
    max_score_error: float


def export_detector(
    network: nn.Module,
    path: Path,
    *,
    image_shape: tuple[int, int],
    masks: bool,
    metadata: Mapping[str, str],
    images: Sequence[Tensor],
) -> tuple[bytes, Comparison]:
    """Write a detector as one ONNX file that takes one image, and prove that it finds the same.

    Outputs are ``boxes``, float32 [N, 4], left, top, right and bottom in pixels of the input, ``labels``, int64 [N],
    ``scores``, float32 [N], and with ``masks`` float32 [N, H, W]. The network is run in ONNX Runtime and in torch on
    ``images`` before anything is written.

    Args:
        network: Maps float32 [1, 3, H, W] in 0..1 to these outputs, in evaluation mode, on the CPU.
        path: File to write. An existing one is replaced only when all went well.
        image_shape: H and W, in pixels.
        masks: Whether there are masks.
        metadata: More entries for the file's ``metadata_props``.
        images: Real images to compare on, float32 [1, 3, H, W].

    Returns:
        The file's content, and how well it agrees with torch.

    Raises:
        ExportError: The network cannot be expressed in ONNX, or finds something else there.
        LightSSLError: The file cannot be written.
    """
    outputs = [BOXES, LABELS, SCORES, *([MASKS] if masks else [])]
    try:
        # How many boxes are left at each point depends on the image: torch.export cannot follow that, tracing can.
        with quiet(), torch.no_grad(), TemporaryDirectory() as folder:
            traced = Path(folder, "model.onnx")
            torch.onnx.export(
                network,
                (torch.zeros(1, 3, *image_shape),),
                traced,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_axes={name: {0: "objects"} for name in outputs},
            )
            model = onnx.load_model(traced)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"The detector cannot be exported to ONNX: {first_line(error)}") from error
    own = {
        "input_size": json.dumps(list(image_shape)),
        "input_layout": "float32 [1, channels, height, width], RGB",
        "input_range": "0..1",
        "normalisation": "inside",
        "precision": "fp32",
        "architecture": "any",
        "opset": str(OPSET),
        "lightssl_version": __version__,
        "torch_version": torch.__version__,
    }
    onnx.helper.set_model_props(model, {**metadata, **own})
    check_valid(model)
    content = model.SerializeToString()
    session = open_session(content)
    pairs = []
    for image in images:
        with torch.no_grad():
            expected = network(image)
        found = session.run(outputs, {INPUT: image.numpy()})
        pairs.append((Findings(*expected[:3]), Findings(*(torch.from_numpy(part) for part in found[:3]))))
    comparison = compare_findings(pairs)
    if comparison.agreement < _AGREEMENT:
        raise ExportError(
            f"The exported detector finds {100 * comparison.agreement:.0f} % of {comparison.boxes:,} boxes only that "
            "the network finds.",
            "Look for something random, or a branch that depends on the input, in the network's evaluation mode.",
        )
    write_bytes(path, content)
    return content, comparison


def compare_findings(pairs: Sequence[tuple[Findings, Findings]]) -> Comparison:
    """Compare what two networks find in the same images: for each box of the first, is it among those of the second?"""
    boxes, agreed, errors = 0, 0, [0.0]
    for expected, found in pairs:
        for box, label, score in zip(*expected, strict=True):
            if score < _COMPARED_FROM:
                continue
            boxes += 1
            off = (found.scores - score).abs()
            same = (box_iou(box[None], found.boxes)[0] >= _OVERLAP) & (found.labels == label) & (off <= _SCORE)
            if same.any():
                agreed += 1
                errors.append(float(off[same].min()))
    return Comparison(boxes, agreed / boxes if boxes else 1.0, float(np.max(errors)))


def write_detector_manifest(path: Path, manifest: DetectorManifest) -> None:
    """Write a manifest in one piece."""
    write_text(path, manifest.model_dump_json(indent=2) + "\n")


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
