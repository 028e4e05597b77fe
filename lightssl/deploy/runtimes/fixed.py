"""What the converters that start from torch share."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.constant_fold import constant_fold

from lightssl.deploy.onnx import describe_model
from lightssl.errors import ExportError


def fixed_graph(model: Path, network: nn.Module | None) -> tuple[nn.Module, tuple[Tensor]]:
    """Trace a network for one image of the size that its ONNX file takes, and compute now what no image changes.

    That takes out the resizing of position embeddings, which happens even to their own size, by an operator that mobile
    runtimes lack.

    Returns:
        The network as a graph, and an input for it, float32 [1, 3, S, S].

    Raises:
        ExportError: There is no torch network.
    """
    if network is None:
        raise ExportError(
            f"This runtime's file is made from the torch network, which {model} does not hold.",
            "Take the fp32 file in the folder of a run.",
        )
    images = torch.zeros(1, *describe_model(model).input_shape[1:])  # type: ignore[arg-type]
    graph = torch.export.export(network, (images,)).module()
    constant_fold(graph)
    return graph, (images,)
