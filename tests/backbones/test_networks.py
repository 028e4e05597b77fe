"""Our backbones against torchvision's networks with the same weights."""

import pytest
import torch
import torchvision

from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.backbones.resnet import ResNet18


def test_mobilenetv2_computes_torchvisions_features() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2().eval()
    ours = MobileNetV2().eval()
    ours.features.load_state_dict(theirs.features.state_dict())
    theirs.classifier = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_resnet18_computes_torchvisions_features() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    theirs.fc = torch.nn.Identity()
    ours = ResNet18().eval()
    ours.network.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "backbone", [MobileNetV2(width=0.25), MobileNetV2(width=1.4), ResNet18()], ids=["0.25", "1.4", "r18"]
)
def test_the_declared_width_is_the_width(backbone: Backbone) -> None:
    assert backbone.eval()(torch.randn(1, 3, 32, 32)).shape == (1, backbone.feature_width)


@pytest.mark.parametrize("kind", [MobileNetV2, ResNet18])
@pytest.mark.parametrize("stem", ["standard", "small"])
def test_the_declared_stride_is_the_stride(kind: type[Backbone], stem: str) -> None:
    """The last feature map before pooling has one position for each ``total_stride`` pixels."""
    backbone = kind(stem=stem).eval()  # type: ignore[call-arg]
    last = backbone.features if isinstance(backbone, MobileNetV2) else backbone.network.layer4  # type: ignore[attr-defined]
    shapes = []
    last.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[2:])))
    backbone(torch.randn(1, 3, 64, 64))
    side = 64 // backbone.total_stride
    assert shapes == [(side, side)]


def test_a_near_linear_start_keeps_views_of_one_image_alike() -> None:
    """Under batch statistics, a slightly changed image must stay nearer to itself than to other images."""

    def similarity(init: str) -> float:
        torch.manual_seed(0)
        network = MobileNetV2(init=init)  # type: ignore[arg-type]
        images = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=32, mode="bilinear")
        changed = images + 0.1 * torch.randn_like(images)
        estimate_batch_norm(network, [torch.cat([images, changed])])
        network.eval()
        with torch.no_grad():
            a, b = network(images), network(changed)
        a, b = a - a.mean(0), b - b.mean(0)
        return torch.nn.functional.cosine_similarity(a, b).mean().item()

    assert similarity("near_linear") > similarity("torchvision") + 0.1
