"""VGG19 (Simonyan and Zisserman 2014, arXiv 1409.1556) with batch norm, of any width.

It is one of the networks that Kolesnikov et al. 2019 (arXiv 1901.09005) compare.
"""

from typing import Literal

from torch import Tensor, nn

from lightssl.backbones.base import Backbone, Stage
from lightssl.backbones.batchnorm import start_near_linear
from lightssl.types import PositiveInt

_BLOCKS = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))  # width and layers of each; widths in units of the first
_STRIDE = 2 ** len(_BLOCKS)  # pixels of the input that one position after the last max-pool steps over


class VGG19BN(Backbone):
    """VGG19 with batch norm up to the layer before its classifier, 4096 wide at the standard width.

    The convolutions are torchvision's ``vgg19_bn``, without biases. After the last max-pool come the paper's two fully
    connected layers, each with batch norm and ReLU in place of dropout, and 512 * width_factor wide. The first one sees
    the map of an image of ``image_size`` pixels: at that size the network is that of the paper's released code. Pooling
    maps of other images to that size is ours, and so is that max-pools round up where 2 does not divide a side.

    Args:
        width_factor: 8 is the standard width, with 64 channels in the first block. The paper has 4, 8, 12 and 16.
        image_size: Side of the images that the first fully connected layer is laid out for, in pixels. At 224 and the
            standard width this layer has 103 million weights, at 32 it has 2 million.
        init: ``"near_linear"`` begins every batch norm with bias 1, largely in the linear range of the ReLU after it.
            Two views of an image then still look alike at the start, which short runs need.
    """

    def __init__(
        self,
        *,
        width_factor: PositiveInt = 8,
        image_size: PositiveInt = 224,
        init: Literal["torchvision", "near_linear"] = "torchvision",
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs, stages = 3, []
        for number, (multiple, depth) in enumerate(_BLOCKS):
            width = 8 * width_factor * multiple
            layers = [*_layer(inputs, width, 3)]
            for _ in range(depth - 1):
                layers += _layer(width, width, 3)
            self.blocks.append(nn.Sequential(*layers))
            stages.append(Stage(width, 2**number))
            inputs = width
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.feature_width = 512 * width_factor
        side = -(-image_size // _STRIDE)
        self.connected = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),
            *_layer(inputs, self.feature_width, side, padding=0),
            *_layer(self.feature_width, self.feature_width, 1),
            nn.Flatten(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if init == "near_linear":
            start_near_linear(self)
        self.stages = (*stages, Stage(inputs, _STRIDE))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to features [B, 512 * width_factor]."""
        return self.connected(self.feature_maps(images)[-1])

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to six maps: see :meth:`Backbone.feature_maps`.

        Five are those of the blocks, before the max-pools after them. The sixth is the last of them after its max-pool,
        which the fully connected layers make the features of.
        """
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
            images = self.pool(images)
        return [*maps, images]


def _layer(inputs: int, outputs: int, kernel: int, *, padding: int | None = None) -> list[nn.Module]:
    padding = kernel // 2 if padding is None else padding
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
