"""Vision Transformers of any shape, and the tiny one (Touvron et al. 2020, arXiv 2012.12877), as DINO trains them."""

from typing import Annotated, Any, ClassVar

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from lightssl.backbones.base import Stage
from lightssl.backbones.patches import whole_patches
from lightssl.backbones.topology import BlockPart, Grammar, TopologyBackbone
from lightssl.errors import ConfigError
from lightssl.types import PositiveInt, Share

_GRAMMAR = Grammar("hm", "192x12-h3m4")
_HEAD_WIDTH = 64
_LINEAR_BLOCKS = 4  # whose class tokens a linear evaluation looks at


class ViT(TopologyBackbone):
    """timm's Vision Transformer: the features are the class token after the last normalisation.

    Position embeddings are interpolated, so views may have any size from one patch on. Rows and columns that fill no
    patch are dropped. Weights start as DINO's (Caron et al. 2021, arXiv 2104.14294).

    Args:
        topology: One stage: the width of the tokens, the blocks, and their attention heads and MLP ratios. A head is 64
            wide, whatever the tokens are.
        patch: Side of a patch, in pixels.
        image_size: Side of the images that the position embeddings are laid out for, in pixels.
        drop_path: Share of the images for which training skips the last block; it grows linearly from 0 at the first.

    Raises:
        ConfigError: ``topology`` is not one of a transformer, or the images are smaller than a patch.
    """

    grammar = _GRAMMAR
    row_groups: ClassVar = {"attn.qkv": 3}  # queries, keys and values

    def __init__(
        self,
        *,
        topology: Annotated[str, _GRAMMAR],
        patch: PositiveInt = 16,
        image_size: PositiveInt = 224,
        drop_path: Share = 0.0,
    ) -> None:
        super().__init__()
        if image_size < patch:
            raise ConfigError(
                f"backbone.image_size is {image_size} pixels, less than one patch of {patch}.",
                "Raise backbone.image_size or lower backbone.patch.",
            )
        ((width, blocks),) = self.grammar.parse(topology)

        def make_block(*, depth: int, **options: Any) -> Block:
            heads, ratio = blocks[depth]
            return Block(depth=depth, **{**options, "num_heads": heads, "mlp_ratio": ratio})

        network: Any = VisionTransformer(
            img_size=image_size,
            patch_size=patch,
            embed_dim=width,
            depth=len(blocks),
            num_classes=0,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
            block_fn=make_block,  # type: ignore[arg-type]
            attn_layer=_Attention,
        )
        # timm starts all else as DINO does, but the class token near zero.
        nn.init.trunc_normal_(network.cls_token, std=0.02)
        self.network = network
        self.feature_width = width
        self.linear_blocks = min(_LINEAR_BLOCKS, len(blocks))
        self.stages = (Stage(width, patch),)
        self.smallest_image = patch

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to class tokens [B, D].

        Raises:
            ConfigError: The images are smaller than a patch.
        """
        return self.network(whole_patches(images, self.smallest_image))

    def linear_features(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to the normalised class tokens of the last blocks, [B, blocks * D].

        DINO (arXiv 2104.14294) evaluates its small transformers so, with four blocks.

        Raises:
            ConfigError: The images are smaller than a patch.
        """
        found = self.network.forward_intermediates(
            whole_patches(images, self.smallest_image),
            indices=self.linear_blocks,
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        return torch.cat([prefix[:, 0] for _, prefix in found], dim=1)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to one map, the normalised patch tokens [B, D, H // patch, W // patch].

        Raises:
            ConfigError: The images are smaller than a patch.
        """
        whole = whole_patches(images, self.smallest_image)
        tokens: Tensor = self.network.forward_features(whole)  # the class token first
        rows = whole.shape[2] // self.smallest_image
        return [tokens[:, 1:].mT.unflatten(2, (rows, -1)).contiguous()]

    def block_names(self) -> list[list[str]]:
        """Names of the blocks: see :class:`TopologyBackbone`."""
        return [[f"network.blocks.{i}" for i in range(len(self.network.blocks))]]

    def block_part(
        self, stage: int, position: int, inputs: int | None, width: int, settings: tuple[int, ...]
    ) -> BlockPart:
        """Say what a smaller block takes of the block here: see :class:`TopologyBackbone`.

        Whatever reads the tokens normalises them first: what a narrower network lacks of them is left out there.
        """
        heads, ratio = settings
        name = self.block_names()[stage][position]
        return BlockPart(
            inputs={f"{name}.attn.proj": heads * _HEAD_WIDTH, f"{name}.mlp.fc2": ratio * width},
            norms=dict.fromkeys([f"{name}.norm1", f"{name}.norm2", "network.norm"], width),
        )


class _Attention(Attention):
    """timm's attention with heads of one width."""

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, attn_head_dim=_HEAD_WIDTH, **options)


class ViTTiny(ViT):
    """ViT-Ti, 192 wide: see :class:`ViT`."""

    def __init__(self, *, patch: PositiveInt = 16, image_size: PositiveInt = 224, drop_path: Share = 0.0) -> None:
        super().__init__(topology=self.grammar.published, patch=patch, image_size=image_size, drop_path=drop_path)
