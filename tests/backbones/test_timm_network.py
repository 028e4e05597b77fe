from pathlib import Path

import pytest
import timm
import torch
from timm.models.mobilenetv3 import MobileNetV3

from lightssl.backbones import BACKBONES
from lightssl.backbones.cost import count_cost
from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.backbones.timm_network import TimmNetwork
from lightssl.checkpoint import load_strictly, load_weights, save_network
from lightssl.errors import ConfigError

# The width of timm's features, which is often not that of its last map.
WIDTHS = {
    "mobilenetv2_100": 1280,
    "mobilenetv3_small_100": 1024,
    "mobilenetv4_conv_small": 1280,
    "efficientnet_lite0": 1280,
    "repvit_m0_9": 384,
    "mobileone_s0": 1024,
    "vit_tiny_patch16_224": 192,
    "resnet18": 512,
}


@pytest.mark.parametrize("model", WIDTHS)
def test_a_network_of_timm_keeps_the_promises_of_a_backbone(model: str) -> None:
    torch.manual_seed(0)
    ours = TimmNetwork(model=model)
    assert ours.training
    assert ours.feature_width == WIDTHS[model]

    images = torch.randn(2, 3, 64, 64)
    ours(images).square().sum().backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []

    sizes = {"dynamic_img_size": True} if model.startswith("vit") else {}
    theirs = timm.create_model(model, num_classes=0, **sizes).eval()
    theirs.load_state_dict(ours.network.state_dict())
    ours.eval()
    with torch.no_grad():
        for height, width in ((64, 64), (96, 32)):
            images = torch.randn(2, 3, height, width)
            torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)
            shapes = [tuple(map_.shape) for map_ in ours.feature_maps(images)]
            assert shapes == [(2, stage.width, height // stage.stride, width // stage.stride) for stage in ours.stages]
    strides = [stage.stride for stage in ours.stages]
    assert strides == sorted(set(strides))


def test_it_costs_what_our_own_network_costs() -> None:
    assert count_cost(TimmNetwork(model="mobilenetv2_100"), 224) == count_cost(MobileNetV2(), 224)


@torch.no_grad()
def test_a_transformer_takes_any_size_from_one_patch_on() -> None:
    network = TimmNetwork(model="vit_tiny_patch16_224").eval()
    assert network.smallest_image == 16
    assert network.stages == ((192, 16),)  # one map, not one a block
    images = torch.randn(2, 3, 39, 50)
    torch.testing.assert_close(network(images), network(images[:, :, :32, :48].contiguous()), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="15 x 64 pixels are smaller than one patch"):
        network(torch.zeros(1, 3, 15, 64))


def test_a_network_of_one_size_says_so() -> None:
    network = TimmNetwork(model="levit_128s")
    assert network.smallest_image == 224
    for call in (network, network.feature_maps):
        with pytest.raises(ConfigError, match="levit_128s works on images of 224 x 224 pixels only, not on 64 x 96"):
            call(torch.zeros(2, 3, 64, 96))


def test_a_network_without_maps_is_a_backbone_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(MobileNetV3, "forward_intermediates")
    network = TimmNetwork(model="mobilenetv3_small_050").eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, network.feature_width)
    assert network.stages == ()
    with pytest.raises(ConfigError, match="does not give the feature maps of mobilenetv3_small_050"):
        network.feature_maps(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("model", "suggestion"),
    [
        ("mobilenetv3_smal_100", "Did you mean 'mobilenetv3_small_100'?"),
        ("mobilenetv3_small_100.lamb_in1k", "Did you mean 'mobilenetv3_small_100'?"),
        ("hf-hub:timm/resnet18", "Did you mean 'resnet18'?"),
        ("", "timm.list_models"),
    ],
)
def test_an_unknown_name_is_refused(model: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=f"timm has no network {model!r}") as caught:
        TimmNetwork(model=model)
    assert caught.value.hint is not None
    assert suggestion in caught.value.hint


def test_it_is_rebuilt_from_its_options_and_weights(tmp_path: Path) -> None:
    description = {"backbone": {"name": "timm", "model": "mobilenetv3_small_050"}}
    network = BACKBONES["timm"](model="mobilenetv3_small_050")
    network(torch.randn(4, 3, 32, 32))  # moves the statistics of batch norm
    save_network(tmp_path / "backbone.safetensors", network, description)

    tensors, loaded = load_weights(tmp_path / "backbone.safetensors")
    options = dict(loaded["backbone"])
    again = BACKBONES[options.pop("name")](**options)
    load_strictly(again, tensors, "the file")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))
    assert all(name.startswith("network.") for name in tensors)


def test_it_can_be_laid_out_without_memory() -> None:
    with torch.device("meta"):
        network = TimmNetwork(model="mobilenetv3_small_050")
    assert network.feature_width == 1024
    assert all(tensor.is_meta for tensor in network.state_dict().values())
