"""ExecuTorch, for phones: lowered from the torch network to XNNPACK's kernels, and to ExecuTorch's own for the rest."""

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from lightssl.deploy.onnx import first_line, quiet
from lightssl.deploy.runtimes.fixed import fixed_graph
from lightssl.errors import ExportError


def convert(model: Path, network: nn.Module | None, folder: Path) -> Path:
    """Write ``NAME.pte`` from the torch network, for one image at a time.

    Raises:
        ExportError: There is no torch network, or it cannot be lowered.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(*fixed_graph(model, network))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    except ExportError:
        raise
    except Exception as error:  # each step has errors of its own
        raise ExportError(f"{model} cannot be lowered to ExecuTorch: {first_line(error)}") from error
    path = folder / f"{model.stem}.pte"
    path.write_bytes(lowered.buffer)
    return path
