"""The steps of a training with labels, which goes on where it was stopped."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightssl.checkpoint import load_checkpoint, load_strictly, save_checkpoint
from lightssl.data.loader import BadImages, clear_worker_errors
from lightssl.errors import CheckpointError, LightSSLError
from lightssl.interrupts import interruptible
from lightssl.layers import use_training_layers
from lightssl.precision import in_bfloat16
from lightssl.progress import Narrator
from lightssl.types import BadImage

_KEEP_EVERY_S = 300.0
_LOOK_EVERY = 10  # steps; to look at a loss is to wait for it


class Examples(Protocol):
    """What a step is made on."""

    @property
    def bad(self) -> list[BadImage]:
        """Images that could not be used, and were replaced by others."""


@dataclass(frozen=True)
class Training:
    """A network that is trained with labels, and how."""

    network: nn.Module  # whose layers are replaced by those of :mod:`lightssl.layers`
    costly: list[nn.Module]  # parts of it that may compute in bfloat16
    optimizer: Optimizer  # of its parameters
    batches: Callable[[int], Iterable[Examples]]  # from a step to what it and those after it are made on, if any
    loss: Callable[[Any], Tensor]  # of a batch
    rate: Callable[[int], float]  # of a step, as a share of the learning rates that the optimiser begins with
    steps: int
    batch_size: int
    images: int  # that there are
    seed: int  # of whatever the network draws at random in a step
    device: torch.device | str


@dataclass(frozen=True)
class UnderWay:
    """Where the state of trainings is kept until what came of them is written down."""

    folder: Path  # one file a title
    what: Mapping[str, Any]  # decides, with the network and the optimiser, how the training goes: plain values


def train(training: Training, title: str, narrator: Narrator, kept: UnderWay | None = None) -> None:
    """Train a network in place, from where the same training was stopped if there is such a state.

    Every draw depends on the seed and the step alone, so one that goes on ends as one that was never stopped.

    Args:
        training: What and how. The network is in the modes that it is to be trained in; it ends in them, on the CPU.
        title: What is said to be under way.
        narrator: Told how it goes.
        kept: Where its state is kept: every few minutes, when it is told to stop, and in the end.

    Raises:
        DataError: Too many images cannot be used.
        LightSSLError: The loss is not finite.
        KeyboardInterrupt: It was told to stop.
    """
    network, optimizer, total = training.network, training.optimizer, training.steps
    path: Path | None = None
    what: dict[str, Any] = {}
    if kept is not None:
        path = kept.folder / f"{re.sub('[^a-z0-9.]+', '-', title.lower()).strip('-')}.pt"
        what = {**kept.what, **_describe(training)}
    use_training_layers(network, torch.device(training.device))
    network.to(training.device).to(memory_format=torch.channels_last)
    rates = [group["lr"] for group in optimizer.param_groups]
    bad = BadImages(training.images)
    first = _restore(network, optimizer, bad, path, what) if path is not None else 0
    if first:
        narrator.say(f"{title}: going on after step {first:,} of {total:,}.")
    last_kept = time.monotonic()
    with (
        narrator.work(title, total) as bar,
        clear_worker_errors(),
        in_bfloat16(*training.costly, device=training.device),
        torch.random.fork_rng(devices=[]),
        interruptible() as interrupted,
    ):
        for step, batch in enumerate(training.batches(first), first):
            torch.manual_seed(hash((training.seed, step)))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * training.rate(step)
            bad.add(batch.bad, seen=training.batch_size)
            loss = training.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done, stop = step + 1, interrupted()
            if step % _LOOK_EVERY == 0 or done == total or stop:
                value = loss.item()
                if not np.isfinite(value):
                    raise LightSSLError(
                        f"The loss of step {step:,} of the training is {value}.",
                        "Train it more slowly: --set TASK.learning_rate=...",
                    )
                bar(done, f"loss {value:.3f}")
                if path is not None and (done == total or stop or time.monotonic() - last_kept >= _KEEP_EVERY_S):
                    state = {
                        "network": network.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "bad": [tuple(image) for image in bad],
                    }
                    save_checkpoint(path, state=state, recipe=what, step=done)
                    last_kept = time.monotonic()
                    if stop:
                        narrator.say(f"{title}: stopped after step {done:,} of {total:,}. The same command goes on.")
            if stop:
                raise KeyboardInterrupt
    if len(bad):
        narrator.say(f"{len(bad):,} training images could not be used; others took their place.")
    network.to("cpu")


def fingerprint(*parts: Tensor | np.ndarray | bytes) -> str:
    """Return what arrays with the same numbers, and the same bytes, have in common, and others do not."""
    found = sha256()
    for part in parts:
        if isinstance(part, bytes):
            found.update(f"bytes{len(part)}".encode() + part)
            continue
        array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _describe(training: Training) -> dict[str, Any]:
    """Return all that decides how a training goes, but for its images: plain values."""
    return {
        "start": fingerprint(*training.network.state_dict().values()),
        "optimizer": [
            {key: value for key, value in group.items() if key != "params"} for group in training.optimizer.param_groups
        ],
        "steps": training.steps,
        "batch_size": training.batch_size,
        "seed": training.seed,
    }


def _restore(network: nn.Module, optimizer: Optimizer, bad: BadImages, path: Path, what: Mapping[str, Any]) -> int:
    """Go back to a state that was kept of the same training, if there is one; return how many steps are done."""
    with suppress(CheckpointError):  # none, or that of another training
        found = load_checkpoint(path, recipe=what)
        load_strictly(network, found["state"]["network"], path)
        optimizer.load_state_dict(found["state"]["optimizer"])
        bad.add((BadImage(*image) for image in found["state"]["bad"]), seen=found["step"] * what["batch_size"])
        return int(found["step"])
    return 0
