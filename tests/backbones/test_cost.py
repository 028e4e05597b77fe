import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost


@pytest.mark.parametrize(
    ("name", "flops", "parameters"),
    [
        ("mobilenetv2", 301e6, 3_504_872),
        ("resnet18", 1.81e9, 11_689_512),
        ("resnet34", 3.67e9, 21_797_672),
        ("resnet50", 4.1e9, 25_557_032),
        ("resnet50_v1", 4.1e9, 25_557_032),
        ("vit_tiny", 1.26e9, 5_717_416),
    ],
)
def test_published_costs_at_224(name: str, flops: float, parameters: int) -> None:
    """The published figures include a classifier of 1000 classes; the backbones here have none."""
    backbone = BACKBONES[name]()
    cost = count_cost(backbone, 224)
    norms = 5 * 25 * 197 * 192 if name == "vit_tiny" else 0  # its figure has layer norm, at 5 FLOPs an element
    assert cost.flops + norms + backbone.feature_width * 1000 == pytest.approx(flops, rel=3e-3)
    assert cost.parameters + backbone.feature_width * 1000 + 1000 == parameters


def test_every_product_of_a_transformer_is_counted() -> None:
    tokens, width = 1 + 14 * 14, 192
    linear = 3 * width * width + width * width + 2 * 4 * width * width  # query, key and value; output; the MLP
    attention = 2 * tokens * width  # query x key and weights x value
    patches = 14 * 14 * 16 * 16 * 3 * width
    assert count_cost(BACKBONES["vit_tiny"](), 224).flops == patches + 12 * tokens * (linear + attention)


def test_attention_is_counted_and_normalisation_is_not() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, stride=8, bias=False)
            self.norm = nn.LayerNorm(16)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.norm(self.patches(images).flatten(2).mT)[:, None]  # [B, 1, T, 16]
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    tokens = (32 // 8) ** 2
    assert count_cost(Attention(), 32).flops == tokens * 3 * 64 * 16 + 2 * tokens * tokens * 16


def test_resizing_is_not_counted() -> None:
    class Resized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)
            self.norm = nn.InstanceNorm2d(4)

        def forward(self, images: Tensor) -> Tensor:
            maps = F.interpolate(self.norm(self.conv(images)), scale_factor=2.0)
            return F.interpolate(maps, scale_factor=2.0, mode="bilinear")

    assert count_cost(Resized(), 8).flops == 8 * 8 * 3 * 4


def test_counting_leaves_the_network_as_it_was() -> None:
    network = BACKBONES["resnet18"]()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_cost(network, 32)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
