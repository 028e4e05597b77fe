"""torchvision's Faster R-CNN and Mask R-CNN on a pyramid of the feature maps of any backbone."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log2
from typing import Any, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lightssl.backbones.base import Backbone
from lightssl.data.coco_loader import Photograph
from lightssl.errors import ConfigError

_BOX_GRID, _MASK_GRID = 7, 14  # positions a side that a region is read at
_MASK_LAYERS = 4
_FINEST = 4  # stride at which a pyramid usually begins
_SHAPES = (0.5, 1.0, 2.0)  # height over width of anchors
_SIDE_STEP = 32  # pixels between the short sides drawn from


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector is like, beside its backbone. Defaults are those of Lin et al. 2017 (arXiv 1612.03144)."""

    masks: bool = False  # Mask R-CNN
    short_sides: tuple[int, int] = (640, 800)  # pixels that the short side of an image is scaled to, least and most
    long_side: int = 1333  # pixels, at most
    smallest_anchor: int = 32  # pixels of a side
    width: int = 256  # channels of the pyramid
    hidden: int = 1024  # width of the layers that classify a region
    regions: int = 512  # of an image that a training step looks at

    def __post_init__(self) -> None:
        least, most = self.short_sides
        if not least <= most <= self.long_side:
            raise ConfigError(
                f"No image has a short side of {least} to {most} pixels and a long one of at most {self.long_side}.",
                "Let short_sides ascend, up to long_side.",
            )


class Found(NamedTuple):
    """What was found in one image, surest first."""

    boxes: Tensor  # float32 [N, 4], pixels: left, top, right, bottom
    labels: Tensor  # int64 [N], positions in the classes
    scores: Tensor  # float32 [N]
    masks: Tensor | None  # float32 [N, H, W], of each pixel how surely it belongs to the object


class Detector(nn.Module):
    """Finds objects in images.

    Args:
        backbone: Trained along; it is not copied.
        classes: Names of the kinds of objects.
        mean, std: How the backbone's input is normalised, for each channel, in 0..1.
        options: What it is like.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        options: DetectorOptions,
    ) -> None:
        super().__init__()
        self.classes, self.options = list(classes), options
        pyramid = pyramid_of(backbone, options.width)
        least, most = options.short_sides
        kinds = len(classes) + 1  # the first is none of them
        common: dict[str, Any] = {
            "min_size": [*range(least, most, _SIDE_STEP), most],  # the last one is that of tests
            "max_size": options.long_side,
            "image_mean": list(mean),
            "image_std": list(std),
            "rpn_anchor_generator": AnchorGenerator(
                _anchor_sides(pyramid.strides, options.smallest_anchor), (_SHAPES,) * len(pyramid.strides)
            ),
            "box_roi_pool": _reader(pyramid, _BOX_GRID),
            "box_head": TwoMLPHead(options.width * _BOX_GRID**2, options.hidden),
            "box_predictor": FastRCNNPredictor(options.hidden, kinds),
            "box_batch_size_per_image": options.regions,
        }
        if options.masks:
            self.network: FasterRCNN = MaskRCNN(
                pyramid,
                mask_roi_pool=_reader(pyramid, _MASK_GRID),
                mask_head=MaskRCNNHeads(options.width, (options.width,) * _MASK_LAYERS, 1),
                mask_predictor=MaskRCNNPredictor(options.width, options.width, kinds),
                **common,
            )
        else:
            self.network = FasterRCNN(pyramid, **common)

    @property
    def backbone(self) -> Backbone:
        """The network below."""
        return self.network.backbone.backbone  # type: ignore[return-value, union-attr]

    @property
    def costly_parts(self) -> list[nn.Module]:
        """Return what nearly all the time goes to, none of which calls another: pyramid and heads."""
        regions = self.network.roi_heads
        heads = [self.network.rpn.head, regions.box_head, *([regions.mask_head] if self.options.masks else [])]
        return [self.network.backbone, *heads]

    def describe(self) -> dict[str, Any]:
        """Return what is needed to build it again, beside the backbone."""
        return {"classes": self.classes, "detector": asdict(self.options)}

    def losses(self, photographs: Sequence[Photograph]) -> dict[str, Tensor]:
        """Return the parts of the loss, whose sum is to be minimised, by their names."""
        targets = []
        for photograph in photographs:
            target = {"boxes": photograph.boxes, "labels": photograph.labels + 1}
            targets.append(target if photograph.masks is None else {**target, "masks": photograph.masks})
        losses: dict[str, Tensor] = self.network([one.pixels / 255 for one in photographs], targets)
        return losses

    def forward(self, image: Tensor) -> Found:
        """Find the objects in one image, float32 [3, H, W] in 0..1, in evaluation mode."""
        found = self.network([image])[0]
        masks = found["masks"][:, 0] if self.options.masks else None
        return Found(found["boxes"], found["labels"] - 1, found["scores"], masks)


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017, arXiv 1612.03144) on the last stages of a backbone, and one pooled level.

    Args:
        backbone: Used as it is, not copied. It says how many of its stages are taken.
        width: Channels of every level.
    """

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, width
        taken = backbone.stages[-backbone.pyramid_stages :]
        self.levels = FeaturePyramidNetwork(
            [stage.width for stage in taken], width, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        strides = [stage.stride for stage in taken]
        self.strides = [*strides, 2 * strides[-1]]

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """Map normalised images [B, 3, H, W] to one map a level, [B, width, H / stride, W / stride]."""
        maps = self.backbone.feature_maps(images)[-self.backbone.pyramid_stages :]
        levels: OrderedDict[str, Tensor] = self.levels(_named(maps))
        return levels


class SimplePyramid(nn.Module):
    """A pyramid on the one map of a plain transformer (Li et al. 2022, arXiv 2203.16527), and one pooled level.

    Args:
        backbone: Used as it is, not copied.
        width: Channels of every level.
    """

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, width
        (stage,) = backbone.stages
        inside, half, quarter = stage.width, stage.width // 2, stage.width // 4
        finer = nn.Sequential(nn.ConvTranspose2d(inside, half, 2, 2), LayerNorm2d(half), nn.GELU())
        ways = [
            (nn.Sequential(finer, nn.ConvTranspose2d(half, quarter, 2, 2)), quarter),
            (nn.ConvTranspose2d(inside, half, 2, 2), half),
            (nn.Identity(), inside),
            (nn.MaxPool2d(2), inside),
        ]
        self.levels = nn.ModuleList(nn.Sequential(way, *_smooth(found, width)) for way, found in ways)
        self.strides = [stage.stride * 2**octave // 4 for octave in range(len(ways) + 1)]

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """Map normalised images [B, 3, H, W] to one map a level, [B, width, H / stride, W / stride]."""
        (map_,) = self.backbone.feature_maps(images)
        levels = [level(map_) for level in self.levels]
        return _named([*levels, torch.max_pool2d(levels[-1], 1, 2)])


def pyramid_of(backbone: Backbone, width: int) -> Pyramid | SimplePyramid:
    """Put the pyramid that suits its stages on a backbone."""
    return SimplePyramid(backbone, width) if len(backbone.stages) == 1 else Pyramid(backbone, width)


def _anchor_sides(strides: Sequence[int], smallest: int) -> tuple[tuple[int, ...], ...]:
    """Return the sides of the anchors of each level, in pixels.

    They double from level to level. Where a pyramid begins at a coarser stride than usual, its levels have those of the
    missing ones as well: all of them as many, as the network that proposes regions wants it.
    """
    octaves = max(1, round(log2(strides[0] / _FINEST)) + 1)
    return tuple(tuple(smallest * 2 ** (level + octave) for octave in range(octaves)) for level in range(len(strides)))


def _reader(pyramid: Pyramid | SimplePyramid, grid: int) -> MultiScaleRoIAlign:
    """Return what reads a region of the level that suits its size, which is not the pooled one."""
    return MultiScaleRoIAlign([str(level) for level in range(len(pyramid.strides) - 1)], grid, sampling_ratio=2)


def _smooth(before: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    ]


def _named(maps: Sequence[Tensor]) -> "OrderedDict[str, Tensor]":
    return OrderedDict((str(level), map_) for level, map_ in enumerate(maps))
