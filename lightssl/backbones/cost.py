"""FLOPs and parameters of a network: the one place that counts them."""

from typing import Any, NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

_UNCOUNTED = (
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "adaptive_avg_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
)


class Cost(NamedTuple):
    """What a network costs at one input size."""

    flops: int  # multiply-accumulates of convolutions, linear layers and attention products for one image
    parameters: int


def _attention_products(inputs: list[Any], _outputs: list[Any]) -> int:
    """Multiply-accumulates of ``scaled_dot_product_attention``: query x key and weights x value, [..., T, C]."""
    query, key, value = (list(tensor.type().sizes()) for tensor in inputs[:3])
    rows = 1
    for length in query[:-1]:
        rows *= length
    return rows * key[-2] * (query[-1] + value[-1])


def _nothing(_inputs: list[Any], _outputs: list[Any]) -> int:
    return 0


def count_cost(network: nn.Module, image_size: int) -> Cost:
    """Count FLOPs of one square RGB image and all parameters of ``network``.

    FLOPs are multiply-accumulates, as the papers and fvcore use the word: MobileNetV2 has 300M at 224 without its
    classifier. Attention products are counted; normalisation, pooling and resizing are not, all unlike plain fvcore.
    """
    was_training = network.training
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    analysis = FlopCountAnalysis(network.eval(), image)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_products)
    for operator in _UNCOUNTED:
        analysis.set_op_handle(f"aten::{operator}", _nothing)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    try:
        return Cost(int(analysis.total()), sum(p.numel() for p in network.parameters()))
    finally:
        network.train(was_training)
