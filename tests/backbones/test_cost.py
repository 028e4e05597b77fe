import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost


@pytest.mark.parametrize(
    ("name", "classifier", "flops", "parameters"),
    [("mobilenetv2", 1280 * 1000, 301e6, 2_223_872), ("resnet18", 512 * 1000, 1.81e9, 11_176_512)],
)
def test_published_costs_at_224(name: str, classifier: int, flops: float, parameters: int) -> None:
    """The published figures include the classifier; the backbones here have none."""
    cost = count_cost(BACKBONES[name](), 224)
    assert cost.flops + classifier == pytest.approx(flops, rel=3e-3)
    assert cost.parameters == parameters


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


def test_counting_leaves_the_network_as_it_was() -> None:
    network = BACKBONES["resnet18"]()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_cost(network, 32)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
