"""Layers that cost less against torch's: values and gradients, and what they keep."""

import copy
import ctypes
import platform
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.layers import HostConvolution, HostDepthwise, LeanReLU6, use_training_layers

M_PERTURB = -6  # of glibc's malloc.h: fills memory as it is handed out
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def run(layers: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Output, gradient of the input and of each parameter of a loss that weighs every output differently."""
    images = images.clone().requires_grad_()
    output = layers(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return output, *torch.autograd.grad((output * weights).sum(), [images, *layers.parameters()])


@pytest.mark.parametrize("inplace", [True, False])
def test_relu6_is_torchs_bit_for_bit(inplace: bool) -> None:
    images = torch.randn(2, 8, 5, 5) * 6
    images[0, 0] = torch.tensor([-0.0, 0.0, 6.0, 7.0, 3.0])
    layers = nn.Sequential(nn.Conv2d(8, 8, 1, groups=8), nn.ReLU6(inplace), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        layers[0].weight.fill_(1.0), layers[0].bias.zero_()
    exact = run(layers, images)
    use_training_layers(layers, CUDA)
    assert isinstance(layers[1], LeanReLU6)
    for ours, theirs in zip(run(layers, images), exact, strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        assert torch.equal(layers(images), exact[0])


def test_relu6_leaves_its_input_alone_unless_asked() -> None:
    images = torch.tensor([-1.0, 9.0], requires_grad=True)
    assert LeanReLU6()(images).tolist() == [0.0, 6.0]
    assert images.tolist() == [-1.0, 9.0]


def test_a_third_of_the_kept_activations_goes() -> None:
    def kept(layers: nn.Module) -> int:
        storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = layers(torch.randn(2, 3, 32, 32))
        assert output.requires_grad
        return sum(storages.values()) - sum(p.nbytes for p in layers.parameters())

    blocks = [nn.Sequential(nn.Conv2d(c, 16, 1), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)) for c in (3, 16, 16)]
    layers = nn.Sequential(*blocks, nn.Conv2d(16, 1, 1))
    before = kept(layers)
    use_training_layers(layers, CUDA)
    assert kept(layers) < 0.72 * before


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (3, 5), 4])
@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4), (3, 2), (5, 5), (8, 7)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_depthwise_convolutions_equal_torchs_on_maps_of_any_size(
    kernel: Any, stride: Any, shape: tuple[int, int], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    exact = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=False).to(memory_format=memory_format)
    layers = nn.Sequential(copy.deepcopy(exact))
    use_training_layers(layers, CPU)
    assert isinstance(layers[0], HostDepthwise)
    images = torch.randn(4, 6, *shape).to(memory_format=memory_format)
    for ours, theirs in zip(run(layers, images), run(exact.double(), images.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions_round_to_bfloat16_as_torchs_do(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    exact = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
    layers = nn.Sequential(copy.deepcopy(exact))
    use_training_layers(layers, CPU)
    images = torch.randn(4, 6, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = run(layers, images), run(exact, images)
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in theirs]
    assert torch.equal(ours[0], theirs[0])
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


@pytest.mark.parametrize("kernel", [3, 5, 7, (3, 5), 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4), (3, 2), (8, 7)])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"groups": 2}])
def test_convolutions_equal_torchs_on_maps_of_any_size(
    kernel: Any, stride: int, shape: tuple[int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    exact = nn.Conv2d(4, 6, kernel, stride, padding, **options)
    layers = nn.Sequential(copy.deepcopy(exact))
    use_training_layers(layers, CPU)
    assert isinstance(layers[0], HostConvolution)
    images = torch.randn(4, 4, *shape)
    for ours, theirs in zip(run(layers, images), run(exact.double(), images.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_no_gradient_comes_from_memory_that_nobody_wrote(groups: int, kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(0)
    exact = nn.Conv2d(64, 64, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = nn.Sequential(copy.deepcopy(exact))
    use_training_layers(layers, CPU)
    images = torch.randn(16, 64, side, side)
    expected = run(exact.double(), images.double())
    mallopt = ctypes.CDLL(None).mallopt
    try:
        for fill in (128, 1, 127):  # what new memory holds: large numbers, infinities and NaN among them
            assert mallopt(M_PERTURB, fill)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = run(layers, images)
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours.double(), theirs, rtol=0.1, atol=0.05 * theirs.abs().max().item())
    finally:
        mallopt(M_PERTURB, 0)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_network_keeps_its_state_and_its_parameters(device: torch.device) -> None:
    network = MobileNetV2(width=0.25).eval()
    before, parameters = copy.deepcopy(network.state_dict()), list(network.parameters())
    output = network(torch.ones(1, 3, 32, 32))
    use_training_layers(network, device)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(ours is theirs for ours, theirs in zip(network.parameters(), parameters, strict=True))
    assert not any(module.training for module in network.modules())
    torch.testing.assert_close(network(torch.ones(1, 3, 32, 32)), output)
    counts = [sum(isinstance(m, kind) for m in network.modules()) for kind in (nn.ReLU6, LeanReLU6, HostDepthwise)]
    assert counts == [0, 35, 17 if device == CPU else 0]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding_mode="circular", padding=1, groups=4, bias=False),
    ],
    ids=["bias", "multiplier", "grouped", "dilated", "same", "circular"],
)
def test_other_convolutions_are_left_alone(layer: nn.Module) -> None:
    layers = nn.Sequential(layer)
    use_training_layers(layers, CPU)
    assert layers[0] is layer
    assert F.relu6(layers(torch.ones(1, 4, 8, 8))).isfinite().all()
