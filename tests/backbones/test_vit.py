from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from lightssl.backbones.vit import ViT, ViTTiny
from lightssl.deploy.onnx import export_onnx
from lightssl.errors import ConfigError


def small(**options: float) -> ViTTiny:
    """A network whose native size is cheap: 4 x 4 patches of 8 pixels."""
    torch.manual_seed(0)
    return ViTTiny(**{"patch": 8, "image_size": 32, **options})  # type: ignore[arg-type]


@torch.no_grad()
def test_at_its_native_size_the_position_embeddings_are_used_as_they_are() -> None:
    ours = small().eval()
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8).eval()  # one size only
    theirs.load_state_dict(ours.network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (24, 56), (64, 64)], ids=str)
@torch.no_grad()
def test_at_other_sizes_they_are_interpolated_as_timm_does(size: tuple[int, int]) -> None:
    ours = small().eval()
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8).eval()
    theirs.load_state_dict(ours.network.state_dict())
    theirs.set_input_size(size)  # resamples the embeddings once and for all
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_and_columns_that_fill_no_patch_do_not_count() -> None:
    network = small().eval()
    images = torch.randn(2, 3, 39, 25)
    torch.testing.assert_close(network(images), network(images[:, :, :32, :24].contiguous()), atol=1e-5, rtol=1e-5)
    assert network.feature_maps(images)[0].shape == (2, 192, 4, 3)


@torch.no_grad()
def test_the_map_holds_the_normalised_patch_tokens_in_reading_order() -> None:
    network = small().eval()
    images = torch.randn(2, 3, 16, 24)
    tokens = network.network.forward_features(images)  # [B, 1 + 2 * 3, D], the class token first
    (map_,) = network.feature_maps(images)
    torch.testing.assert_close(map_.flatten(2).mT, tokens[:, 1:])
    torch.testing.assert_close(network(images), tokens[:, 0])


@pytest.mark.parametrize("call", ["forward", "feature_maps"])
def test_an_image_smaller_than_the_patch_is_refused(call: str) -> None:
    network = small()
    assert network.smallest_image == 8
    with pytest.raises(ConfigError, match="32 x 7 pixels are smaller than one patch of 8 x 8"):
        getattr(network, call)(torch.zeros(1, 3, 32, 7))


def test_position_embeddings_need_a_patch() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.image_size is 12 pixels, less than one patch of 16"):
        ViTTiny(image_size=12)


def test_drop_path_grows_with_depth_and_acts_in_training_only() -> None:
    network = small(drop_path=0.11)
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in network.network.blocks]
    assert rates == pytest.approx([0.01 * i for i in range(12)])
    network = small(drop_path=0.5)
    images = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))
        never = small().train()
        never.load_state_dict(network.state_dict())
        torch.testing.assert_close(never(images), network(images))


def test_weights_start_as_dinos() -> None:
    network = small().network
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.cls_token.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.slow
def test_it_exports_with_a_free_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = export_onnx(
        ViTTiny(drop_path=0.1).train(),
        tmp_path / "vit.onnx",
        input_size=64,  # not the native size: the interpolation is in the file
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        include_normalisation=True,
        metadata={},
        images=None,
    )  # checks the features of batches of 1 and 3 against torch's
    assert result.feature_width == 192
    assert 0 < result.max_error_random < 1e-5 * result.max_feature


def test_a_linear_evaluation_looks_at_the_class_tokens_of_the_last_blocks() -> None:
    backbone = ViT(topology="64x6-h1m1", patch=4, image_size=16).eval()
    images = torch.randn(2, 3, 16, 20)
    seen: list[torch.Tensor] = []
    for block in backbone.network.blocks:
        block.register_forward_hook(lambda _block, _inputs, tokens: seen.append(tokens))
    backbone(images)
    expected = torch.cat([backbone.network.norm(tokens)[:, 0] for tokens in seen[-4:]], dim=1)
    found = backbone.linear_features(images)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[:, -64:], backbone(images))
    assert found.shape[1] == backbone.linear_blocks * backbone.feature_width


def test_a_shallow_transformer_has_fewer_blocks_to_look_at() -> None:
    backbone = ViT(topology="64x2-h1m1", patch=4, image_size=16)
    assert backbone.linear_features(torch.randn(1, 3, 16, 16)).shape == (1, 2 * 64)
