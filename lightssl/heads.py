"""Heads that methods put on a backbone."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def mlp(
    widths: Sequence[int],
    *,
    batch_norm: bool = True,
    activation: type[nn.Module] = nn.ReLU,
    final_norm: bool = False,
) -> nn.Sequential:
    """Chain linear layers from ``widths[0]`` to ``widths[-1]``, with a non-linearity after all but the last.

    Args:
        widths: Of the input, the hidden layers and the output.
        batch_norm: Normalise the hidden layers.
        activation: After each hidden layer.
        final_norm: Normalise the output, by a batch norm without scale and shift.
    """
    layers: list[nn.Module] = []
    for before, width in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not final_norm))
    if final_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


def hidden_layers(head: nn.Module) -> nn.Sequential:
    """Return what lies before the last linear layer of a projection head, whose features are better than its output.

    Args:
        head: A chain of modules, :class:`L2Normalised` or not, or a :class:`DINOHead`.

    Returns:
        A new chain of the same modules; empty of a head of one layer.
    """
    chain = head.head if isinstance(head, L2Normalised) else head.mlp if isinstance(head, DINOHead) else head
    layers = list(chain.children())
    while layers and not any(isinstance(module, nn.Linear) for module in layers[-1].modules()):
        layers.pop()  # what follows the last linear layer
    if layers:
        last = layers.pop()
        layers += [] if isinstance(last, nn.Linear) else hidden_layers(last)
    return nn.Sequential(*layers)


class L2Normalised(nn.Module):
    """A head whose outputs have unit length.

    Args:
        head: Maps [B, D] to [B, E].
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to unit vectors [B, E]."""
        return F.normalize(self.head(features), dim=-1)


class DINOHead(nn.Module):
    """DINO's projection head (Caron et al. 2021, arXiv 2104.14294): an MLP, L2 norm, and K weight-normed prototypes.

    Args:
        in_width: Width of the backbone's features.
        hidden: Width of the two hidden layers.
        bottleneck: Width in which features are L2-normalised.
        prototypes: K, the number of outputs.
        batch_norm: Normalise the hidden layers, as for convolutional networks.
        freeze_gain: Keep the prototypes at unit length.
        layers: In place of the hidden layers, what maps [B, in_width] to [B, hidden].
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
        layers: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers is None:
            self.mlp = mlp((in_width, hidden, hidden, bottleneck), batch_norm=batch_norm, activation=nn.GELU)
        else:
            self.mlp = nn.Sequential(layers, nn.Linear(hidden, bottleneck))
        self.mlp.apply(_init_linear)
        self.prototypes = weight_norm(nn.Linear(bottleneck, prototypes, bias=False))
        gain = self.prototypes.parametrizations.weight.original0  # [K, 1]
        with torch.no_grad():
            gain.fill_(1.0)
        gain.requires_grad_(not freeze_gain)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to prototype scores [B, K]."""
        return self.prototypes(F.normalize(self.mlp(features), dim=-1))


def _init_linear(module: nn.Module) -> None:
    """Truncated normal of deviation .02, zero bias: DINO's initialisation of its head."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
