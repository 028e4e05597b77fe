"""ResNets (He et al. 2015, arXiv 1512.03385) without their classifier."""

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn
from torchvision.models import ResNet, resnet18, resnet34, resnet50

from lightssl.backbones.base import Backbone, Stage


class _ResNet(Backbone):
    """One of torchvision's ResNets up to the pooled features; its stages are ``layer1`` to ``layer4``.

    Args:
        stem: ``"small"`` replaces the 7x7 stride-2 convolution and the max-pool by one 3x3 convolution, as SimCLR does
            for CIFAR-10.
        init: ``"near_linear"`` begins every batch norm with bias 1, largely in the linear range of the ReLU after it.
            Two views of an image then still look alike at the start, which short runs need.
    """

    _make: ClassVar[Callable[[], ResNet]]

    def __init__(
        self,
        *,
        stem: Literal["standard", "small"] = "standard",
        init: Literal["torchvision", "near_linear"] = "torchvision",
    ) -> None:
        super().__init__()
        network = type(self)._make()
        self.feature_width = network.fc.in_features
        network.fc = nn.Identity()
        finest = 4
        if stem == "small":
            network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
            finest = 1
        if init == "near_linear":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.bias)
        self.network = network
        self.stages = tuple(Stage(self.feature_width // 2 ** (3 - i), finest * 2**i) for i in range(4))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""
        return self.network(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map a stage: see :meth:`Backbone.feature_maps`."""
        network = self.network
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        maps = []
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class ResNet18(_ResNet):
    """ResNet18, 512 wide."""

    _make = staticmethod(resnet18)


class ResNet34(_ResNet):
    """ResNet34, 512 wide."""

    _make = staticmethod(resnet34)


class ResNet50(_ResNet):
    """ResNet50, 2048 wide."""

    _make = staticmethod(resnet50)
