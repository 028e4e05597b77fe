"""Nothing lands on the wrong device, and nothing waits for an accelerator: whole steps of tensors without values.

A fake tensor has a device and a shape. Operations on tensors of two devices raise, and so does whatever has to know a
value, for which the host would have to wait: ``terms[mask]``, ``float(loss)``, ``if mask.any()``.

Where there is no GPU, torch's autograd engine does not run for fake CUDA tensors, nor does its fused SGD. So one test
goes through everything but the backward pass on device ``cuda``, with gradients put in by hand; another goes through
everything on device ``meta``, where matrix products alone do not look at the devices of their operands.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.train.loop import Trainer
from lightssl.types import Batch

every_method = pytest.mark.parametrize("name", list(METHODS))


class Mode(FakeTensorMode):
    """Fake tensors that stay in their mode when a method copies its networks."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Mode":
        return self


@pytest.fixture(autouse=True)
def _built_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.init, "trunc_normal_", nn.init.normal_)  # torch's looks at what it has drawn
    monkeypatch.setattr(Method, "to", lambda method, **_: method)  # fake parameters keep their memory format


def backward(loss: Tensor, _method: Method) -> None:
    loss.backward()


def put_in_gradients(loss: Tensor, method: Method) -> None:
    assert loss.requires_grad
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


@pytest.fixture
def train(make_trainer: Callable[..., Trainer], draw_batch: Callable[[int], Batch]) -> Callable[..., Trainer]:
    """Take some steps, long enough for the queues to take part, from batches on the host."""

    def steps(name: str, optimizer: str, device: torch.device, backward: Callable[[Tensor, Method], None]) -> Trainer:
        trainers: list[Trainer] = []
        fabric = SimpleNamespace(
            device=device,
            global_rank=0,
            setup_module=lambda module: module,
            setup_optimizers=lambda optimizer: optimizer,
            backward=lambda loss: backward(loss, trainers[0].method),
        )
        with device:
            trainers.append(make_trainer(name, fabric, optimizer=optimizer))
        for step in range(4):
            output = trainers[0].train_step(draw_batch(step), trainers[0].plan.clock(step))
            tensors = [output.loss, output.features, output.probe_loss]
            assert {tensor.device for tensor in tensors if tensor is not None} == {device}
        return trainers[0]

    return steps


def assert_all_on(trainer: Trainer, device: torch.device) -> None:
    state = [value for values in trainer.optimizer.state.values() for value in values.values()]
    tensors = [*trainer.method.parameters(), *trainer.method.buffers(), *state]
    assert {tensor.device for tensor in tensors} == {device}


@every_method
@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_a_step_stays_on_the_accelerator_and_does_not_wait_for_it(
    name: str, optimizer: str, train: Callable[..., Trainer]
) -> None:
    device = torch.device("cuda", 0)
    with Mode():
        assert_all_on(train(name, optimizer, device, put_in_gradients), device)


@every_method
def test_so_does_the_backward_pass(name: str, train: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # does not know the device
    device = torch.device("meta")
    trainer = train(name, "lars", device, backward)
    assert_all_on(trainer, device)
    for key, parameter in trainer.method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize(("device", "mode"), [("cuda:0", Mode), ("meta", nullcontext)])
def test_the_checks_notice_what_they_look_for(device: str, mode: Callable[[], AbstractContextManager[None]]) -> None:
    with mode():
        there = torch.zeros(3, device=device)
        with pytest.raises(RuntimeError, match="device"):
            there + torch.zeros(3)
        with pytest.raises(Exception, match="nonzero"):
            there[there > 0]
        with pytest.raises(Exception, match=r"item|_local_scalar_dense"):
            float(there.sum())
