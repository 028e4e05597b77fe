"""Training on a GPU, where there is one: the losses of the CPU, in every precision, without waiting within a step."""

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric

from lightssl.methods import METHODS
from lightssl.train.fabric import make_fabric
from lightssl.train.loop import Trainer
from lightssl.types import Batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
every_method = pytest.mark.parametrize("name", list(METHODS))


@every_method
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_a_gpu_follows_the_losses_of_the_cpu(
    name: str,
    optimizer: str,
    make_trainer: Callable[..., Trainer],
    losses_of: Callable[..., list[float]],
    host: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = losses_of(make_trainer(name, host, optimizer=optimizer))
    found = losses_of(make_trainer(name, make_fabric("32-true"), optimizer=optimizer))
    assert found[0] == pytest.approx(expected[0], rel=1e-3, abs=1e-4)
    assert found == pytest.approx(expected, rel=5e-2, abs=5e-2)  # rounding grows from step to step


@every_method
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_half_precision_begins_with_the_same_loss(
    name: str, precision: str, make_trainer: Callable[..., Trainer], losses_of: Callable[..., list[float]], host: Fabric
) -> None:
    if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    exact = losses_of(make_trainer(name, host), steps=1)[0]
    losses = losses_of(make_trainer(name, make_fabric(precision)))
    assert losses[0] == pytest.approx(exact, rel=0.05, abs=0.05)
    assert torch.tensor(losses).isfinite().all()


@every_method
def test_a_step_does_not_wait_for_the_gpu(
    name: str, make_trainer: Callable[..., Trainer], draw_batch: Callable[[int], Batch]
) -> None:
    trainer = make_trainer(name, make_fabric("32-true"))
    batches = [draw_batch(step).pin_memory() for step in range(4)]
    trainer.train_step(batches[0], trainer.plan.clock(0))  # chooses kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 4):
            trainer.train_step(batches[step], trainer.plan.clock(step))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@every_method
def test_compiled_training_follows_the_losses_of_eager_training(
    name: str, make_trainer: Callable[..., Trainer], losses_of: Callable[..., list[float]]
) -> None:
    eager, compiled = (losses_of(make_trainer(name, make_fabric("32-true"), compile=on)) for on in (False, True))
    assert compiled[0] == pytest.approx(eager[0], rel=1e-2, abs=1e-3)
    assert torch.tensor(compiled).isfinite().all()
