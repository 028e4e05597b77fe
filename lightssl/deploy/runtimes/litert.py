"""LiteRT, formerly TensorFlow Lite, for phones: converted from the torch network by litert-torch."""

from pathlib import Path

import litert_torch
import torch
from torch import nn

from lightssl.deploy.onnx import first_line, quiet
from lightssl.deploy.runtimes.fixed import fixed_graph
from lightssl.errors import ExportError


def convert(model: Path, network: nn.Module | None, folder: Path) -> Path:
    """Write ``NAME.tflite`` from the torch network, for one image at a time, channels first as in the ONNX file.

    Raises:
        ExportError: There is no torch network, or it cannot be converted.
    """
    path = folder / f"{model.stem}.tflite"
    try:
        with quiet(), torch.no_grad():
            litert_torch.convert(*fixed_graph(model, network)).export(str(path))
    except ExportError:
        raise
    except Exception as error:  # each step has errors of its own
        raise ExportError(f"{model} cannot be converted to LiteRT: {first_line(error)}") from error
    return path
