"""DINO's head against lightly's with the same weights."""

import pytest
import torch
from lightly.models.modules.heads import DINOProjectionHead
from torch import nn

from lightssl.heads import DINOHead


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")  # lightly uses the old one
@pytest.mark.parametrize("batch_norm", [True, False])
def test_dino_head_computes_lightlys_scores(batch_norm: bool) -> None:
    torch.manual_seed(0)
    theirs = DINOProjectionHead(6, 16, 8, 12, batch_norm=batch_norm)
    ours = DINOHead(6, hidden=16, bottleneck=8, prototypes=12, batch_norm=batch_norm)

    def linear_layers(layers: nn.Module) -> list[nn.Linear]:
        return [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]

    with torch.no_grad():
        for source, target in zip(linear_layers(theirs.layers), linear_layers(ours.mlp), strict=True):
            target.weight.copy_(source.weight)
            if source.bias is not None:  # with batch norm lightly leaves it out: it has no effect there
                target.bias.copy_(source.bias.normal_())
        ours.prototypes.parametrizations.weight.original1.copy_(theirs.last_layer.weight_v)
    features = torch.randn(10, 6)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-5, atol=1e-6)
    assert sum(p.requires_grad for p in ours.prototypes.parameters()) == sum(
        p.requires_grad for p in theirs.last_layer.parameters()
    )
