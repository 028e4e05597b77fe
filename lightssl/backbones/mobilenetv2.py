"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) without its classifier."""

from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops.misc import Conv2dNormActivation

from lightssl.backbones.base import Stage
from lightssl.backbones.topology import BlockPart, Grammar, TopologyBackbone
from lightssl.types import Positive

_GRAMMAR = Grammar(
    "ke", "16x1-k3e1 24x2-k3e6 32x3-k3e6 64x4-k3e6 96x3-k3e6 160x3-k3e6 320x1-k3e6", width_step=8, odd="k"
)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage


class MobileNetV2(TopologyBackbone):
    """torchvision's MobileNetV2 up to the pooled features: 1280 wide at width 1.0.

    Args:
        width: Channel multiplier. The last convolution keeps 1280 channels below 1.0.
        stem: ``"small"`` gives the first convolution stride 1, for images of about 32 pixels.
        init: ``"near_linear"`` starts where two views of an image still look alike, which short runs need: see
            :func:`_start_near_linear`.
        topology: Width, blocks, and their kernels and expansions, of each of the seven stages; by default the published
            one. Widths are multiples of 8.

    Raises:
        ConfigError: ``topology`` is not one of a MobileNetV2.
    """

    grammar = _GRAMMAR
    pyramid_stages = 2  # as SSLight's detectors take

    def __init__(
        self,
        *,
        width: Positive = 1.0,
        stem: Literal["standard", "small"] = "standard",
        init: Literal["torchvision", "near_linear"] = "torchvision",
        topology: Annotated[str, _GRAMMAR] | None = None,
    ) -> None:
        super().__init__()
        stages = self.grammar.parse(topology or self.grammar.published)
        network = TorchvisionMobileNetV2(
            width_mult=width,
            # torchvision hands the first entry of a row to the block as it is.
            inverted_residual_setting=[
                [settings, stage.width, 1, stride if position == 0 else 1]  # type: ignore[list-item]
                for stage, stride in zip(stages, _STRIDES, strict=True)
                for position, settings in enumerate(stage.blocks)
            ],
            block=_block,
        )
        self.features = network.features
        self.feature_width = network.last_channel
        finest = 4
        if stem == "small":
            self.features[0][0].stride = (1, 1)
            finest = 2
        self._depths = [len(stage.blocks) for stage in stages]
        # The last of ``features`` before the resolution halves for the third, fourth and fifth time, and the very last.
        ends = list(accumulate(self._depths))
        self.map_ends = [
            *(end for end, stride in zip(ends[1:], _STRIDES[2:], strict=False) if stride == 2),
            ends[-1] + 1,
        ]
        widths = [self.features[end].out_channels for end in self.map_ends]
        self.stages = tuple(Stage(map_width, finest * 2**i) for i, map_width in enumerate(widths))
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
            if index in self.map_ends:
                maps.append(x)
        return maps

    def block_names(self) -> list[list[str]]:
        """Names of the blocks of each stage, and of the last convolution: see :class:`TopologyBackbone`."""
        counts = [*self._depths, 1]
        starts = accumulate(counts, initial=1)
        return [[f"features.{start + i}" for i in range(count)] for start, count in zip(starts, counts, strict=False)]

    def block_part(
        self, stage: int, position: int, inputs: int | None, width: int, settings: tuple[int, ...]
    ) -> BlockPart:
        """Say what a smaller block takes of the block here: see :class:`TopologyBackbone`."""
        kernel, expansion = settings
        name = self.block_names()[stage][position]
        last = len(self.get_submodule(name).conv) - 1  # type: ignore[arg-type]
        inputs = inputs or self.features[0].out_channels
        return BlockPart(
            outputs=width,
            inputs={f"{name}.conv.{last - 1}": inputs * expansion},
            kernels={f"{name}.conv.{last - 2}.0": kernel},
            adds_input=inputs == width and (position > 0 or _STRIDES[stage] == 1),
            switch="use_res_connect",
        )


def _block(
    inputs: int, outputs: int, stride: int, expand_ratio: tuple[int, int], norm_layer: Callable[..., nn.Module]
) -> InvertedResidual:
    """Build a block; ``expand_ratio`` holds its kernel and its expansion."""
    kernel, expansion = expand_ratio
    block = InvertedResidual(inputs, outputs, stride, expansion, norm_layer)
    if kernel != 3:
        depthwise = block.conv[-3]
        width = depthwise.out_channels
        depthwise[0] = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)
    return block


@torch.no_grad()
def _start_near_linear(features: nn.Module) -> None:
    """Change a fresh network so that similar images keep similar features while batch norm uses batch statistics.

    With torchvision's start, 50 layers of batch norm and clipping drive the features of near-equal inputs apart: two
    views of one image are as far from each other as two images, and a method that compares views finds no signal for
    thousands of steps. Three changes keep the start close to a linear, smoothing network: residual branches begin at
    zero (Goyal et al. 2017, arXiv 1706.02677); batch norm before a ReLU6 begins with bias 1, inside its linear range;
    depthwise filters begin with a positive mean, so that they average and not only differentiate. Filters larger than
    3 x 3 begin as if they were not: averaging over 7 x 7 pixels leaves little of a small map to learn from.
    """
    for module in features.modules():
        if isinstance(module, Conv2dNormActivation) and len(module) == 3:
            convolution, norm, _ = module
            nn.init.ones_(norm.bias)
            if convolution.groups > 1:
                weight = convolution.weight
                around = (weight.shape[-1] - 3) // 2
                centre = nn.functional.pad(torch.ones_like(weight[..., :3, :3]), (around,) * 4)
                weight.add_(weight.std()).mul_(centre)
        elif isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.zeros_(module.conv[-1].weight)
