"""What every backbone offers."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Stage(NamedTuple):
    """One of the feature maps of a backbone."""

    width: int  # channels
    stride: int  # pixels of the input that one position steps over


class Backbone(nn.Module, ABC):
    """A network from normalised images to one feature vector an image.

    A subclass takes its options as keyword-only arguments (they are the recipe's ``backbone`` keys), and sets
    ``feature_width`` and ``stages``. It works on images of any size and shape whose sides are ``smallest_image`` pixels
    or more, unless it says otherwise.
    """

    feature_width: int  # D
    linear_blocks: int = 1  # in :meth:`linear_features`
    stages: tuple[Stage, ...]  # of the feature maps, the finest first
    pyramid_stages: int = 4  # of the last of them, that a detector's feature pyramid is made of
    smallest_image: int = 1  # side in pixels below which the network cannot work: the patch of a transformer

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""

    def linear_features(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to what published linear evaluations look at, [B, linear_blocks * D].

        That is the features, but for transformers, of which it is the class tokens of several blocks.
        """
        return self(images)

    @abstractmethod
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to what a detection head needs: one map a stage, the finest first.

        Returns:
            Of each stage [B, width, H / stride, W / stride]. Where a stride does not divide a side, convolutions round
            up and transformers round down. A convolutional network without a head of its own has the mean of its last
            map over all positions as its features.
        """
