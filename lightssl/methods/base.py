"""What every method offers to the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from lightssl.backbones.base import Backbone
from lightssl.types import Clock, StepOutput


class Method(nn.Module, ABC):
    """A self-supervised objective together with the networks that it trains.

    A subclass takes the backbone and the weights of global and local loss terms as positional arguments, and its
    options as keyword-only ones: they are the recipe's ``method`` keys.
    """

    least_global_views: int = 2  # that a plan must draw: most methods compare them

    def __init__(self) -> None:
        super().__init__()
        self.probe: nn.Linear | None = None  # not on the class, where it would hide the module that is set later

    @property
    @abstractmethod
    def branch(self) -> "Branch":
        """The backbone that is evaluated and exported, with its projection head."""

    @property
    def encoder(self) -> Backbone:
        """The backbone that is evaluated and exported."""
        return self.branch.backbone

    @abstractmethod
    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch.

        Args:
            views: Normalised images, one [V, B, 3, H, W] a resolution: the global views, then the local ones.
            clock: Where training stands.
        """

    def check(self, clock: Clock) -> None:
        """Raise ConfigError if the options do not fit the batch size or the length of training."""

    def after_backward(self, clock: Clock) -> None:
        """Change gradients before the optimiser uses them."""

    def after_step(self, clock: Clock) -> None:
        """Update what the optimiser does not: momentum networks, queues."""

    def attach_probe(self, classes: int) -> None:
        """Train a linear classifier beside the method, on features that it cannot change."""
        self.probe = nn.Linear(self.encoder.feature_width, classes)

    def forward(self, views: Sequence[Tensor], clock: Clock, labels: Tensor | None = None) -> StepOutput:
        """Compute the loss of one batch, and that of the probe if there is one: see :meth:`step`.

        Args:
            views: As for :meth:`step`.
            clock: As for :meth:`step`.
            labels: int64 [B], for the probe.
        """
        output = self.step(views, clock)
        if self.probe is not None and labels is not None:
            logits = self.probe(output.features).float()
            output.probe_loss = F.cross_entropy(logits, labels)
            output.logs["probe_loss"] = output.probe_loss.detach()
            output.logs["probe_top1"] = 100.0 * (logits.argmax(dim=1) == labels).float().mean()
        return output


class Branch(nn.Module):
    """A backbone with its head: student or teacher, query or key encoder."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Encode all views; return features [V, B, D] and head outputs [V, B, K], the global views first.

        The backbone runs once for each resolution, the head once for all views.
        """
        features = encode_views(self.backbone, views)
        return features, self.head(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def momentum_copy(self) -> "Branch":
        """Return a copy that starts equal, head included, and is moved by :func:`ema_update` alone.

        Dropout and drop path act in the trained branch only; batch norm works alike in both.
        """
        from torchvision.ops import StochasticDepth  # takes long to import; a network that has it has imported it

        copy = deepcopy(self).requires_grad_(False)
        for module in copy.modules():
            if isinstance(module, (_DropoutNd, StochasticDepth)):
                module.p = 0.0
            for rate in ("drop_prob", "drop_rate"):  # of timm's drop path, and of the dropout of timm's networks
                if hasattr(module, rate):
                    setattr(module, rate, 0.0)
        return copy


def encode_views(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Run a backbone once for each resolution, global views first, and return features [V, B, D] of all views.

    Views of one resolution share their batch-norm statistics, and the running statistics see the local views last, as
    in the published code.
    """
    features = []
    pending = list(views)
    while pending:
        size = pending[0].shape[-1]
        same = [pending.pop(0)]
        while pending and pending[0].shape[-1] == size:
            same.append(pending.pop(0))
        group = torch.cat(same) if len(same) > 1 else same[0]
        features.append(backbone(group.flatten(0, 1)).unflatten(0, group.shape[:2]))
    return torch.cat(features)


@torch.no_grad()
def ema_update(averaged: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move the parameters of ``averaged`` towards ``source``: ``momentum * averaged + (1 - momentum) * source``.

    Buffers, batch-norm statistics among them, are left alone.
    """
    torch._foreach_lerp_(list(averaged.parameters()), list(source.parameters()), 1.0 - momentum)
