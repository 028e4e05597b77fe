"""Reversible units are undone exactly, have the gradients of plain ones, and keep less."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightssl.backbones.batchnorm import batch_norm_layers
from lightssl.backbones.reversible import ReversibleSequence
from lightssl.layers import HostConvolution, use_training_layers

WIDTH = 6
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def sequence(depth: int, **options: Any) -> ReversibleSequence:
    def unit() -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 1),
        )

    return ReversibleSequence((unit() for _ in range(depth)), **options)


def maps(*, size: tuple[int, int] = (5, 7), **options: Any) -> Tensor:
    return torch.randn(4, 2 * WIDTH, *size, requires_grad=True, **options)


def loss(outputs: Tensor) -> Tensor:
    """Weighs every output differently."""
    return (outputs * torch.linspace(-1, 1, outputs.numel()).to(outputs).view(outputs.shape)).sum()


def gradients(units: ReversibleSequence, inputs: Tensor) -> list[Tensor]:
    tensors = [inputs, *(p for p in units.parameters() if p.requires_grad)]
    return list(torch.autograd.grad(loss(units(inputs)), tensors))


def plain_copy(units: ReversibleSequence) -> ReversibleSequence:
    other = copy.deepcopy(units)
    other.recompute = False
    return other


def kept_bytes(units: ReversibleSequence, inputs: Tensor) -> int:
    """Bytes that wait for the backward pass, without inputs and parameters."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = units(inputs)
    assert outputs.requires_grad
    for tensor in [inputs, *units.parameters(), *units.buffers()]:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_the_inverse_gives_the_inputs_back(training: bool) -> None:
    torch.manual_seed(0)
    units = sequence(6).train(training)
    inputs = maps()
    torch.testing.assert_close(units.inverse(units(inputs)), inputs, rtol=0, atol=1e-5)


def test_two_units_are_one_of_the_published_ones() -> None:
    """Gomez et al. 2017, equation 6: y1 = x1 + F(x2), y2 = x2 + G(y1)."""
    torch.manual_seed(0)
    units, inputs = sequence(2).eval(), maps()
    x1, x2 = inputs.chunk(2, dim=1)
    f, g = units.units
    y1 = x1 + f(x2)
    torch.testing.assert_close(units(inputs), torch.cat([y1, x2 + g(y1)], dim=1))


@settings(max_examples=20, deadline=None)
@given(depth=st.integers(1, 6), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_gradients_are_those_of_kept_activations(depth: int, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    units = sequence(depth).double()
    inputs = maps(size=(height, width), dtype=torch.float64)
    for found, expected in zip(gradients(units, inputs), gradients(plain_copy(units), inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_gradients_pass_the_check_by_differences() -> None:
    torch.manual_seed(0)
    units = sequence(2).double()
    assert torch.autograd.gradcheck(units, maps(size=(2, 3), dtype=torch.float64))


def test_outputs_are_those_of_plain_units_bit_for_bit() -> None:
    torch.manual_seed(0)
    units, inputs = sequence(3), maps()
    assert torch.equal(units(inputs), plain_copy(units)(inputs))


def test_what_is_kept_does_not_grow_with_the_depth() -> None:
    torch.manual_seed(0)
    depths = (2, 8)
    inputs = maps(size=(16, 16))
    reversible = [kept_bytes(sequence(depth), inputs) for depth in depths]
    plain = [kept_bytes(sequence(depth, recompute=False), inputs) for depth in depths]
    # The output of the last unit, whatever the depth; plain units keep several activations each.
    assert reversible == [inputs.nbytes] * 2
    assert plain[1] - plain[0] > 6 * inputs.nbytes


def test_channels_of_zeros_have_the_gradients_of_kept_activations() -> None:
    """Batch norm leaves them at the kink of a ReLU. What the units are undone to is not exactly zero."""
    torch.manual_seed(0)
    units = sequence(4, empty=3)
    inputs = maps().detach()
    inputs[:, -3:] = 0
    inputs.requires_grad_()
    other = copy.deepcopy(units)
    other.empty = 0
    assert (other.inverse(units(inputs))[:, -3:] != 0).any()
    assert (units.inverse(units(inputs))[:, -3:] == 0).all()
    for found, expected in zip(gradients(units, inputs), gradients(plain_copy(units), inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_once_a_step(momentum: float | None) -> None:
    torch.manual_seed(0)
    units = sequence(3)
    for layer in batch_norm_layers(units):
        layer.momentum = momentum
    plain = plain_copy(units)
    inputs = maps()
    for _ in range(2):
        for network in (units, plain):
            loss(network(inputs)).backward()
    assert [int(layer.num_batches_tracked) for layer in batch_norm_layers(units)] == [2] * 6
    for name, expected in plain.named_buffers():
        assert torch.equal(units.get_buffer(name), expected), name


def test_the_backward_pass_leaves_modes_and_buffers_as_it_finds_them() -> None:
    units = sequence(2)
    result = loss(units(maps()))
    units.eval()
    before = {name: (id(buffer), buffer.clone()) for name, buffer in units.named_buffers()}
    result.backward()
    assert not any(module.training for module in units.modules())
    assert {name: id(buffer) for name, buffer in units.named_buffers()} == {k: v[0] for k, v in before.items()}
    assert all(torch.equal(units.get_buffer(name), value) for name, (_, value) in before.items())


def test_the_backward_pass_has_the_modes_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    units, inputs = sequence(3).double(), maps(dtype=torch.float64)
    units.units[1].eval()  # frozen statistics in one of them
    expected = gradients(plain_copy(units), inputs)
    result = loss(units(inputs))
    units.eval()
    found = torch.autograd.grad(result, [inputs, *units.parameters()])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_a_failing_backward_pass_gives_the_buffers_back() -> None:
    units = sequence(2)
    result = loss(units(maps()))
    units.units[0][2].dilation = (9, 9)  # fails when it is computed again
    with pytest.raises(RuntimeError, match="size"):
        result.backward()
    assert all(layer.running_mean is not None for layer in batch_norm_layers(units))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
@pytest.mark.parametrize("backward_inside", [True, False])
def test_bfloat16_autocast_has_the_gradients_of_plain_units(backward_inside: bool, device: str) -> None:
    torch.manual_seed(0)
    units, inputs = sequence(6).to(device), maps(device=device)
    plain = plain_copy(units)
    rounded = inputs.bfloat16()

    def run(network: ReversibleSequence) -> list[Tensor]:
        tensors = [inputs, *network.parameters()]
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = network(rounded)
            assert outputs.dtype == torch.float32
            if backward_inside:
                return list(torch.autograd.grad(loss(outputs), tensors, retain_graph=True))
        return list(torch.autograd.grad(loss(outputs), tensors, retain_graph=True))

    for found, expected in zip(run(units), run(plain), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2 * expected.abs().max().item())


def test_autocast_remembers_no_weight_without_its_gradient() -> None:
    units = sequence(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = maps()
        units(inputs)
        loss(units.run(inputs)).backward()
    assert all(parameter.grad is not None for parameter in units.parameters())


@pytest.mark.parametrize("frozen", ["units.0.", "units.1.2", "units."])
def test_frozen_parameters_get_no_gradient_and_change_no_other(frozen: str) -> None:
    torch.manual_seed(0)
    units, inputs = sequence(3).double(), maps(dtype=torch.float64)
    for name, parameter in units.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    for found, expected in zip(gradients(units, inputs), gradients(plain_copy(units), inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    loss(units(inputs)).backward()
    assert all((p.grad is None) == name.startswith(frozen) for name, p in units.named_parameters())


def test_inputs_need_no_gradient() -> None:
    torch.manual_seed(0)
    units, inputs = sequence(2).double(), maps(dtype=torch.float64).detach()
    plain = plain_copy(units)
    for network in (units, plain):
        loss(network(inputs)).backward()
    for found, expected in zip(units.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("prepare", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_waits_for_a_backward_pass(prepare: Callable[[], Any]) -> None:
    units = sequence(2)
    with prepare():
        assert not units(maps()).requires_grad


def test_eval_mode_is_plain() -> None:
    units, inputs = sequence(2).eval(), maps()
    assert "_Recomputed" not in type(units(inputs).grad_fn).__name__
    assert "_Recomputed" in type(units.train()(inputs).grad_fn).__name__


def test_a_changed_parameter_is_noticed_before_the_backward_pass() -> None:
    units = sequence(2)
    result = loss(units(maps()))
    with torch.no_grad():
        next(units.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


def test_two_forward_passes_before_one_backward_pass() -> None:
    torch.manual_seed(0)
    units = sequence(2).double()
    plain = plain_copy(units)
    views = [maps(size=size, dtype=torch.float64) for size in ((6, 6), (3, 3))]
    for network in (units, plain):
        sum(loss(network(view)) for view in views).backward()  # type: ignore[union-attr]
    for found, expected in zip(units.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-7, atol=1e-9)


def test_layers_for_training_can_take_the_place_of_torchs() -> None:
    torch.manual_seed(0)
    units, inputs = sequence(2).double(), maps(size=(1, 1), dtype=torch.float64)
    expected = gradients(units, inputs)
    use_training_layers(units, torch.device("cpu"))
    assert any(isinstance(layer, HostConvolution) for layer in units.modules())
    for found, theirs in zip(gradients(units, inputs), expected, strict=True):
        torch.testing.assert_close(found, theirs, rtol=1e-7, atol=1e-9)


def test_compiled_units_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    units, inputs = sequence(2).double(), maps(dtype=torch.float64)
    expected = gradients(plain_copy(units), inputs)
    compiled = torch.compile(units, backend="aot_eager", fullgraph=True)
    for found, theirs in zip(gradients(compiled, inputs), expected, strict=True):
        torch.testing.assert_close(found, theirs, rtol=1e-7, atol=1e-9)
