"""What every backbone offers."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network from normalised images to one feature vector an image.

    A subclass takes its options as keyword-only arguments (they are the recipe's ``backbone`` keys), sets
    ``feature_width`` and computes features for any image size that its strides allow.
    """

    feature_width: int  # D
    total_stride: int  # pixels of the input that one position of the last feature map steps over

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D]."""
