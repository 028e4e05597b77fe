"""Detectors: their pyramids, their anchors, their losses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightssl import precision
from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.data.coco_loader import Photograph
from lightssl.evaluation.detector import Detector, DetectorOptions, Found, Pyramid, SimplePyramid, pyramid_of
from lightssl.layers import use_training_layers
from lightssl.precision import in_bfloat16

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)
SMALL = {"short_sides": (64, 64), "long_side": 128, "smallest_anchor": 16, "width": 16, "hidden": 32, "regions": 16}

BUILDS: dict[str, Callable[[], Backbone]] = {
    "mobilenetv2": lambda: BACKBONES["mobilenetv2"](width=0.25),
    "resnet18": lambda: BACKBONES["resnet18"](),
    "vgg19_bn": lambda: BACKBONES["vgg19_bn"](width_factor=1, image_size=64),
    "vit": lambda: BACKBONES["vit_tiny"](patch=16, image_size=64),
}


@pytest.fixture(params=BUILDS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return BUILDS[request.param]().eval()


def photograph(*, masks: bool) -> Photograph:
    drawn = torch.zeros(2, 60, 80, dtype=torch.uint8)
    drawn[0, 5:30, 10:40] = drawn[1, 30:55, 40:75] = 1
    pixels = torch.randint(80, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Photograph(
        pixels + 150 * torch.stack([drawn[0], drawn[1], drawn[0] * 0]),
        torch.tensor([[10.0, 5.0, 40.0, 30.0], [40.0, 30.0, 75.0, 55.0]]),
        torch.tensor([0, 2]),
        drawn if masks else None,
    )


def detector_on(backbone: Backbone, *, masks: bool) -> Detector:
    options = DetectorOptions(masks=masks, **SMALL)
    return Detector(backbone, ["cat", "dog", "bird"], mean=MEAN, std=STD, options=options)


def test_every_level_has_the_stride_it_says(backbone: Backbone) -> None:
    pyramid = pyramid_of(backbone, 16).eval()
    with torch.no_grad():
        levels = pyramid(torch.zeros(2, 3, 128, 192))
    assert len(levels) == len(pyramid.strides)
    for level, stride in zip(levels.values(), pyramid.strides, strict=True):
        assert level.shape == (2, 16, 128 // stride, 192 // stride)


def test_pyramids_are_those_that_were_published() -> None:
    assert pyramid_of(BUILDS["mobilenetv2"](), 16).strides == [16, 32, 64]  # stages 4 and 5, and a pooled level
    assert pyramid_of(BUILDS["resnet18"](), 16).strides == [4, 8, 16, 32, 64]
    assert pyramid_of(BUILDS["vgg19_bn"](), 16).strides == [4, 8, 16, 32, 64]
    assert isinstance(pyramid_of(BUILDS["resnet18"](), 16), Pyramid)
    plain = pyramid_of(BUILDS["vit"](), 16)
    assert isinstance(plain, SimplePyramid)
    assert plain.strides == [4, 8, 16, 32, 64]


def test_anchors_of_all_pyramids_cover_the_same_sizes(backbone: Backbone) -> None:
    detector = detector_on(backbone, masks=False)
    sides = detector.network.rpn.anchor_generator.sizes
    assert sorted({side for level in sides for side in level}) == [16, 32, 64, 128, 256]
    assert len({len(level) for level in sides}) == 1


@pytest.mark.parametrize("masks", [False, True])
def test_every_layer_learns(backbone: Backbone, masks: bool) -> None:
    detector = detector_on(backbone, masks=masks).train()
    torch.manual_seed(0)
    losses = detector.losses([photograph(masks=masks), photograph(masks=masks)])
    assert len(losses) == (5 if masks else 4)
    sum(losses.values()).backward()
    unused = {name for name, one in detector.named_parameters() if one.grad is None or not one.grad.isfinite().all()}
    # The class token of a transformer goes where no map comes from, in its last block; so do fully connected layers.
    elsewhere = ("network.backbone.backbone.network.norm.bias", "network.backbone.backbone.connected.")
    assert not [name for name in unused if not name.startswith(elsewhere)]


def test_coordinates_stay_exact_where_costly_parts_compute_in_bfloat16(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: True)
    detector = detector_on(backbone, masks=True).train()
    use_training_layers(detector, torch.device("cpu"))
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # statistics of few positions would magnify rounding
    seen = Recorder([*detector.costly_parts, detector.network.rpn.anchor_generator])
    shown = [photograph(masks=True)] * 2
    detector.losses(shown)
    (*exact, anchors) = seen.outputs
    inputs = seen.inputs[:-1]
    with in_bfloat16(*detector.costly_parts, device="cpu"):
        rounded = [part(*given) for part, given in zip(detector.costly_parts, inputs, strict=True)]
        losses = detector.losses(shown)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen.outputs[-1], anchors, strict=True))
    for ours, theirs in zip(map(flat, rounded), map(flat, exact), strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in detector.parameters())


class Recorder:
    """Remembers what modules were given last, and returned."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.inputs: list[Any] = [None] * len(modules)
        self.outputs: list[Any] = [None] * len(modules)
        for position, module in enumerate(modules):
            module.register_forward_hook(partial(self._record, position))

    def _record(self, position: int, _: nn.Module, given: Any, output: Any) -> None:
        self.inputs[position], self.outputs[position] = given, output


def flat(output: Any) -> Tensor:
    """Join the tensors of an output, in dicts, lists and tuples."""
    if isinstance(output, Tensor):
        return output.detach().flatten()
    return torch.cat([flat(one) for one in (output.values() if isinstance(output, dict) else output)])


def test_it_finds_what_it_was_shown() -> None:
    torch.manual_seed(0)
    detector = detector_on(BUILDS["resnet18"](), masks=True).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9)
    shown = [photograph(masks=True)] * 2
    for _ in range(80):
        optimizer.zero_grad()
        sum(detector.losses(shown).values()).backward()
        optimizer.step()
    for module in detector.modules():  # what batch norm has met so far is little
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        for _ in range(3):
            detector.losses(shown)
    with torch.inference_mode():
        found: Found = detector.eval()(shown[0].pixels / 255)
    assert sorted(found.labels[:2].tolist()) == [0, 2]
    order = found.labels[:2].argsort()
    torch.testing.assert_close(found.boxes[:2][order], shown[0].boxes, atol=6.0, rtol=0)
    assert found.masks is not None
    assert found.masks.shape[1:] == (60, 80)
    assert found.scores[:2].min() > 0.5
