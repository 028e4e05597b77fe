from itertools import pairwise

import pytest
import torch
from torch import nn

from lightssl.backbones.base import Backbone
from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.backbones.resnet import ResNet18
from lightssl.backbones.vit import ViTTiny
from lightssl.evaluation.classifier import Classifier, layers_of, layerwise_groups

CLASSES = ["cat", "dog", "owl"]
BACKBONES = [MobileNetV2, ResNet18, lambda: ViTTiny(patch=8, image_size=32)]


def test_it_is_its_parts_in_a_row() -> None:
    backbone, hidden = ResNet18().eval(), nn.Sequential(nn.Linear(512, 7), nn.GELU())
    classifier = Classifier(backbone, CLASSES, hidden).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = classifier.head[-1](hidden(backbone(images)))
    assert torch.equal(classifier(images), expected)
    assert expected.shape == (2, 3)


@pytest.mark.parametrize("make", BACKBONES)
def test_every_parameter_is_in_one_layer_in_the_order_of_computation(make: type[Backbone]) -> None:
    backbone = make()
    layers = layers_of(backbone)
    assert sorted(map(id, (p for layer in layers for p in layer))) == sorted(map(id, backbone.parameters()))
    assert all(any(p.ndim > 1 for p in layer) for layer in layers)  # none that only normalises
    met: list[int] = []  # layers in the order in which images meet them
    where = {id(p): depth for depth, layer in enumerate(layers) for p in layer}
    for module in backbone.modules():
        for parameter in module.parameters(recurse=False):
            depth = where[id(parameter)]
            module.register_forward_pre_hook(lambda *_, depth=depth: met.append(depth))
    backbone(torch.randn(2, 3, 32, 32))
    assert sorted(set(met)) == list(range(len(layers)))
    assert max(before - after for before, after in pairwise(met)) <= 1  # a block's own shortcut


def test_rates_rise_geometrically_from_the_first_layer_to_the_head() -> None:
    classifier = Classifier(ResNet18(), CLASSES)
    groups = layerwise_groups(classifier, rate=0.2, first=0.01)
    rates = list(dict.fromkeys(group["lr"] for group in groups))
    assert rates[0] == pytest.approx(0.002)
    assert rates[-1] == pytest.approx(0.2)
    ratios = [after / before for before, after in pairwise(rates)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    by_parameter = {id(p): group for group in groups for p in group["params"]}
    assert len(by_parameter) == len(list(classifier.parameters()))
    assert by_parameter[id(classifier.head[-1].weight)]["lr"] == pytest.approx(0.2)
    assert all(("weight_decay" in by_parameter[id(p)]) == (p.ndim <= 1) for p in classifier.parameters())


def test_one_rate_for_all() -> None:
    groups = layerwise_groups(Classifier(ResNet18(), CLASSES), rate=0.2, first=1.0)
    assert {group["lr"] for group in groups} == {0.2}
