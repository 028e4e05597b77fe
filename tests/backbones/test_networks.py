"""Our backbones keep their promises, and compute what torchvision's and timm's networks do with the same weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.backbones.resnet import ResNet18
from lightssl.errors import ConfigError

STOCK_REST = MobileNetV2.grammar.published.partition(" ")[2]  # all but the first stage
CONVOLUTIONAL = [
    *(("mobilenetv2", {"width": width, "stem": stem}) for width, stem in ((0.25, "standard"), (1.4, "small"))),
    ("mobilenetv2", {"topology": "24x1-k5e1 32x1-k3e4 32x2-k7e3-k3e6 56x1-k5e3 96x2-k3e3 96x1-k7e6 240x1-k5e4"}),
    *((f"resnet{depth}", {"stem": stem}) for depth in (18, 34, 50) for stem in ("standard", "small")),
    ("resnet", {"topology": "48x1 64x2 160x1 320x3"}),
    ("resnet", {"topology": "48x1 64x2 160x1 320x3", "block": "bottleneck", "stem": "small"}),
    *(
        (name, {"width_factor": 1, "stem": stem})
        for name in ("resnet50_v1", "resnet50_v2", "revnet50")
        for stem in ("standard", "small", "patches")
    ),
    *(
        (name, {"width_factor": 2, "depths": (1, 2, 1, 1), "final_relu": False})
        for name in ("resnet50_v1", "resnet50_v2", "revnet50")
    ),
]
ALL = [
    *CONVOLUTIONAL,
    ("vgg19_bn", {"width_factor": 1}),
    ("vgg19_bn", {"width_factor": 2, "image_size": 32}),
    ("vit_tiny", {}),
    ("vit_tiny", {"patch": 8, "image_size": 48}),
    ("vit", {"topology": "128x3-h1m2-h4m3-h2m4", "patch": 8}),
]


def label(value: object) -> str:
    return "-".join(str(option) for option in value.values()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("mobilenetv2", "mobilenetv2"),
        ("resnet", "resnet18"),
        ("vit", "vit_tiny"),
    ],
)
def test_the_published_topology_is_the_stock_network(name: str, stock: str) -> None:
    torch.manual_seed(0)
    expected = BACKBONES[stock]().state_dict()
    torch.manual_seed(0)
    ours = BACKBONES[name](topology=BACKBONES[name].grammar.published).state_dict()
    assert list(ours) == list(expected)
    assert all(torch.equal(ours[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("topology", ["16x1-k3e1", "20x1-k3e1 " + STOCK_REST, "16x1-k4e1 " + STOCK_REST])
def test_what_is_no_mobilenet_is_refused(topology: str) -> None:
    with pytest.raises(ConfigError, match="topology"):
        MobileNetV2(topology=topology)


def test_blocks_have_the_kernels_and_expansions_of_the_topology() -> None:
    blocks = MobileNetV2(topology="24x2-k5e1-k7e4 " + STOCK_REST).features[1:3]
    shapes = [[tuple(layer.weight.shape) for layer in block.modules() if type(layer) is nn.Conv2d] for block in blocks]
    assert shapes == [
        [(32, 1, 5, 5), (24, 32, 1, 1)],
        [(96, 24, 1, 1), (96, 1, 7, 7), (24, 96, 1, 1)],
    ]


def test_a_head_of_a_transformer_is_64_wide() -> None:
    block = BACKBONES["vit"](topology="128x1-h3m2").network.blocks[0]
    assert block.attn.qkv.weight.shape == (3 * 3 * 64, 128)
    assert block.mlp.fc1.weight.shape == (2 * 128, 128)


@pytest.mark.parametrize("size", [(64, 64), (96, 32)], ids=str)
@pytest.mark.parametrize(
    ("name", "make", "prefix"),
    [
        ("mobilenetv2", torchvision.models.mobilenet_v2, ""),
        ("resnet18", torchvision.models.resnet18, "network."),
        ("resnet34", torchvision.models.resnet34, "network."),
        ("resnet50", torchvision.models.resnet50, "network."),
        ("vit_tiny", lambda: timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True), "network."),
    ],
)
@torch.no_grad()
def test_features_equal_those_of_the_published_network(
    name: str, make: Callable[[], nn.Module], prefix: str, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    theirs = make().train()
    theirs(torch.randn(4, 3, *size))  # statistics of batch norm other than 0 and 1
    theirs.eval()
    ours = BACKBONES[name]().eval()
    heads = ("fc.", "classifier.", "head.")
    ours.load_state_dict(
        {prefix + key: value for key, value in theirs.state_dict().items() if not key.startswith(heads)}
    )
    for head in ("fc", "classifier", "head"):
        if hasattr(theirs, head):
            setattr(theirs, head, nn.Identity())
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), ALL, ids=label)
@torch.no_grad()
def test_features_and_maps_have_the_declared_widths_and_strides(name: str, options: dict[str, Any]) -> None:
    backbone = BACKBONES[name](**options).eval()
    for height, width in ((64, 64), (32, 96)):
        images = torch.randn(1, 3, height, width)
        assert backbone(images).shape == (1, backbone.feature_width)
        shapes = [tuple(map_.shape) for map_ in backbone.feature_maps(images)]
        assert shapes == [(1, stage.width, height // stage.stride, width // stage.stride) for stage in backbone.stages]
    strides = [stage.stride for stage in backbone.stages]
    assert strides == sorted(strides)


@pytest.mark.parametrize(
    ("name", "stem", "strides"),
    [
        ("mobilenetv2", "standard", [4, 8, 16, 32]),
        ("mobilenetv2", "small", [2, 4, 8, 16]),
        ("resnet18", "standard", [4, 8, 16, 32]),
        ("resnet18", "small", [1, 2, 4, 8]),
        ("revnet50", "small", [1, 2, 4, 8]),
        ("revnet50", "patches", [2, 4, 8, 8]),
    ],
)
def test_a_small_stem_keeps_the_resolution_of_small_images(name: str, stem: str, strides: list[int]) -> None:
    assert [stage.stride for stage in BACKBONES[name](stem=stem).stages] == strides


@pytest.mark.parametrize(("name", "options"), CONVOLUTIONAL, ids=label)
@torch.no_grad()
def test_features_are_the_mean_of_the_last_map(name: str, options: dict[str, Any]) -> None:
    backbone = BACKBONES[name](**options).eval()
    images = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(backbone.feature_maps(images)[-1].mean((2, 3)), backbone(images), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), ALL, ids=label)
@torch.no_grad()
def test_the_smallest_image_works(name: str, options: dict[str, Any]) -> None:
    backbone = BACKBONES[name](**options).eval()
    side = backbone.smallest_image
    assert backbone(torch.randn(1, 3, side, side)).isfinite().all()


@pytest.mark.parametrize(("name", "options"), ALL, ids=label)
def test_a_training_step_reaches_every_parameter(name: str, options: dict[str, Any]) -> None:
    backbone = BACKBONES[name](**options).train().to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    backbone(images).square().sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("name", "options"), ALL, ids=label)
def test_a_backbone_can_be_laid_out_without_memory(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        backbone: Backbone = BACKBONES[name](**options)
    assert all(tensor.is_meta for tensor in backbone.state_dict().values())


@pytest.mark.parametrize(
    "make",
    [
        MobileNetV2,
        ResNet18,
        *(partial(BACKBONES[name], width_factor=1) for name in ("resnet50_v1", "resnet50_v2", "revnet50", "vgg19_bn")),
    ],
    ids=str,
)
def test_a_near_linear_start_keeps_views_of_one_image_alike(make: Callable[..., Backbone]) -> None:
    """Under batch statistics, a slightly changed image must stay nearer to itself than to other images."""

    def similarity(init: str) -> float:
        torch.manual_seed(0)
        network = make(init=init)
        images = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=32, mode="bilinear")
        changed = images + 0.1 * torch.randn_like(images)
        estimate_batch_norm(network, [torch.cat([images, changed])])
        network.eval()
        with torch.no_grad():
            a, b = network(images), network(changed)
        a, b = a - a.mean(0), b - b.mean(0)
        return torch.nn.functional.cosine_similarity(a, b).mean().item()

    assert similarity("near_linear") > similarity("torchvision") + 0.1


@pytest.mark.parametrize("kernel", [5, 7])
def test_a_near_linear_start_of_large_kernels_is_one_of_small_kernels(kernel: int) -> None:
    small = "16x1-k3e1 24x2-k3e6 32x3-k3e6 64x4-k3e6 96x3-k3e6 160x3-k3e6 320x1-k3e6"
    near, far = (
        MobileNetV2(topology=topology, init="near_linear").eval()
        for topology in (small, small.replace("k3", f"k{kernel}"))
    )
    around = (kernel - 3) // 2
    weights = {
        name: tensor[..., around:-around, around:-around] if tensor.shape[-2:] == (kernel, kernel) else tensor
        for name, tensor in far.state_dict().items()
    }
    near.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(far(images), near(images), rtol=1e-4, atol=1e-5)
