"""Heads that methods put on a backbone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def _init_linear(module: nn.Module) -> None:
    """Truncated normal of deviation .02, zero bias: DINO's initialisation of its head."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DINOHead(nn.Module):
    """DINO's projection head (Caron et al. 2021, arXiv 2104.14294): an MLP, L2 norm, and K weight-normed prototypes.

    Args:
        in_width: Width of the backbone's features.
        hidden: Width of the two hidden layers.
        bottleneck: Width in which features are L2-normalised.
        prototypes: K, the number of outputs.
        batch_norm: Normalise the hidden layers, as for convolutional networks.
        freeze_gain: Keep the prototypes at unit length.
    """

    def __init__(
        self,
        in_width: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        prototypes: int = 4096,
        batch_norm: bool = True,
        freeze_gain: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (in_width, hidden):
            layers.append(nn.Linear(width, hidden))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.mlp.apply(_init_linear)
        self.prototypes = weight_norm(nn.Linear(bottleneck, prototypes, bias=False))
        gain = self.prototypes.parametrizations.weight.original0  # [K, 1]
        with torch.no_grad():
            gain.fill_(1.0)
        gain.requires_grad_(not freeze_gain)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to prototype scores [B, K]."""
        return self.prototypes(F.normalize(self.mlp(features), dim=-1))
