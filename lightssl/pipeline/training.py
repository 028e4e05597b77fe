"""``pretrain``: from images to a backbone."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.checkpoint import load_checkpoint, save_network
from lightssl.config.load import compose, dump, load_recipe, validate
from lightssl.config.schema import Recipe
from lightssl.data.loader import BadImages, PretrainingLoader, pretraining_loader, steps_per_epoch
from lightssl.data.sources import Source, open_source, open_splits, require_labels
from lightssl.errors import CheckpointError, ConfigError, DataError, LightSSLError
from lightssl.evaluation import EVALUATIONS
from lightssl.files import alone
from lightssl.machine import memory_gib
from lightssl.methods.base import Method
from lightssl.optim import parameter_groups
from lightssl.pipeline.building import (
    SAMPLE,
    build_method,
    describe_environment,
    describe_network,
    estimate_batch_norm_on,
    fields_of,
    options_of,
    standalone_backbone,
    worker_count,
)
from lightssl.pipeline.extracting import features_of_splits
from lightssl.pipeline.loading import as_run
from lightssl.pipeline.previewing import keep_views
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run, new_run
from lightssl.train import OPTIMIZERS
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.host import prepare_host
from lightssl.train.loop import Plan, Trainer
from lightssl.train.schedule import Schedule
from lightssl.types import Clock
from lightssl.units import Duration
from lightssl.views.maker import ViewMaker

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def pretrain(
    recipe: str = "mobilenetv2_dino",
    *,
    data: str = SAMPLE,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: Path | str | None = None,
    narrator: Narrator | None = None,
) -> Run:
    """Pre-train a backbone on unlabelled images.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        data: A folder, tar shards, ``torchvision:NAME`` or ``sample``: see :func:`lightssl.data.sources.open_source`.
        scale: ``paper``, ``small`` or ``quick``; by default what a resolved recipe's file says, or else what
            :func:`default_scale` chooses.
        overrides: Texts like ``train.batch_size=64``.
        seed: Short for the override ``train.seed``.
        out: Folder of the run; by default one below ``runs/`` named by time and recipe.
        narrator: Told how it goes.

    Returns:
        The run; its backbone is in ``run.weights_path`` unless it was interrupted.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    if seed is not None:
        overrides = [*overrides, f"train.seed={seed}"]
    scale = scale or compose(recipe).get("scale") or default_scale(data)
    resolved = load_recipe(recipe, scale=scale, overrides=overrides)
    return train_recipe(
        resolved, data, out=Path(out) if out is not None else None, resume=None, narrator=narrator or Silent()
    )


def resume(run: Run | Path | str, *, data: str | None = None, narrator: Narrator | None = None) -> Run:
    """Go on with a pre-training that was stopped, from its last checkpoint, to the same end as if it had not been.

    Args:
        run: The run, or its folder.
        data: Where the images are now, if they have moved.
        narrator: Told how it goes.

    Raises:
        LightSSLError: The folder is not a run, its checkpoint is missing or damaged, or its images have changed.
    """
    run = as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    environment = run.environment()
    if "imported" in environment:
        raise CheckpointError(
            f"{run} holds imported weights: no training was started there that could go on.",
            f"Train the same network from the start: lightssl pretrain --recipe {recipe.name}",
        )
    data = data or environment.get("data", SAMPLE)
    return train_recipe(recipe, data, out=None, resume=run, narrator=narrator or Silent())


def default_scale(data: str) -> str:
    """Choose a scale: ``quick`` for the embedded sample or without a GPU, else ``small``."""
    return "small" if data != SAMPLE and torch.cuda.is_available() else "quick"


def train_recipe(recipe: Recipe, data: str, *, out: Path | None, resume: Run | None, narrator: Narrator) -> Run:
    """Pre-train as a recipe says, in a new folder or from the last checkpoint of a run: see :func:`pretrain`."""
    from lightssl.train.fabric import make_fabric  # takes seconds to import, and only training needs it

    prepare_host()
    source = open_source(data, split="train")
    options = recipe.train
    plan = plan_of(recipe, len(source))
    checkpoint = None
    if resume is not None:
        checkpoint = load_checkpoint(resume.checkpoint_path, recipe=dump(recipe))
        check_same_images(resume, source)
    fabric = make_fabric(options.precision)
    method, labels = checked_method(recipe, plan, source, fabric.device)
    narrator = narrator if fabric.is_global_zero else Silent()
    # All processes write to one folder: the first one names it.
    run = resume or Run(fabric.broadcast(str(new_run(out, recipe.name).folder) if fabric.is_global_zero else ""))
    narrator.say(f"{recipe.card.title}, scale {recipe.scale}, {_data_sentence(data, source)}")
    narrator.say(f"Views: {recipe.views.describe()}")

    trainer = make_trainer(
        recipe,
        method,
        plan,
        source,
        fabric=fabric,
        run=run,
        labels=labels,
        monitor=_monitor(recipe, data, source) if plan.monitor_every and fabric.is_global_zero else None,
        keep=partial(_keep, recipe, source, run) if plan.keep_every and fabric.is_global_zero else None,
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
        narrator.say(f"Going on from step {trainer.step:,} of {plan.total_steps:,} in {run}")
    elif fabric.is_global_zero:
        precision = fabric.strategy.precision.precision
        run.write_start(dump(recipe), describe_environment(data=data, images=len(source), precision=precision))
        keep_views(run, source, recipe)
        narrator.say(
            f"{plan.total_steps:,} steps of {plan.batch_size} images, {plan.steps_per_epoch:,} an epoch, in {run}"
        )
    if not fit(trainer, recipe, source, "Pre-training", narrator):
        narrator.say(f"Stopped after step {trainer.step:,}. Go on with: lightssl pretrain --resume {run}")
        return run
    if fabric.is_global_zero:
        _write_backbone(recipe, source, method.encoder, run.weights_path)
        narrator.say(f"Backbone: {run.weights_path}")
    fabric.barrier()
    return run


def _keep(recipe: Recipe, source: Source, run: Run, encoder: nn.Module, step: int) -> None:
    """Write the backbone as it would be if training ended here."""
    _write_backbone(recipe, source, encoder, run.kept_path(step))


def _write_backbone(recipe: Recipe, source: Source, encoder: nn.Module, path: Path) -> None:
    backbone = standalone_backbone(encoder, recipe)
    if recipe.train.estimate_batch_norm:
        estimate_batch_norm_on(backbone, source, recipe)
    save_network(path, backbone, describe_network(recipe, backbone))


def make_trainer(
    recipe: Recipe,
    method: Method,
    plan: Plan,
    source: Source,
    *,
    fabric: "Fabric",
    run: Run,
    kept: Mapping[str, Any] | None = None,
    architecture: ArchitectureSteps | None = None,
    **options: Any,
) -> Trainer:
    """Put together what trains a method as the recipe says.

    Args:
        recipe: The recipe.
        method: What is trained.
        plan: How long.
        source: The images.
        fabric: Devices, precision and processes.
        run: Folder for checkpoints and metrics.
        kept: What checkpoints belong to; by default the recipe.
        architecture: What is trained in turns with the weights, if anything is.
        options: Further ones of :class:`Trainer`.
    """
    return Trainer(
        method,
        OPTIMIZERS[recipe.optimizer.name](
            parameter_groups(method, leave_out=architecture.parameters if architecture is not None else ()),
            **options_of(recipe.optimizer),
        ),
        Schedule(**fields_of(recipe.schedule)),
        fabric=fabric,
        run=run,
        recipe=kept or dump(recipe),
        plan=plan,
        mean=recipe.data.mean,
        std=recipe.data.std,
        seed=recipe.train.seed,
        bad_images=BadImages(len(source)),
        max_bad_share=recipe.data.max_bad_share,
        compile=recipe.train.compile,
        architecture=architecture,
        **options,
    )


def fit(trainer: Trainer, recipe: Recipe, source: Source, title: str, narrator: Narrator) -> bool:
    """Train from where the trainer stands to the end; return whether that was reached: see :meth:`Trainer.fit`.

    Raises:
        LightSSLError: What ends a training, or another process trains in this run.
    """
    run = trainer.run
    busy = LightSSLError(f"Another process is training in {run}.", "Let it end, or stop it and try again.")
    lock = alone(run.checkpoint_path.with_name(".training"), otherwise=busy)
    batches = training_batches(recipe, source, trainer.plan, trainer.fabric, start_step=trainer.step)
    with (
        lock if trainer.fabric.is_global_zero else nullcontext(),
        narrator.work(title, trainer.plan.total_steps) as bar,
    ):

        def show(clock: Clock, row: Mapping[str, float]) -> None:
            status = f"loss {row['loss']:.3f}  {row['images_per_s']:.0f} images/s  rank {row['effective_rank']:.0f}"
            if "knn_top1" in row:
                status += f"  kNN {row['knn_top1']:.1f} %"
            bar(clock.step + 1, status)

        finished = trainer.fit(batches, show)
    if finished and len(trainer.bad_images):
        narrator.say(f"{len(trainer.bad_images):,} images could not be used: see {trainer.run.skipped_path}")
    return finished


def training_batches(
    recipe: Recipe, source: Source, plan: Plan, fabric: "Fabric", *, start_step: int
) -> PretrainingLoader:
    """Return this process's batches of images, as views, from a step on to the end of the plan."""
    crops_only = recipe.data.augment_on == "device"
    return pretraining_loader(
        source,
        ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed, crops_only=crops_only),
        batch_size=plan.batch_size,
        seed=recipe.train.seed,
        start_step=start_step,
        total_steps=plan.total_steps,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=worker_count(recipe),
        pin_memory=fabric.device.type == "cuda",
    )


def checked_method(
    recipe: Recipe,
    plan: Plan,
    source: Source,
    device: torch.device,
    build: Callable[[Recipe], Method] = build_method,
) -> tuple[Method, Tensor | None]:
    """Build what is trained, and refuse what could not be; return it with the labels for its probe, if it has one."""
    _check_memory(recipe, device, build)
    method = build(recipe)
    _check_sizes(recipe, method.encoder)
    method.check(plan.clock(0))
    if not recipe.train.probe:
        return method, None
    require_labels(source, "train.probe=true")
    method.attach_probe(len(source.classes or []))
    return method, torch.from_numpy(np.asarray(source.labels, dtype=np.int64))


def _check_memory(recipe: Recipe, device: torch.device, build: Callable[[Recipe], Method]) -> None:
    """Refuse networks that cannot fit, before the system stops the process for it."""
    with torch.device("meta"):
        method = build(recipe)
    # A trained tensor comes with its gradient and its momentum; activations come on top.
    sizes = {
        name: tensor.numel() * tensor.element_size() * (3 if tensor.requires_grad else 1)
        for name, tensor in chain(method.named_parameters(), method.named_buffers())
    }
    needed = sum(sizes.values()) / 2**30
    available = torch.cuda.mem_get_info(device)[1] / 2**30 if device.type == "cuda" else memory_gib()
    if available is not None and needed > available:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"The networks of this recipe need {needed:,.1f} GiB to be trained, and there are {available:,.1f} GiB.",
            f"The largest tensor is {largest}, {sizes[largest] / 2**30:,.1f} GiB: make it smaller, for example by "
            "method.prototypes, method.queue or method.hidden.",
        )


def _check_sizes(recipe: Recipe, backbone: Backbone) -> None:
    """Refuse views and evaluated images that are too small for the network."""
    plan = recipe.views
    sizes = {"views.global.size": plan.global_.size, "evaluation.image_size": recipe.evaluation.image_size}
    if plan.local.count:
        sizes["views.local.size"] = plan.local.size
    if plan.start is not None and plan.start.local_size is not None:
        sizes["views.start.local_size"] = plan.start.local_size
    for key, size in sizes.items():
        if size < backbone.smallest_image:
            raise ConfigError(
                f"{key} is {size} pixels; {recipe.backbone.name} needs at least {backbone.smallest_image}.",
                "Make it larger, or choose a smaller patch or another network.",
            )


def check_same_images(run: Run, source: Source) -> None:
    """Refuse to go on with a run on other images than it was started on."""
    before = run.environment().get("images")
    if before is not None and before != len(source):
        raise DataError(
            f"{run} was started on {before:,} images; {source.name} now holds {len(source):,}.",
            "Put the images back as they were, or start a new run.",
        )


def plan_of(recipe: Recipe, images: int) -> Plan:
    """Convert how long a recipe trains, on so many images, to steps.

    Raises:
        LightSSLError: It is shorter than one step, or the images do not fill a batch.
    """
    options = recipe.train
    epoch = steps_per_epoch(images, options.batch_size)
    total = options.duration.steps(batch_size=options.batch_size, steps_per_epoch=epoch)
    if total < 1:
        raise LightSSLError(f"train.duration={options.duration} is shorter than one step.", "Make it longer.")
    clock = Clock(0, total, epoch, options.batch_size)
    monitor, keep = recipe.evaluation.monitor_every, options.keep_every
    return Plan(
        total_steps=total,
        steps_per_epoch=epoch,
        batch_size=options.batch_size,
        log_every=_interval(options.log_every, clock),
        checkpoint_every=_interval(options.checkpoint_every, clock),
        monitor_every=_interval(monitor, clock) if monitor is not None else None,
        keep_every=_interval(keep, clock) if keep is not None else None,
    )


def _interval(every: Duration, clock: Clock) -> int:
    """Convert to steps. Shares of the whole are rounded up, or the last would end just before the end."""
    steps = every.amount * clock.total_steps / 100 if every.unit == "percent" else clock.steps(every)
    return max(1, ceil(steps))


def pace(rows: Sequence[Mapping[str, Any]], batch_size: int) -> dict[str, float]:
    """Return ``images_per_s`` of the median stretch of a training, and the ``minutes`` that all of them took.

    Args:
        rows: Of its log, in their order.
        batch_size: Images of a step.
    """
    starts = [0, *(row["step"] + 1 for row in rows)]
    stretches = [row["step"] + 1 - start for row, start in zip(rows, starts, strict=False)]
    seconds = sum(steps * batch_size / row["images_per_s"] for steps, row in zip(stretches, rows, strict=True))
    return {
        "images_per_s": round(median(row["images_per_s"] for row in rows), 1),
        "minutes": round(seconds / 60, 3),
    }


def _data_sentence(data: str, source: Source) -> str:
    if data == SAMPLE:
        return (
            f"on the embedded sample ({len(source):,} Fashion-MNIST images), as no --data was given. "
            "Use your own images with --data DIR"
        )
    return f"on {len(source):,} images of {source.name}"


def _monitor(recipe: Recipe, data: str, source: Source) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return the check that runs during training: kNN of a copy with estimated batch-norm statistics."""
    train, test, _ = open_splits(data, seed=recipe.train.seed)
    knn = EVALUATIONS["knn"]

    def monitor(encoder: nn.Module) -> Mapping[str, float]:
        network = standalone_backbone(encoder, recipe)
        estimate_batch_norm_on(network, source, recipe)
        return {"knn_top1": knn(features_of_splits(network, train, test, recipe), seed=recipe.train.seed)["top1"]}

    return monitor
