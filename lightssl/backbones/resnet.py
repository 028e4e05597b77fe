"""ResNet18 (He et al. 2015, arXiv 1512.03385) without its classifier."""

from typing import Literal

from torch import Tensor, nn
from torchvision.models import resnet18

from lightssl.backbones.base import Backbone


class ResNet18(Backbone):
    """torchvision's ResNet18 up to the pooled features, 512 wide.

    Args:
        stem: ``"small"`` replaces the 7x7 stride-2 convolution and the max-pool by one 3x3 convolution, as SimCLR does
            for CIFAR-10.
    """

    def __init__(self, *, stem: Literal["standard", "small"] = "standard") -> None:
        super().__init__()
        network = resnet18()
        self.feature_width = network.fc.in_features
        self.total_stride = 32
        network.fc = nn.Identity()
        if stem == "small":
            network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
            self.total_stride = 8
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""
        return self.network(images)
