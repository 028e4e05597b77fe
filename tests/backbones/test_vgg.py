"""VGG19 with batch norm against torchvision's, and its fully connected layers against linear ones, in float64."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightssl.backbones.batchnorm import batch_norm_layers, estimate_batch_norm
from lightssl.backbones.cost import count_cost
from lightssl.backbones.vgg import VGG19BN


@torch.no_grad()
def test_features_are_torchvisions_before_batch_norm_of_the_linear_layers() -> None:
    torch.manual_seed(0)
    ours = VGG19BN(image_size=64).double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    estimate_batch_norm(ours, [images])
    ours.eval()
    trunk = torchvision.models.vgg19_bn().features.double().eval()
    layers = [layer for layer in trunk if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    own = [layer for block in ours.blocks for layer in block if not isinstance(layer, nn.ReLU)]
    for theirs, layer in zip(layers, own, strict=True):
        theirs.load_state_dict({**theirs.state_dict(), **layer.state_dict()})
        if isinstance(theirs, nn.Conv2d):
            nn.init.zeros_(theirs.bias)  # type: ignore[arg-type]
    features = trunk(images).flatten(1)
    _, first, first_norm, _, second, second_norm, _, _ = ours.connected
    for linear, norm in ((first, first_norm), (second, second_norm)):
        features = F.relu(norm(F.linear(features, linear.weight.flatten(1))[:, :, None, None])).flatten(1)
    assert features.std() > 0.1
    torch.testing.assert_close(ours(images), features)


def test_the_cost_at_224_is_torchvisions() -> None:
    """But for the classifier, the biases, and the batch norm in place of those of the linear layers."""
    ours, theirs = VGG19BN(), torchvision.models.vgg19_bn()
    cost, published = count_cost(ours, 224), count_cost(theirs, 224)
    assert published.flops == pytest.approx(19.63e9, rel=1e-3)
    assert cost.flops == published.flops - 4096 * 1000
    biases = sum(layer.bias.numel() for layer in theirs.modules() if isinstance(layer, nn.Conv2d))
    assert cost.parameters == published.parameters - (4096 * 1000 + 1000) - biases + 2 * 4096


@pytest.mark.parametrize(("image_size", "side"), [(224, 7), (64, 2), (33, 2), (32, 1), (8, 1)])
def test_the_first_linear_layer_sees_the_map_of_an_image(image_size: int, side: int) -> None:
    network = VGG19BN(width_factor=1, image_size=image_size).eval()
    assert network.connected[1].weight.shape == (512, 64, side, side)
    with torch.no_grad():
        map_ = network.feature_maps(torch.zeros(1, 3, image_size, image_size))[-1]
    assert map_.shape == (1, 64, side, side)  # nothing is left to pool


def test_the_standard_width_has_64_channels() -> None:
    with torch.device("meta"):
        networks = [VGG19BN(), VGG19BN(width_factor=4)]
    assert [[stage.width for stage in network.stages] for network in networks] == [
        [64, 128, 256, 512, 512, 512],
        [32, 64, 128, 256, 256, 256],
    ]
    assert len(batch_norm_layers(networks[0])) == 16 + 2
