"""Vision Transformer, tiny (Touvron et al. 2020, arXiv 2012.12877), as DINO trains it."""

from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightssl.backbones.base import Backbone, Stage
from lightssl.backbones.patches import whole_patches
from lightssl.errors import ConfigError
from lightssl.types import PositiveInt, Share

_WIDTH, _DEPTH, _HEADS = 192, 12, 3


class ViTTiny(Backbone):
    """timm's ViT-Ti, 192 wide: the features are the class token after the last normalisation.

    Position embeddings are interpolated, so views may have any size from one patch on. Rows and columns that fill no
    patch are dropped. Weights start as DINO's (Caron et al. 2021, arXiv 2104.14294).

    Args:
        patch: Side of a patch, in pixels.
        image_size: Side of the images that the position embeddings are laid out for, in pixels.
        drop_path: Share of the images for which training skips the last block; it grows linearly from 0 at the first.
    """

    def __init__(self, *, patch: PositiveInt = 16, image_size: PositiveInt = 224, drop_path: Share = 0.0) -> None:
        super().__init__()
        if image_size < patch:
            raise ConfigError(
                f"backbone.image_size is {image_size} pixels, less than one patch of {patch}.",
                "Raise backbone.image_size or lower backbone.patch.",
            )
        network: Any = VisionTransformer(
            img_size=image_size,
            patch_size=patch,
            embed_dim=_WIDTH,
            depth=_DEPTH,
            num_heads=_HEADS,
            num_classes=0,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
        )
        # timm starts all else as DINO does, but the class token near zero.
        nn.init.trunc_normal_(network.cls_token, std=0.02)
        self.network = network
        self.feature_width = _WIDTH
        self.stages = (Stage(_WIDTH, patch),)
        self.smallest_image = patch

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to class tokens [B, D].

        Raises:
            ConfigError: The images are smaller than a patch.
        """
        return self.network(whole_patches(images, self.smallest_image))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map, the normalised patch tokens [B, D, H // patch, W // patch].

        Raises:
            ConfigError: The images are smaller than a patch.
        """
        maps: list[Tensor] = self.network.forward_intermediates(
            whole_patches(images, self.smallest_image), indices=1, norm=True, intermediates_only=True
        )
        return maps
