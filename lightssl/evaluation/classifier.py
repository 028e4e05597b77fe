"""A backbone with a classifier on its features."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from lightssl.backbones.base import Backbone

_INIT_STD = 0.01  # of the last layer, as SSLight begins its linear evaluation


class Classifier(nn.Module):
    """Maps images to one logit a class.

    Args:
        backbone: Trained along; it is not copied.
        classes: Their names, in the order of the logits.
        hidden: Layers between features and the last one, such as those of a projection head.
    """

    def __init__(self, backbone: Backbone, classes: Sequence[str], hidden: nn.Sequential | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = list(classes)
        hidden = hidden or nn.Sequential()
        linear = [module for module in hidden.modules() if isinstance(module, nn.Linear)]
        last = nn.Linear(linear[-1].out_features if linear else backbone.feature_width, len(self.classes))
        nn.init.normal_(last.weight, std=_INIT_STD)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(*hidden, last)

    def describe(self) -> dict[str, Any]:
        """Return what is needed to build it again, beside the backbone."""
        return {"classes": self.classes}

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to logits [B, classes]."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def layers_of(network: nn.Module) -> list[list[nn.Parameter]]:
    """Sort the parameters of a network by depth: one list a block, those that images meet first in front.

    Blocks are what the chains and lists inside the network hold; what stands beside them is a layer of its own, or part
    of the one before if it only normalises. Networks are taken to be put together in the order in which they compute,
    as all backbones here are.
    """
    layers: list[list[nn.Parameter]] = []
    for parameters in _by_depth(network):
        if layers and all(parameter.ndim <= 1 for parameter in parameters):
            layers[-1] += parameters
        elif parameters:
            layers.append(parameters)
    return layers


def _by_depth(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    yield list(network.parameters(recurse=False))
    children = list(network.children())
    for child in children:
        if isinstance(child, nn.Sequential | nn.ModuleList) or len(children) == 1:
            yield from _by_depth(child)
        else:
            yield list(child.parameters())


def layerwise_groups(classifier: Classifier, *, rate: float, first: float) -> list[dict[str, Any]]:
    """Make the parameter groups of a fine-tuning in which early layers learn slower.

    Args:
        classifier: Its head learns at ``rate``.
        rate: Learning rate.
        first: Share of it at which the first layer of the backbone learns; those in between follow a geometric series.

    Returns:
        Groups for a torch optimiser. Biases and what normalises have no weight decay.
    """
    layers = [*layers_of(classifier.backbone), list(classifier.head.parameters())]
    groups: list[dict[str, Any]] = []
    for depth, parameters in enumerate(layers):
        own = rate * first ** (1 - depth / (len(layers) - 1))
        matrices, vectors = ([p for p in parameters if (p.ndim > 1) is wanted] for wanted in (True, False))
        groups += [{"params": matrices, "lr": own}] if matrices else []
        groups += [{"params": vectors, "lr": own, "weight_decay": 0.0}] if vectors else []
    return groups
