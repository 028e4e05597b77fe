import dataclasses

import pytest
import torch
from torch import nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm, in_eval_mode
from lightssl.errors import DataError
from lightssl.evaluation.features import StageFeatures, extract_features
from lightssl.images import normalise

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.9), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def batches(sizes=(4, 3)):
    images = torch.randint(0, 256, (sum(sizes), 8, 8, 3), dtype=torch.uint8)
    indices = torch.randperm(sum(sizes))
    return images, indices, list(zip(images.split(sizes), indices.split(sizes), strict=True))


def test_features_are_those_of_the_network_in_eval_mode_in_order():
    net = network().train()
    net[1].eval()
    images, indices, parts = batches()
    features, positions = extract_features(net, parts, mean=MEAN, std=STD)
    assert net.training
    assert not net[1].training
    assert torch.equal(positions, indices)
    torch.testing.assert_close(features, net.eval()(normalise(images, MEAN, STD)).detach())


@pytest.mark.parametrize(
    "backbone",
    [
        BACKBONES["mobilenetv2"](width=0.25, init="near_linear"),
        BACKBONES["resnet18"](),
        BACKBONES["resnet50_v1"](width_factor=1, depths=(1, 2, 1, 1)),
        BACKBONES["resnet50_v2"](width_factor=1, depths=(1, 2, 1, 1)),
        BACKBONES["revnet50"](width_factor=1, depths=(1, 2, 1, 1)),
        BACKBONES["vgg19_bn"](width_factor=1, image_size=32),
        BACKBONES["vit_tiny"](patch=8, image_size=32),
    ],
    ids=lambda network: type(network).__name__,
)
@pytest.mark.parametrize("stages", [False, True])
def test_a_backbone_computes_as_it_does_by_itself_and_stays_as_it_is(backbone: Backbone, stages: bool) -> None:
    torch.manual_seed(0)
    backbone.train()
    for parameter in backbone.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    estimate_batch_norm(backbone, [torch.randn(16, 3, 32, 32)])
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    images = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    network = StageFeatures(backbone) if stages else backbone
    features, _ = extract_features(network, [(images, torch.arange(6))], mean=MEAN, std=STD)
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    with torch.inference_mode(), in_eval_mode(backbone):
        normalised = normalise(images, MEAN, STD)
        own = backbone(normalised)
        maps = backbone.feature_maps(normalised)[:-1] if stages else []
    expected = torch.cat([*(one.mean(dim=(2, 3)) for one in maps), own], dim=1)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_features_may_be_used_with_autograd():
    features, _ = extract_features(network(), batches()[2], mean=MEAN, std=STD)
    probe = nn.Linear(6, 2)
    probe(features).sum().backward()
    assert probe.weight.grad is not None


def test_statistics_of_batch_norm_stay():
    net = network().train()
    before = net[1].running_mean.clone()
    extract_features(net, batches()[2], mean=MEAN, std=STD)
    assert torch.equal(net[1].running_mean, before)


def test_progress_counts_images():
    seen: list[int] = []
    extract_features(network(), batches()[2], mean=MEAN, std=STD, on_batch=seen.append)
    assert seen == [4, 3]


def test_no_image_is_an_error():
    with pytest.raises(DataError, match="no images"):
        extract_features(network(), [], mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": torch.zeros(300, 7)}, "16 wide and test features 7"),
        ({"train": torch.zeros(0, 16)}, "training set holds no image"),
        ({"test_indices": torch.arange(3)}, "300 features, 300 labels and 3 indices"),
        ({"train_labels": torch.full((600,), 5)}, "not one of the 5 classes"),
        ({"train": torch.full((600, 16), float("nan"))}, "training set are not finite"),
    ],
)
def test_features_that_do_not_fit_are_an_error(clusters, change, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(clusters(spread=1), **change)
