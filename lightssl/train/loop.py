"""The training loop: batches in, a trained method and its checkpoints out."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightssl.checkpoint import load_strictly, save_checkpoint
from lightssl.collapse import effective_rank, feature_std
from lightssl.data.loader import BadImages, clear_worker_errors
from lightssl.distributed import any_process, average_through_memory, mean_over_processes
from lightssl.errors import TrainingError
from lightssl.images import normalise
from lightssl.interrupts import interruptible
from lightssl.layers import use_training_layers
from lightssl.methods.base import Method
from lightssl.runs import Run
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.batchnorm import synchronise_batch_norm
from lightssl.train.compiling import compile_backbones
from lightssl.train.log import MetricsLog
from lightssl.train.schedule import Schedule
from lightssl.types import Batch, Clock, StepOutput
from lightssl.views.batch import apply_batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # takes seconds to import, and only training needs it


class Observer(Protocol):
    """Watches a training, to show it to somebody."""

    def __call__(self, clock: Clock, row: Mapping[str, float]) -> None:
        """See the step just done and what was logged of it; called in the first process only."""


class Passes(Protocol):
    """Splits a step into several passes over its batch, whose gradients add up to one update."""

    def __call__(self, method: Method, clock: Clock) -> Sequence[Callable[[], None]]:
        """Return what prepares the method for each pass; the last must use all parameters, and is what is logged."""


def _one_pass(method: Method, clock: Clock) -> Sequence[Callable[[], None]]:
    return [lambda: None]


@dataclass
class Plan:
    """How long to train, and how often to write something down. All in steps."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int  # over all processes
    log_every: int
    checkpoint_every: int
    monitor_every: int | None = None
    keep_every: int | None = None

    def clock(self, step: int) -> Clock:
        """The clock at a step."""
        return Clock(step, self.total_steps, self.steps_per_epoch, self.batch_size)


@dataclass
class _Interval:
    """What has gathered since the last logged step."""

    started: float = field(default_factory=time.perf_counter)
    losses: list[Tensor] = field(default_factory=list)
    first_step: int = 0


class Trainer:
    """Trains one method.

    Args:
        method: What is trained; the network that comes out is ``method.encoder``.
        optimizer: Over the groups of :func:`lightssl.optim.parameter_groups`.
        schedule: Sets learning rate and weight decay before every step.
        fabric: Devices, precision and processes.
        run: Folder for checkpoints and metrics.
        recipe: The resolved recipe, kept with every checkpoint.
        plan: How long.
        mean: Of each colour channel, to normalise images.
        std: Of each colour channel, to normalise images.
        seed: Seeds what a method draws at random, together with the step and the process.
        compile: Let ``torch.compile`` make the backbones' kernels.
        bad_images: Tally of unusable images.
        max_bad_share: Largest share of unusable images that is put up with.
        labels: int64 [N], of all images, if the method has a probe to train on them.
        monitor: Called with the encoder every ``plan.monitor_every`` steps and after the last one; what it returns is
            logged.
        keep: Called with the encoder and the number of steps done every ``plan.keep_every`` steps.
        passes: Of each step; one by default.
        architecture: What is trained in turns with the weights, if anything is.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        fabric: "Fabric",
        run: Run,
        recipe: Mapping[str, Any],
        plan: Plan,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
        bad_images: BadImages,
        max_bad_share: float,
        compile: bool = False,
        labels: Tensor | None = None,
        monitor: Callable[[nn.Module], Mapping[str, float]] | None = None,
        keep: Callable[[nn.Module, int], None] | None = None,
        passes: Passes = _one_pass,
        architecture: ArchitectureSteps | None = None,
    ) -> None:
        synchronise_batch_norm(method, fabric.device)
        if compile:
            compile_backbones(method, fabric.device)
        else:
            use_training_layers(method, fabric.device)
        self.method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped = fabric.setup_module(method)
        average_through_memory(self.wrapped)
        self.optimizer = optimizer
        self._stepper: Any = fabric.setup_optimizers(optimizer)  # the same, with loss scaling where precision needs it
        self.schedule = schedule
        self.fabric = fabric
        self.run = run
        self.recipe = recipe
        self.plan = plan
        self.mean, self.std = mean, std
        self.seed = seed
        self.bad_images, self.max_bad_share = bad_images, max_bad_share
        self.labels = labels.to(fabric.device) if labels is not None else None
        self.monitor = monitor
        self.keep = keep
        self.passes = passes
        self.architecture = architecture
        self._architect: Any = fabric.setup_optimizers(architecture.optimizer) if architecture is not None else None
        self.step = 0  # steps done

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of :func:`lightssl.checkpoint.load_checkpoint`."""
        load_strictly(self.method, checkpoint["state"]["method"], "the checkpoint")
        self.optimizer.load_state_dict(checkpoint["state"]["optimizer"])
        self.fabric.strategy.precision.load_state_dict(checkpoint["state"]["precision"])
        if self.architecture is not None:
            self.architecture.load_state_dict(checkpoint["state"]["architecture"])
        self.step = checkpoint["step"]

    def save(self) -> None:
        """Write a checkpoint; all processes come together here."""
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.run.checkpoint_path,
                state={
                    "method": self.method.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
                    **({} if self.architecture is None else {"architecture": self.architecture.state_dict()}),
                },
                recipe=self.recipe,
                step=self.step,
            )
        self.fabric.barrier()

    def fit(self, batches: Iterable[Batch], observer: Observer) -> bool:
        """Train from ``self.step`` to the end.

        Args:
            batches: This process's batches, the first one that of step ``self.step``.
            observer: Shown every logged step.

        Returns:
            Whether the end was reached; False after an interrupt, when the state has been saved.

        Raises:
            TrainingError: The loss is not finite. The last checkpoint is kept.
            DataError: Too many images cannot be used.
        """
        self.method.train()
        interval = _Interval(first_step=self.step)
        others = iter(self._architecture_batches())
        with clear_worker_errors(), self._log() as log, interruptible() as interrupted:
            for batch in batches:
                clock = self.plan.clock(self.step)
                rate, decay = self.schedule.apply(self.optimizer, clock)
                if self.architecture is not None and self.architecture.due(clock.step):
                    self.architecture_step(next(others), clock)
                output = self.train_step(batch, clock)
                interval.losses.append(output.loss.detach())
                self.bad_images.add(batch.bad, seen=len(batch.indices))
                self.step += 1

                stop = any_process(interrupted())  # all at the same step: the next one needs all of them
                save = self._due(self.plan.checkpoint_every) or stop
                monitor = self.plan.monitor_every is not None and self._due(self.plan.monitor_every)
                if self._due(self.plan.log_every) or save or monitor:
                    row = self._summarise(interval, output, clock) | {"learning_rate": rate, "weight_decay": decay}
                    if monitor and self.monitor is not None:
                        row |= self.monitor(self.method.encoder)
                    if log is not None:
                        log.write(clock.step, row)
                        observer(clock, row)
                    self.bad_images.write(self.run.skipped_path)
                    self.bad_images.check(self.max_bad_share)
                    interval = _Interval(first_step=self.step)
                if self.keep is not None and self.plan.keep_every is not None and self._due(self.plan.keep_every):
                    self.keep(self.method.encoder, self.step)
                if save:
                    self.save()
                if stop:
                    break
        return self.step >= self.plan.total_steps

    def train_step(self, batch: Batch, clock: Clock) -> StepOutput:
        """Train on one batch, with the learning rate and weight decay that the optimiser has.

        On an accelerator nothing here waits for it, so that the host can prepare the next step.
        """
        views, labels = self._begin(self._stepper, batch, clock)
        *others, last = self.passes(self.method, clock)
        for prepare in others:
            prepare()
            with self.fabric.no_backward_sync(self.wrapped):  # type: ignore[arg-type]
                self._pass(views, clock, labels)
        last()
        output = self._pass(views, clock, labels)  # processes exchange the sum of all passes with this one
        self.method.after_backward(clock)
        self._stepper.step()
        self.method.after_step(clock)
        return output

    def architecture_step(self, batch: Batch, clock: Clock) -> StepOutput:
        """Train the architecture on one batch; weights, their averages and queues stay as they are.

        Statistics count the batch: those of batch norm, and DINO's centre.
        """
        assert self.architecture is not None
        views, labels = self._begin(self._architect, batch, clock)
        self.architecture.prepare(self.method, clock)
        with self.fabric.no_backward_sync(self.wrapped):  # type: ignore[arg-type]
            output: StepOutput = self.wrapped(views, clock, labels)
            # For these parameters alone: the weights' gradients would be thrown away.
            self.fabric.backward(self.architecture.objective(output.loss), inputs=list(self.architecture.parameters))
        for parameter in self.architecture.parameters:  # which may be none of the method's
            if parameter.grad is not None:
                parameter.grad.copy_(mean_over_processes(parameter.grad))
        self._architect.step()
        return output

    def _architecture_batches(self) -> Iterable[Batch]:
        return () if self.architecture is None else self.architecture.batches(self.architecture.done_before(self.step))

    def _begin(self, optimizer: Any, batch: Batch, clock: Clock) -> tuple[list[Tensor], Tensor | None]:
        """Return the views of a batch, normalised and on the device, and their labels, with gradients set to none."""
        # What a method draws depends on the step alone, so a resumed run draws the same.
        torch.manual_seed(hash((self.seed, clock.step, self.fabric.global_rank)))
        optimizer.zero_grad(set_to_none=True)  # before the forward: the activations take their place
        groups = [group.to(self.fabric.device, non_blocking=True) for group in batch.views]
        if batch.left_to_do:
            groups = [apply_batch(group, rows) for group, rows in zip(groups, batch.left_to_do, strict=True)]
        views = [normalise(group, self.mean, self.std) for group in groups]
        indices = batch.indices.to(self.fabric.device, non_blocking=True)
        return views, None if self.labels is None else self.labels[indices]

    def _pass(self, views: list[Tensor], clock: Clock, labels: Tensor | None) -> StepOutput:
        output: StepOutput = self.wrapped(views, clock, labels)
        self.fabric.backward(output.loss if output.probe_loss is None else output.loss + output.probe_loss)
        return output

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.plan.total_steps

    def _log(self) -> AbstractContextManager[MetricsLog | None]:
        return MetricsLog(self.run.metrics_path, start_step=self.step) if self.fabric.is_global_zero else nullcontext()

    def _summarise(self, interval: _Interval, output: StepOutput, clock: Clock) -> dict[str, float]:
        """Bring the numbers of the last steps to the host, and stop if a loss was not finite."""
        losses = mean_over_processes(torch.stack(interval.losses)).tolist()
        for offset, loss in enumerate(losses):
            if loss != loss or loss in (float("inf"), float("-inf")):
                raise TrainingError(
                    f"The loss is {loss} at step {interval.first_step + offset}.",
                    f"The checkpoint before it is kept: {self.run.checkpoint_path}. Lower the learning rate "
                    "(--set schedule.base_rate=...) or lengthen the warm-up.",
                )
        seconds = time.perf_counter() - interval.started
        return {
            "epoch": (clock.step + 1) / clock.steps_per_epoch,
            "loss": sum(losses) / len(losses),
            "images_per_s": len(losses) * clock.batch_size / seconds,
            "feature_std": feature_std(output.features),
            "effective_rank": effective_rank(output.features),
            **{name: float(value) for name, value in output.logs.items()},
            **({} if self.architecture is None else self.architecture.figures()),
        }
