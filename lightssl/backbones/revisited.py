"""The residual networks that Kolesnikov et al. 2019 (arXiv 1901.09005) compare, of any width.

ResNet50 in its first form (He et al. 2015, arXiv 1512.03385), with pre-activation (He et al. 2016, arXiv 1603.05027),
and as a reversible network (Gomez et al. 2017, arXiv 1707.04585), as the paper's released code builds them.
"""

from abc import abstractmethod
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones.base import Backbone, Stage
from lightssl.backbones.batchnorm import start_near_linear
from lightssl.backbones.reversible import ReversibleSequence
from lightssl.types import PositiveInt

Depths = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Stem = Literal["standard", "small", "patches"]
Start = Literal["torchvision", "near_linear"]

_STRIDES = {"standard": (1, 2, 2, 2), "small": (1, 2, 2, 2), "patches": (1, 2, 2, 1)}  # of the stages
_FINEST = {"standard": 4, "small": 1, "patches": 2}  # stride of the first stage's map
_NARROWER = 4  # times that a unit is narrower inside than between units


class _Revisited(Backbone):
    """A residual network of four stages of bottlenecks; its features are the mean of the last map.

    Args:
        width_factor: 4 is the standard width. The paper has 4, 8, 12 and 16. Features are 512 times as wide as it says.
        depths: Bottlenecks of each stage.
        stem: ``"small"`` replaces the 7x7 stride-2 convolution and the max-pool by one 3x3 convolution, for images of
            about 32 pixels. ``"patches"`` is for those of about 64, as the paper has it: the 7x7 convolution has stride
            1, and the last stage too.
        final_relu: End with a ReLU before the mean over positions.
        init: ``"near_linear"`` begins every batch norm with bias 1, largely in the linear range of the ReLU after it.
            Two views of an image then still look alike at the start, which short runs need.
    """

    _root_widths = 1  # of the first convolution's output, in units of a standard 16 * width_factor
    _normalised_root = False

    def __init__(
        self,
        *,
        width_factor: PositiveInt = 4,
        depths: Depths = (3, 4, 6, 3),
        stem: Stem = "standard",
        final_relu: bool = True,
        init: Start = "torchvision",
    ) -> None:
        super().__init__()
        inputs = 16 * width_factor * self._root_widths
        root: list[nn.Module] = [_convolution(3, inputs, 3) if stem == "small" else _convolution(3, inputs, 7)]
        if stem == "standard":
            root[0] = _convolution(3, inputs, 7, stride=2)
        if self._normalised_root:
            root += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
        if stem != "small":
            root.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.root = nn.Sequential(*root)
        self.blocks = nn.ModuleList()
        stages, stride = [], _FINEST[stem]
        for number, (depth, step) in enumerate(zip(depths, _STRIDES[stem], strict=True)):
            width, stride = 64 * width_factor * 2**number, stride * step
            self.blocks.append(self._stage(inputs, width, depth, step))
            stages.append(Stage(width, stride))
            inputs = width
        self.last = self._last(inputs, final_relu)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if init == "near_linear":
            start_near_linear(self)
        self.feature_width = inputs
        self.stages = tuple(stages)

    @abstractmethod
    def _stage(self, inputs: int, width: int, depth: int, stride: int) -> nn.Module:
        """Make a stage, from [B, inputs, H, W] to [B, width, H / stride, W / stride]."""

    def _last(self, width: int, relu: bool) -> nn.Module:
        """Make what comes after the last stage."""
        return nn.Sequential(nn.BatchNorm2d(width), *([nn.ReLU(inplace=True)] if relu else []))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, 512 * width_factor]."""
        return self.feature_maps(images)[-1].mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map a stage: see :meth:`Backbone.feature_maps`.

        Maps of networks with pre-activation are what their units add up, neither normalised nor rectified; the last one
        alone is both, or normalised only if there is no ReLU at the end.
        """
        x = self.root(images)
        maps = []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        return [*maps[:-1], self.last(x)]


class ResNet50V1(_Revisited):
    """ResNet50 as it was first published: at the standard width it is torchvision's, with stride in the 3x3 layers.

    The paper has it with the final ReLU only. Without it, the last unit has no ReLU after its sum.
    """

    _normalised_root = True

    def _stage(self, inputs: int, width: int, depth: int, stride: int) -> nn.Module:
        first = _UnitV1(inputs, width, stride)
        return nn.Sequential(first, *(_UnitV1(width, width, 1) for _ in range(depth - 1)))

    def _last(self, width: int, relu: bool) -> nn.Module:
        if not relu:
            *_, final = self.blocks[-1].children()
            final.relu = nn.Identity()
        return nn.Identity()


class ResNet50V2(_Revisited):
    """ResNet50 with pre-activation: batch norm and ReLU come before each convolution, and once more at the end.

    Its max-pool ignores what is outside of the map, as that of the other networks here, where the released code sees
    zeros.
    """

    def _stage(self, inputs: int, width: int, depth: int, stride: int) -> nn.Module:
        first = _UnitV2(inputs, width, stride)
        return nn.Sequential(first, *(_UnitV2(width, width, 1) for _ in range(depth - 1)))


class RevNet50(_Revisited):
    """RevNet50: units of ResNet50 with pre-activation, each on one half of the channels, adding to the other half.

    As in the paper's released code a unit changes one of the halves, which is half a unit of Gomez et al.: the network
    is as deep as ResNet50. Between stages maps are averaged over 2 x 2 positions and get channels of zeros.

    Args:
        recompute: Compute the activations inside of stages again in the backward pass instead of keeping them: less
            memory, a third more computation in training.
    """

    _root_widths = 4  # units cannot widen what they are given

    def __init__(
        self,
        *,
        width_factor: PositiveInt = 4,
        depths: Depths = (3, 4, 6, 3),
        stem: Stem = "standard",
        final_relu: bool = True,
        init: Start = "torchvision",
        recompute: bool = True,
    ) -> None:
        super().__init__(width_factor=width_factor, depths=depths, stem=stem, final_relu=final_relu, init=init)
        for module in self.modules():
            if isinstance(module, ReversibleSequence):
                module.recompute = recompute

    def _stage(self, inputs: int, width: int, depth: int, stride: int) -> nn.Module:
        half = width // 2
        units = (nn.Sequential(*_preactivation(half), *_residual(half, half, 1)) for _ in range(depth))
        empty = (width - inputs) // 2
        return nn.Sequential(_Transition(stride, empty), ReversibleSequence(units, empty=empty))


class _Transition(nn.Module):
    def __init__(self, stride: int, added: int) -> None:
        super().__init__()
        self.stride, self.added = stride, added

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride > 1:
            # Windows at the edge hold fewer positions where the stride does not divide a side.
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True)
        return F.pad(maps, (0, 0, 0, 0, self.added, self.added))


class _UnitV1(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, width // _NARROWER, 1),
            *_preactivation(width // _NARROWER),
            _convolution(width // _NARROWER, width // _NARROWER, 3, stride=stride),
            *_preactivation(width // _NARROWER),
            _convolution(width // _NARROWER, width, 1),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(_convolution(inputs, width, 1, stride=stride), nn.BatchNorm2d(width))
        self.relu: nn.Module = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = self.relu(self.residual(maps) + self.shortcut(maps))
        return summed


class _UnitV2(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*_preactivation(inputs))
        self.residual = nn.Sequential(*_residual(inputs, width, stride))
        self.projection = _convolution(inputs, width, 1, stride=stride) if stride > 1 or inputs != width else None

    def forward(self, maps: Tensor) -> Tensor:
        rectified = self.before(maps)
        summed: Tensor = self.residual(rectified) + (maps if self.projection is None else self.projection(rectified))
        return summed


def _residual(inputs: int, width: int, stride: int) -> list[nn.Module]:
    """Make the layers of a bottleneck with pre-activation that come after its first batch norm and ReLU."""
    inside = width // _NARROWER
    return [
        _convolution(inputs, inside, 1),
        *_preactivation(inside),
        _convolution(inside, inside, 3, stride=stride),
        *_preactivation(inside),
        _convolution(inside, width, 1),
    ]


def _preactivation(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
