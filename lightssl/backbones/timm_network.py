"""Any network of timm (https://github.com/huggingface/pytorch-image-models) as a backbone."""

from typing import Any

import timm
import torch
from torch import Tensor

from lightssl.backbones.base import Backbone, Stage
from lightssl.backbones.batchnorm import in_eval_mode
from lightssl.backbones.patches import whole_patches
from lightssl.errors import ConfigError
from lightssl.registry import did_you_mean


class TimmNetwork(Backbone):
    """A network of timm without its classifier, with random weights. Recipes write it ``backbone: timm:NAME``.

    The features are what timm's own forward returns: many networks widen them between their last map and their
    classifier. Transformers take any image size from one patch on, where timm lets them. A network that works at one
    size alone has it as ``smallest_image``, and refuses others.

    Args:
        model: A name of ``timm.list_models()``.

    Raises:
        ConfigError: timm has no such network.
    """

    def __init__(self, *, model: str) -> None:
        super().__init__()
        network = _create(model)
        self.network = network
        self._model = model
        self._patch: int = network.patch_embed.feat_ratio() if getattr(network, "dynamic_img_size", False) else 1
        self._only_size: int | None = None
        native_size: int = network.pretrained_cfg["input_size"][-1]
        self.feature_width = self._width_at(native_size)
        # By trial: timm marks networks of one size, but not all of them, and some that are none.
        if not self._works_at(native_size // 2):
            self._only_size = native_size
        self.smallest_image = self._only_size or self._patch
        self._stage_ends = _stage_ends(network)
        infos = [network.feature_info[index] for index in self._stage_ends]
        self.stages = tuple(Stage(info["num_chs"], info["reduction"]) for info in infos)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to pooled features [B, D].

        Raises:
            ConfigError: The network does not work at this size.
        """
        return self.network(self._fitted(images))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, 3, H, W] to timm's map of each stage: see :meth:`Backbone.feature_maps`.

        Raises:
            ConfigError: The network does not work at this size, or timm does not give its maps: ``stages`` is empty.
        """
        if not self.stages:
            raise ConfigError(
                f"timm does not give the feature maps of {self._model}.",
                "Choose a network that has forward_intermediates, such as timm:mobilenetv3_small_100.",
            )
        maps: list[Tensor] = self.network.forward_intermediates(
            self._fitted(images), indices=self._stage_ends, intermediates_only=True
        )
        return maps

    def _fitted(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self._only_size is not None and (height, width) != (self._only_size, self._only_size):
            raise ConfigError(
                f"timm's {self._model} works on images of {self._only_size} x {self._only_size} pixels only, "
                f"not on {height} x {width}.",
                "Give all views and the evaluated images this size, or choose another network: convolutional ones take "
                "any size.",
            )
        return whole_patches(images, self._patch)

    @torch.no_grad()
    def _width_at(self, size: int) -> int:
        with in_eval_mode(self):
            return self(torch.zeros(1, 3, size, size)).shape[1]

    def _works_at(self, size: int) -> bool:
        try:
            self._width_at(size)
        except (AssertionError, RuntimeError, ValueError):
            return False
        return True


def _create(model: str) -> Any:
    """Build a network of timm; one that can take several image sizes is told to."""
    known = timm.list_models()
    if model not in known:
        suggestion = did_you_mean(model, known)
        hint = "timm.list_models() names them all, without the tags of pre-trained weights."
        raise ConfigError(f"timm has no network {model!r}.", f"{suggestion} {hint}" if suggestion else hint)
    try:
        return timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(model, pretrained=False, num_classes=0)


def _stage_ends(network: Any) -> list[int]:
    """Return which of timm's feature maps are the last of their resolution: to timm, every transformer block is one."""
    if not hasattr(network, "forward_intermediates"):
        return []
    return sorted({info["reduction"]: index for index, info in enumerate(network.feature_info)}.values())
