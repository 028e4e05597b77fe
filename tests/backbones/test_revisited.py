"""The residual networks of Kolesnikov et al. against published implementations and formulas, in float64."""

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones import BACKBONES
from lightssl.backbones.batchnorm import batch_norm_layers
from lightssl.backbones.cost import count_cost
from lightssl.backbones.revisited import ResNet50V1, ResNet50V2, RevNet50

SMALL: dict[str, Any] = {"width_factor": 1, "depths": (2, 3, 2, 1)}
# Names of the layers of a unit here and in timm.
_TIMM = {
    "before.0": "norm1",
    "residual.0": "conv1",
    "residual.1": "norm2",
    "residual.3": "conv2",
    "residual.4": "norm3",
    "residual.6": "conv3",
    "projection": "downsample.conv",
}


def with_statistics(network: nn.Module) -> nn.Module:
    """Give batch norm statistics, weights and biases other than 0 and 1."""
    for layer in batch_norm_layers(network):
        for tensor in (layer.running_mean, layer.bias):
            nn.init.normal_(tensor, std=0.3)  # type: ignore[arg-type]
        for tensor in (layer.running_var, layer.weight):
            nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    return network.double().eval()


@pytest.mark.parametrize("name", ["resnet50_v1", "resnet50_v2", "revnet50", "vgg19_bn"])
@pytest.mark.parametrize("factor", [4, 8, 12, 16])
def test_features_are_512_times_as_wide_as_the_factor(name: str, factor: int) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](width_factor=factor)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 512 * factor)
    assert network.feature_width == 512 * factor


@pytest.mark.parametrize("size", [(64, 64), (33, 50)], ids=str)
@torch.no_grad()
def test_the_first_form_is_torchvisions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = with_statistics(torchvision.models.resnet50())
    theirs.fc = nn.Identity()
    ours = ResNet50V1().double().eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (33, 50)], ids=str)
@torch.no_grad()
def test_pre_activation_is_timms(size: tuple[int, int], final_relu: bool) -> None:
    torch.manual_seed(0)
    theirs: Any = with_statistics(timm.create_model("resnetv2_50", num_classes=0))
    if not final_relu:
        theirs.norm.act = nn.Identity()
    published = theirs.state_dict()
    ours = ResNet50V2(final_relu=final_relu).double().eval()

    def their_name(name: str) -> str:
        layer, _, tensor = name.rpartition(".")
        if not layer.startswith("blocks."):
            return {"root.0": "stem.conv", "last.0": "norm"}[layer] + "." + tensor
        _, stage, block, inside = layer.split(".", 3)
        return f"stages.{stage}.blocks.{block}.{_TIMM[inside]}.{tensor}"

    assert len(ours.state_dict()) == len(published)
    ours.load_state_dict({name: published[their_name(name)] for name in ours.state_dict()})
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images))


@torch.no_grad()
def test_without_the_final_relu_the_first_form_ends_with_a_sum() -> None:
    torch.manual_seed(0)
    plain = with_statistics(ResNet50V1(**SMALL))
    linear = ResNet50V1(**SMALL, final_relu=False).double().eval()
    linear.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    (*earlier, ours), (*earlier_rectified, rectified) = linear.feature_maps(images), plain.feature_maps(images)
    assert all(map(torch.equal, earlier, earlier_rectified))
    assert (ours < 0).any()
    assert torch.equal(ours.relu(), rectified)


@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (33, 50)], ids=str)
@torch.no_grad()
def test_the_reversible_network_is_the_papers(size: tuple[int, int], final_relu: bool) -> None:
    """As a chain of functions: each unit maps (b, a) to (a, b + bottleneck(a)), half the channels each."""
    torch.manual_seed(0)
    network = with_statistics(RevNet50(**SMALL, final_relu=final_relu))
    state = network.state_dict()

    def normalised(maps: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (variance + 1e-5).sqrt() * weight + bias

    def bottleneck(maps: Tensor, name: str) -> Tensor:
        for norm, kernel in ((0, 1), (3, 3), (6, 1)):
            maps = normalised(maps, f"{name}.{norm}").clamp(min=0)
            maps = F.conv2d(maps, state[f"{name}.{norm + 2}.weight"], padding=kernel // 2)
        return maps

    images = torch.randn(2, 3, *size, dtype=torch.float64)
    maps = F.conv2d(images, state["root.0.weight"], stride=2, padding=3)
    maps = F.max_pool2d(F.pad(maps, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    for stage, depth in enumerate(SMALL["depths"]):
        if stage:
            right, bottom = maps.shape[3] % 2, maps.shape[2] % 2
            counted = F.pad(torch.ones_like(maps), (0, right, 0, bottom))
            maps = F.avg_pool2d(F.pad(maps, (0, right, 0, bottom)), 2) / F.avg_pool2d(counted, 2)
            nothing = torch.zeros_like(maps[:, ::2])
            maps = torch.cat([nothing, maps, nothing], dim=1)
        for unit in range(depth):
            x1, x2 = maps.tensor_split(2, dim=1)
            maps = torch.cat([x2, x1 + bottleneck(x2, f"blocks.{stage}.1.units.{unit}")], dim=1)
    maps = normalised(maps, "last.0")
    expected = (maps.clamp(min=0) if final_relu else maps).mean((2, 3))
    torch.testing.assert_close(network(images), expected)


@torch.no_grad()
def test_every_stage_of_the_reversible_network_can_be_undone() -> None:
    torch.manual_seed(0)
    network = RevNet50(width_factor=1)
    maps = network.root(torch.randn(8, 3, 64, 64))
    for transition, units in network.blocks:
        inputs = transition(maps)
        maps = units(inputs)
        largest = maps.abs().max().item()
        torch.testing.assert_close(units.inverse(maps), inputs, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("stem", "size"), [("standard", (64, 64)), ("standard", (33, 50)), ("small", (12, 9)), ("patches", (30, 30))]
)
def test_gradients_of_the_reversible_network_are_those_of_kept_activations(stem: Any, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reversible = RevNet50(**SMALL, stem=stem).double()
    plain = RevNet50(**SMALL, stem=stem, recompute=False).double()
    plain.load_state_dict(reversible.state_dict())
    images = torch.randn(4, 3, *size, dtype=torch.float64, requires_grad=True)
    results = []
    for network in (reversible, plain):
        features = network(images)
        loss = (features * torch.linspace(-1, 1, features.numel(), dtype=torch.float64).view_as(features)).sum()
        results.append([features, *torch.autograd.grad(loss, [images, *network.parameters()])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    for name, expected in plain.named_buffers():  # running statistics: moved once
        assert torch.equal(reversible.get_buffer(name), expected), name


def test_the_reversible_network_keeps_a_third_at_most_of_what_more_blocks_would_add() -> None:
    def kept(depths: tuple[int, int, int, int], *, recompute: bool) -> int:
        torch.manual_seed(0)
        network = RevNet50(width_factor=1, depths=depths, recompute=recompute)
        storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = network(torch.randn(2, 3, 64, 64))
        assert features.requires_grad
        for tensor in network.state_dict().values():
            storages.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(storages.values())

    shallow, deep = (1, 1, 1, 1), (3, 4, 6, 3)
    growth = {form: kept(deep, recompute=form) - kept(shallow, recompute=form) for form in (True, False)}
    assert growth[False] > 0
    assert growth[True] < growth[False] / 3


@pytest.mark.parametrize("recompute", [True, False])
def test_only_one_forward_pass_is_counted(recompute: bool) -> None:
    """The FLOPs of every layer by hand; there is a projection nowhere."""
    network = RevNet50(width_factor=1, depths=(3, 4, 6, 3), recompute=recompute)
    flops = 32 * 32 * 3 * 7 * 7 * 64  # the root's convolution, on images of 64 pixels
    for depth, width, side in ((3, 64, 16), (4, 128, 8), (6, 256, 4), (3, 512, 2)):
        half, inside = width // 2, width // 8
        flops += depth * side * side * (half * inside + 9 * inside * inside + inside * half)
    assert count_cost(network.train(), 64).flops == flops


def test_options_change_neither_the_names_nor_the_values_of_weights() -> None:
    """Weights of one form can be evaluated in another, as a copy or an averaged teacher."""
    torch.manual_seed(0)
    first = RevNet50(**SMALL)
    second = copy.deepcopy(first)
    second.load_state_dict(RevNet50(**SMALL, recompute=False).state_dict())
    for target, source in zip(second.parameters(), first.parameters(), strict=True):
        target.detach().lerp_(source.detach(), 1.0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(second(images), first(images))
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_a_reversible_network_trains_in_bfloat16() -> None:
    torch.manual_seed(0)
    reversible = RevNet50(**SMALL)
    plain = RevNet50(**SMALL, recompute=False)
    plain.load_state_dict(reversible.state_dict())
    images = torch.randn(8, 3, 64, 64)
    for network in (reversible, plain):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = network(images)
        features.square().sum().backward()
    for (name, found), expected in zip(reversible.named_parameters(), plain.parameters(), strict=True):
        cosine = F.cosine_similarity(found.grad.flatten(), expected.grad.flatten(), dim=0)
        assert cosine > 0.99, name
