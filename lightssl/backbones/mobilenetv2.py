"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) without its classifier."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops.misc import Conv2dNormActivation

from lightssl.backbones.base import Backbone, Stage
from lightssl.types import Positive

_STAGE_ENDS = (3, 6, 13, 18)  # the last layers of ``features`` before the resolution halves, and the very last


class MobileNetV2(Backbone):
    """torchvision's MobileNetV2 up to the pooled features: 1280 wide at width 1.0.

    Args:
        width: Channel multiplier. The last convolution keeps 1280 channels below 1.0.
        stem: ``"small"`` gives the first convolution stride 1, for images of about 32 pixels.
        init: ``"near_linear"`` starts where two views of an image still look alike, which short runs need: see
            :func:`_start_near_linear`.
    """

    def __init__(
        self,
        *,
        width: Positive = 1.0,
        stem: Literal["standard", "small"] = "standard",
        init: Literal["torchvision", "near_linear"] = "torchvision",
    ) -> None:
        super().__init__()
        network = mobilenet_v2(width_mult=width)
        self.features = network.features
        self.feature_width = network.last_channel
        finest = 4
        if stem == "small":
            self.features[0][0].stride = (1, 1)
            finest = 2
        self.stages = tuple(Stage(self.features[end].out_channels, finest * 2**i) for i, end in enumerate(_STAGE_ENDS))
        if init == "near_linear":
            _start_near_linear(self.features)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""
        return self.features(images).mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map a stage: see :meth:`Backbone.feature_maps`."""
        x, maps = images, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _STAGE_ENDS:
                maps.append(x)
        return maps


@torch.no_grad()
def _start_near_linear(features: nn.Module) -> None:
    """Change a fresh network so that similar images keep similar features while batch norm uses batch statistics.

    With torchvision's start, 50 layers of batch norm and clipping drive the features of near-equal inputs apart: two
    views of one image are as far from each other as two images, and a method that compares views finds no signal for
    thousands of steps. Three changes keep the start close to a linear, smoothing network: residual branches begin at
    zero (Goyal et al. 2017, arXiv 1706.02677); batch norm before a ReLU6 begins with bias 1, inside its linear range;
    depthwise filters begin with a positive mean, so that they average and not only differentiate.
    """
    for module in features.modules():
        if isinstance(module, Conv2dNormActivation) and len(module) == 3:
            convolution, norm, _ = module
            nn.init.ones_(norm.bias)
            if convolution.groups > 1:
                convolution.weight.add_(convolution.weight.std())
        elif isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.zeros_(module.conv[-1].weight)
