import pytest
import torch

from lightssl.backbones.patches import whole_patches
from lightssl.errors import ConfigError


@pytest.mark.parametrize(("size", "kept"), [((16, 32), (16, 32)), ((31, 47), (16, 32)), ((17, 95), (16, 80))], ids=str)
def test_the_remainder_is_dropped_at_the_lower_and_right_edge(size: tuple[int, int], kept: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    assert torch.equal(whole_patches(images, 16), images[:, :, : kept[0], : kept[1]])


@pytest.mark.parametrize("size", [(15, 64), (64, 15)], ids=str)
def test_an_image_without_a_whole_patch_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"{size[0]} x {size[1]} pixels are smaller than one patch of 16 x 16"):
        whole_patches(torch.zeros(1, 3, *size), 16)
