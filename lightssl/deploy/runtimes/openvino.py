"""OpenVINO, for Intel's processors: it reads ONNX itself, in all precisions."""

import sys
from pathlib import Path

from torch import nn

from lightssl.deploy.onnx import first_line
from lightssl.errors import ExportError

# Only its own converters send telemetry, which are not used here; without this package nothing can.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402


def convert(model: Path, network: nn.Module | None, folder: Path) -> Path:
    """Write ``NAME.openvino.xml`` and its weights, ``NAME.openvino.bin``, from the ONNX file, batch size free.

    Raises:
        ExportError: OpenVINO cannot read the model.
    """
    path = folder / f"{model.stem}.openvino.xml"
    try:
        openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=False)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read {model}: {first_line(error)}") from error
    return path
