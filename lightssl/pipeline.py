"""The whole flow, from images to a timed ONNX file.

    images -> views -> batches -> method (backbone + heads) -> loss -> checkpoint -> evaluate -> export -> latency

Each public function is one command. This is the one place where a recipe is turned into arguments: everything below
takes plain, typed values.
"""

import hashlib
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import estimate_batch_norm, has_batch_norm
from lightssl.backbones.cost import count_cost
from lightssl.backbones.matching import recognise, weights_for
from lightssl.backbones.published import KINDS, Published, read_published
from lightssl.checkpoint import load_checkpoint, load_strictly, load_weights, save_backbone
from lightssl.config.load import dump, load_recipe, validate
from lightssl.config.schema import Card, Recipe, Section
from lightssl.data.decode import UndecodableImage, decode
from lightssl.data.loader import BadImages, evaluation_loader, pretraining_loader, steps_per_epoch
from lightssl.data.sources import Source, Subset, open_source, open_splits, require_labels, some_of_each_class
from lightssl.deploy.conversion import converter, write_for
from lightssl.deploy.emulator import MACHINE as EMULATED_MACHINE
from lightssl.deploy.emulator import EmulatedNetwork, emulated_networks
from lightssl.deploy.manifest import (
    ExportedFile,
    Manifest,
    ModelInput,
    ModelOutput,
    OrtFile,
    RuntimeFiles,
    manifest_path,
    read_manifest,
    write_manifest,
)
from lightssl.deploy.mobile import check_accelerators, to_ort
from lightssl.deploy.onnx import (
    INPUT,
    OUTPUT,
    TOLERANCE,
    ModelDescription,
    check_valid,
    describe_model,
    export_onnx,
    read_metadata,
)
from lightssl.deploy.parity import OnnxNetwork, check_fits, compare_features, is_of_this_machine
from lightssl.deploy.profile import Profile, load_profile, write_profile
from lightssl.deploy.profile import bench as bench_profile
from lightssl.deploy.quantise import ARCHITECTURES, MIN_AGREEMENT, Quantisation, Quantiser, to_fp16
from lightssl.deploy.results import Compared, compare_results, read_results
from lightssl.errors import CheckpointError, ConfigError, DataError, ExportError, LightSSLError
from lightssl.evaluation import EVALUATIONS
from lightssl.evaluation.features import Features, extract_features
from lightssl.evaluation.neighbours import neighbour_gallery
from lightssl.files import write_bytes, write_json, write_text
from lightssl.images import normalise
from lightssl.machine import describe_machine, memory_gib, usable_cores, versions
from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run, find_run, new_run
from lightssl.train import OPTIMIZERS
from lightssl.train.host import prepare_host
from lightssl.train.loop import Plan, Trainer
from lightssl.train.optim import parameter_groups
from lightssl.train.schedule import Schedule
from lightssl.types import Clock
from lightssl.units import Duration
from lightssl.views.maker import ViewMaker
from lightssl.views.preview import contact_sheet

SAMPLE = "sample"

_BATCH_NORM_IMAGES = 4096  # shown to estimate batch-norm statistics: more moves no figure
_BATCH_NORM_BATCH = 128
_EVALUATION_BATCH = 256
_PARITY_IMAGES = 32
_CALIBRATION_IMAGES = 128  # that the ranges of int8 are measured on
_FEWEST_CALIBRATION_IMAGES = 8
_COMPARED_IMAGES = 256  # of features with torch's, where nothing else sets their number
_HELD_OUT_IMAGES = 64  # that int8 is compared with fp32 on
_EMULATED_FLOPS = 10_000_000_000  # for each file: minutes of fp32, and of int8 one
_EMULATED_BATCH = 8
_FEWEST_KNN_IMAGES = 400  # for training and testing together
_SHOWN_IMAGES = 6


# ---------------------------------------------------------------------------------------------------------- pretrain


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
        scale: ``paper``, ``small`` or ``quick``; by default what :func:`default_scale` chooses.
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
    resolved = load_recipe(recipe, scale=scale or default_scale(data), overrides=overrides)
    return _train(
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
    run = _as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    environment = run.environment()
    if "imported" in environment:
        raise CheckpointError(
            f"{run} holds imported weights: no training was started there that could go on.",
            f"Train the same network from the start: lightssl pretrain --recipe {recipe.name}",
        )
    data = data or environment.get("data", SAMPLE)
    return _train(recipe, data, out=None, resume=run, narrator=narrator or Silent())


def default_scale(data: str) -> str:
    """Choose a scale: ``quick`` for the embedded sample or without a GPU, else ``small``."""
    return "small" if data != SAMPLE and torch.cuda.is_available() else "quick"


def _train(recipe: Recipe, data: str, *, out: Path | None, resume: Run | None, narrator: Narrator) -> Run:
    from lightssl.train.fabric import make_fabric  # takes seconds to import, and only training needs it

    prepare_host()
    source = open_source(data, split="train")
    options = recipe.train
    plan = _plan(recipe, len(source))
    checkpoint = None
    if resume is not None:
        checkpoint = load_checkpoint(resume.checkpoint_path, recipe=dump(recipe))
        _check_same_images(resume, source)
    fabric = make_fabric(options.precision)
    method, labels = _checked_method(recipe, plan, source, fabric.device)
    narrator = narrator if fabric.is_global_zero else Silent()
    # All processes write to one folder: the first one names it.
    run = resume or Run(fabric.broadcast(str(new_run(out, recipe.name).folder) if fabric.is_global_zero else ""))
    narrator.say(f"{recipe.card.title}, scale {recipe.scale}, {_data_sentence(data, source)}")
    narrator.say(f"Views: {recipe.views.describe()}")

    bad_images = BadImages(len(source))
    trainer = Trainer(
        method,
        OPTIMIZERS[recipe.optimizer.name](parameter_groups(method), **_options(recipe.optimizer)),
        Schedule(**_fields(recipe.schedule)),
        fabric=fabric,
        run=run,
        recipe=dump(recipe),
        plan=plan,
        mean=recipe.data.mean,
        std=recipe.data.std,
        seed=options.seed,
        bad_images=bad_images,
        max_bad_share=recipe.data.max_bad_share,
        compile=options.compile,
        labels=labels,
        monitor=_monitor(recipe, data, source) if plan.monitor_every and fabric.is_global_zero else None,
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
        narrator.say(f"Going on from step {trainer.step:,} of {plan.total_steps:,} in {run}")
    elif fabric.is_global_zero:
        precision = fabric.strategy.precision.precision
        run.write_start(dump(recipe), _environment(data=data, images=len(source), precision=precision))
        _write_contact_sheet(run, source, ViewMaker(recipe.views, recipe.augment, seed=options.seed))
        narrator.say(
            f"{plan.total_steps:,} steps of {plan.batch_size} images, {plan.steps_per_epoch:,} an epoch, in {run}"
        )
    crops_only = recipe.data.augment_on == "device"
    batches = pretraining_loader(
        source,
        ViewMaker(recipe.views, recipe.augment, seed=options.seed, crops_only=crops_only),
        batch_size=options.batch_size,
        seed=options.seed,
        start_step=trainer.step,
        total_steps=plan.total_steps,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=_workers(recipe),
        pin_memory=fabric.device.type == "cuda",
    )
    with narrator.work("Pre-training", plan.total_steps) as bar:

        def show(clock: Clock, row: Mapping[str, float]) -> None:
            status = f"loss {row['loss']:.3f}  {row['images_per_s']:.0f} images/s  rank {row['effective_rank']:.0f}"
            if "knn_top1" in row:
                status += f"  kNN {row['knn_top1']:.1f} %"
            bar(clock.step + 1, status)

        finished = trainer.fit(batches, show)
    if not finished:
        narrator.say(f"Stopped after step {trainer.step:,}. Go on with: lightssl pretrain --resume {run}")
        return run
    if len(bad_images):
        narrator.say(f"{len(bad_images):,} images could not be used: see {run.skipped_path}")
    if fabric.is_global_zero:
        backbone = _standalone(method.encoder, recipe)
        if recipe.train.estimate_batch_norm:
            _estimate_batch_norm(backbone, source, recipe)
        save_backbone(run.weights_path, backbone, _describe_backbone(recipe, backbone))
        narrator.say(f"Backbone: {run.weights_path}")
    fabric.barrier()
    return run


def _checked_method(recipe: Recipe, plan: Plan, source: Source, device: torch.device) -> tuple[Method, Tensor | None]:
    """Build what is trained, and refuse what could not be; return it with the labels for its probe, if it has one."""
    _check_memory(recipe, device)
    method = build_method(recipe)
    _check_sizes(recipe, method.encoder)
    method.check(plan.clock(0))
    if not recipe.train.probe:
        return method, None
    require_labels(source, "train.probe=true")
    method.attach_probe(len(source.classes or []))
    return method, torch.from_numpy(np.asarray(source.labels, dtype=np.int64))


def _check_memory(recipe: Recipe, device: torch.device) -> None:
    """Refuse networks that cannot fit, before the system stops the process for it."""
    with torch.device("meta"):
        method = build_method(recipe)
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
    for key, size in sizes.items():
        if size < backbone.smallest_image:
            raise ConfigError(
                f"{key} is {size} pixels; {recipe.backbone.name} needs at least {backbone.smallest_image}.",
                "Make it larger, or choose a smaller patch or another network.",
            )


def _standalone(encoder: nn.Module, recipe: Recipe) -> Backbone:
    """Copy a trained encoder to the CPU, without ties to other processes: its batch norm may be synchronised."""
    backbone = build_backbone(recipe)
    load_strictly(backbone, encoder.state_dict(), "the trained encoder")
    return backbone


def _plan(recipe: Recipe, images: int) -> Plan:
    options = recipe.train
    epoch = steps_per_epoch(images, options.batch_size)
    total = options.duration.steps(batch_size=options.batch_size, steps_per_epoch=epoch)
    if total < 1:
        raise LightSSLError(f"train.duration={options.duration} is shorter than one step.", "Make it longer.")
    clock = Clock(0, total, epoch, options.batch_size)
    monitor = recipe.evaluation.monitor_every
    return Plan(
        total_steps=total,
        steps_per_epoch=epoch,
        batch_size=options.batch_size,
        log_every=_interval(options.log_every, clock),
        checkpoint_every=_interval(options.checkpoint_every, clock),
        monitor_every=_interval(monitor, clock) if monitor is not None else None,
    )


def _interval(every: Duration, clock: Clock) -> int:
    """Convert to steps. Shares of the whole are rounded up, or the last would end just before the end."""
    steps = every.amount * clock.total_steps / 100 if every.unit == "percent" else clock.steps(every)
    return max(1, ceil(steps))


def build_backbone(recipe: Recipe) -> Backbone:
    """Build the recipe's backbone as it is at the start of training: its weights depend on the seed alone."""
    torch.manual_seed(recipe.train.seed)
    backbone: Backbone = BACKBONES[recipe.backbone.name](**_options(recipe.backbone))
    return backbone


def build_method(recipe: Recipe) -> Method:
    """Build the recipe's method around its backbone."""
    backbone = build_backbone(recipe)
    method: Method = METHODS[recipe.method.name](backbone, recipe.views.weights, **_options(recipe.method))
    return method


def _options(section: Section) -> dict[str, Any]:
    """Return the keyword arguments that a component's section of the recipe holds."""
    return {key: value for key, value in _fields(section).items() if key != "name"}


def _fields(section: Section) -> dict[str, Any]:
    return {key: getattr(section, key) for key in type(section).model_fields}


def _workers(recipe: Recipe) -> int:
    # On a small CPU-only machine the views and the network want the same cores: one process draws ahead.
    if recipe.data.workers != "auto":
        return recipe.data.workers
    return max(1, min(8, usable_cores() - 1))


def _data_sentence(data: str, source: Source) -> str:
    if data == SAMPLE:
        return (
            f"on the embedded sample ({len(source):,} Fashion-MNIST images), as no --data was given. "
            "Use your own images with --data DIR"
        )
    return f"on {len(source):,} images of {source.name}"


def _environment(**what: Any) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["lightssl", *sys.argv[1:]] if Path(sys.argv[0]).stem == "lightssl" else None,
        **what,
        "machine": describe_machine(),
        "versions": versions(),
    }


def _check_same_images(run: Run, source: Source) -> None:
    before = run.environment().get("images")
    if before is not None and before != len(source):
        raise DataError(
            f"{run} was started on {before:,} images; {source.name} now holds {len(source):,}.",
            "Put the images back as they were, or start a new run.",
        )


def _write_contact_sheet(run: Run, source: Source, make_views: ViewMaker) -> None:
    """Draw the views of a few images, spread over the source."""
    indices, images = [], []
    for index in np.linspace(0, len(source) - 1, min(4 * _SHOWN_IMAGES, len(source)), dtype=int).tolist():
        try:
            images.append(decode(source.read(index)))
        except UndecodableImage:
            continue
        indices.append(index)
        if len(images) == _SHOWN_IMAGES:
            break
    if images:
        contact_sheet(images, make_views, indices=indices).save(run.views_path)


def _estimate_batch_norm(network: nn.Module, source: Source, recipe: Recipe) -> None:
    """Estimate batch-norm statistics on training images as an evaluation shows them."""
    order = np.random.default_rng(recipe.train.seed).permutation(len(source))[:_BATCH_NORM_IMAGES]
    loader = evaluation_loader(
        Subset(source, order, source.name),
        size=recipe.evaluation.image_size,
        crop_share=recipe.evaluation.crop_share,
        batch_size=min(_BATCH_NORM_BATCH, len(order)),
        workers=_workers(recipe),
    )

    def batches() -> Iterator[Tensor]:
        for images, _ in loader:
            if len(images) > 1:
                yield normalise(images, recipe.data.mean, recipe.data.std)

    estimate_batch_norm(network, batches())


def _describe_backbone(recipe: Recipe, backbone: Backbone) -> dict[str, Any]:
    size = recipe.evaluation.image_size
    cost = count_cost(backbone, size)
    return {
        "backbone": {"name": recipe.backbone.name, **_options(recipe.backbone)},
        "feature_width": backbone.feature_width,
        "input_size": size,
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "flops": cost.flops,
        "parameters": cost.parameters,
        "recipe": recipe.name,
        "scale": recipe.scale,
        "lightssl": versions()["lightssl"],
    }


def load_backbone(run: Run | Path | str | None = None) -> Backbone:
    """Load a pre-trained backbone, in eval mode.

    Args:
        run: A run, its folder, or a ``.safetensors`` file that ``lightssl pretrain`` wrote; by default the latest run.

    Returns:
        A network that maps normalised images [B, 3, H, W] to features [B, D].
    """
    if run is not None and not isinstance(run, Run) and Path(run).suffix == ".safetensors":
        path = Path(run)
    else:
        path = _as_run(run).weights_path
        if not path.exists():
            raise CheckpointError(
                f"{path.parent} has no pre-trained backbone yet: its training has not come to an end.",
                f"Go on with it: lightssl pretrain --resume {path.parent}",
            )
    tensors, description = load_weights(path)
    options = dict(description["backbone"])
    backbone: Backbone = BACKBONES[options.pop("name")](**options)
    load_strictly(backbone, tensors, path)
    return backbone.eval()


# ------------------------------------------------------------------------------------------------------------ import


def import_weights(
    file: Path | str,
    kind: str,
    *,
    network: str | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    narrator: Narrator | None = None,
) -> Run:
    """Make a run of a checkpoint that others published, to evaluate, export and time its backbone.

    Nothing in the file is executed. If it does not fit, nothing is written.

    Args:
        file: What ``torch.save`` or safetensors wrote.
        kind: Who published it: a name in :data:`lightssl.backbones.published.KINDS`.
        network: Which network of the file, such as ``student``; by default the one that its authors evaluate.
        recipe: Says which backbone it is and how it is fed. By default ``BACKBONE_METHOD``: the backbone whose names
            and shapes the file has, and the method of its kind, or DINO.
        overrides: Texts like ``backbone.image_size=384``.
        out: Folder of the run; by default one below ``runs/`` named by time and recipe.
        narrator: Told what was taken and what was left out.

    Returns:
        The run. It has weights and a recipe, and a card that says where they are from; it has no training.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe or of another kind, or its tensors do not fit.
        ConfigError: There is no such kind, network or recipe.
    """
    narrator = narrator or Silent()
    published = read_published(Path(file), kind, network=network)
    name = recipe or f"{recognise(published)}_{published.network.method}"
    resolved = load_recipe(name, overrides=[*KINDS[kind].overrides, *overrides])
    resolved = resolved.model_copy(update={"card": _imported_card(resolved, published)})
    backbone = build_backbone(resolved)
    options = ", ".join(f"{key}={value}" for key, value in _options(resolved.backbone).items())
    tensors, left_out = weights_for(backbone, f"{resolved.backbone.name} ({options})", published)
    load_strictly(backbone, tensors, published.path)
    imported = {
        "file": published.path.name,
        "kind": kind,
        "network": published.network.role,
        "left_out": left_out,
    }
    description = {**_describe_backbone(resolved, backbone), "imported": imported}

    run = new_run(Path(out) if out is not None else None, resolved.name)
    save_backbone(run.weights_path, backbone, description)
    run.write_start(dump(resolved), _environment(imported=imported))
    evaluation, data = resolved.evaluation, resolved.data
    others = f". It also has: {', '.join(published.others)} (--network)" if published.others else ""
    narrator.say(f"{published.path.name}, from {kind}: took the {published.network.role}{others}")
    narrator.say(f"Left out: {', '.join(left_out) or 'nothing'}")
    narrator.say(f"{resolved.backbone.name}, {description['parameters']:,} parameters: {run.weights_path}")
    narrator.say(
        f"Fed with images of {evaluation.image_size} pixels, mean {list(data.mean)}, std {list(data.std)}. If it was "
        "trained otherwise: --set evaluation.image_size=N --set data.mean=[R,G,B] --set data.std=[R,G,B]"
    )
    return run


def _imported_card(recipe: Recipe, published: Published) -> Card:
    """Replace a recipe's card, so that nobody takes the weights for those of a training with lightssl."""
    return Card(
        title=f"{recipe.backbone.name}, imported from {published.path.name}",
        paper=KINDS[published.kind].paper,
        in_paper=False,
        hardware="not known: the training was not done with lightssl",
        measured=f"weights imported from {published.path.name} ({published.kind}, {published.network.role}). "
        "Of this recipe, only the backbone, data and evaluation apply to them",
    )


# ---------------------------------------------------------------------------------------------------------- evaluate


def evaluate(
    run: Run | Path | str | None = None,
    *,
    tasks: Sequence[str] = ("knn", "linear"),
    data: str | None = None,
    test_data: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure what the frozen features are worth, beside those of the same network at random initialisation.

    A random network with batch norm is measured twice: with batch norm as initialised, and with its statistics
    estimated on the training images. Neither is the better baseline everywhere.

    Args:
        run: By default the latest run.
        tasks: Names in :data:`lightssl.evaluation.EVALUATIONS`.
        data: Labelled images; by default those that the run was trained on.
        test_data: Labelled test images, if they lie elsewhere.
        narrator: Told how it goes.

    Returns:
        For each task what was also written to the run folder: ``{"task", "results", "data"}``; each result holds
        ``network`` and ``top1`` in percent.
    """
    narrator = narrator or Silent()
    run = _as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    functions = {task: EVALUATIONS[task] for task in tasks}
    data = data or run.environment().get("data", SAMPLE)
    train, test, split = open_splits(data, test_data, seed=recipe.train.seed)
    pretrained = load_backbone(run)
    prepare_host()

    networks: dict[str, Callable[[], Backbone]] = {"pre-trained": lambda: pretrained}
    if has_batch_norm(pretrained):
        networks["random, batch norm as initialised"] = lambda: build_backbone(recipe)
        networks["random, batch norm estimated"] = lambda: _with_estimated_batch_norm(
            build_backbone(recipe), train, recipe
        )
    else:
        networks["random"] = lambda: build_backbone(recipe)
    results: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    with narrator.work("Evaluating", len(networks) * (len(train) + len(test) + 1000 * len(tasks))) as bar:
        done = 0

        def advance(by: int, status: str) -> None:
            nonlocal done
            done += by
            bar(done, status)

        for name, make in networks.items():
            features = _features(make(), train, test, recipe, partial(advance, status=name))
            for task, function in functions.items():
                results[task].append({"network": name, **function(features, seed=recipe.train.seed)})
                advance(1000, f"{task}, {name}")
            if name == "pre-trained":
                gallery = neighbour_gallery(features, _pixels(train), _pixels(test), seed=recipe.train.seed)
                write_json(run.evaluation_path("neighbours"), gallery)
    written = {}
    for task in tasks:
        written[task] = {
            "task": task,
            "results": results[task],
            "data": {
                "train": train.name,
                "train_images": len(train),
                "test": test.name,
                "test_images": len(test),
                "split": split,
            },
            "seed": recipe.train.seed,
        }
        write_json(run.evaluation_path(task), written[task])
    return written


def _pixels(source: Source) -> Callable[[int], np.ndarray]:
    return lambda index: decode(source.read(index))


def _with_estimated_batch_norm(backbone: Backbone, source: Source, recipe: Recipe) -> Backbone:
    _estimate_batch_norm(backbone, source, recipe)
    return backbone


def _features(
    network: nn.Module,
    train: Source,
    test: Source,
    recipe: Recipe,
    on_batch: Callable[[int], None] | None = None,
    batch_size: int = _EVALUATION_BATCH,
) -> Features:
    extracted: list[tuple[Tensor, Tensor, Tensor]] = []
    for source in (train, test):
        features, indices = _features_of(network, source, recipe, on_batch, batch_size)
        labels = torch.from_numpy(np.asarray(source.labels))[indices]
        extracted.append((features, labels, indices))
    (train_features, train_labels, train_indices), (test_features, test_labels, test_indices) = extracted
    return Features(
        train=train_features,
        train_labels=train_labels,
        train_indices=train_indices,
        test=test_features,
        test_labels=test_labels,
        test_indices=test_indices,
        classes=list(train.classes or []),
    )


def _features_of(
    network: nn.Module,
    source: Source,
    recipe: Recipe,
    on_batch: Callable[[int], None] | None = None,
    batch_size: int = _EVALUATION_BATCH,
) -> tuple[Tensor, Tensor]:
    """Return features [N, D] of the images that can be decoded, and their positions in the source, [N]."""
    loader = evaluation_loader(
        source,
        size=recipe.evaluation.image_size,
        crop_share=recipe.evaluation.crop_share,
        batch_size=batch_size,
        workers=_workers(recipe),
    )
    return extract_features(network, loader, mean=recipe.data.mean, std=recipe.data.std, on_batch=on_batch)


def _monitor(recipe: Recipe, data: str, source: Source) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return the check that runs during training: kNN of a copy with estimated batch-norm statistics."""
    train, test, _ = open_splits(data, seed=recipe.train.seed)
    knn = EVALUATIONS["knn"]

    def monitor(encoder: nn.Module) -> Mapping[str, float]:
        network = _standalone(encoder, recipe)
        _estimate_batch_norm(network, source, recipe)
        return {"knn_top1": knn(_features(network, train, test, recipe), seed=recipe.train.seed)["top1"]}

    return monitor


# ------------------------------------------------------------------------------------------- export, bench and report


def export(
    run: Run | Path | str | None = None,
    *,
    out: Path | str | None = None,
    include_normalisation: bool = True,
    fp16: bool = False,
    int8: bool = False,
    ort: bool = False,
    calibrate: str | None = None,
    runtimes: Sequence[str] = (),
    narrator: Narrator | None = None,
) -> Manifest:
    """Write the pre-trained backbone as ONNX files, checked against torch, and a manifest beside them.

    Args:
        run: By default the latest run.
        out: The fp32 file; by default ``export/model.onnx`` in the run folder. Others are named after it.
        include_normalisation: The graphs take RGB in 0..1 and normalise it, rather than normalised images.
        fp16: Also write ``model.fp16.onnx``.
        int8: Also write ``model.int8.arm.onnx`` and ``model.int8.x86.onnx``: see :mod:`lightssl.deploy.quantise`.
        ort: Also write each file but that of fp16 in ONNX Runtime's own format, checked against it: see
            :func:`lightssl.deploy.mobile.to_ort`.
        calibrate: Images that int8 is calibrated on, as in :func:`lightssl.data.sources.open_source`; by default those
            that the run was trained on.
        runtimes: Also write the files of these, in fp32: see :mod:`lightssl.deploy.runtimes`.
        narrator: Told how it goes.

    Raises:
        ExportError: The exported network does not compute the same, or cannot be converted; there is no fp32 file
            unless that one was right.
        DataError: There are no images to calibrate on.
    """
    narrator = narrator or Silent()
    run = _as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    path = Path(out) if out is not None else run.onnx_path
    # Better fail before the work than after it.
    read_manifest(manifest_path(path))  # which would be replaced
    for runtime in runtimes:
        converter(runtime)
    backbone = load_backbone(run)
    data = run.environment().get("data", SAMPLE)
    source = open_source(data, split="train")
    images = _centre_crops(source, _spread(len(source), _PARITY_IMAGES), recipe)
    calibration = _calibration_images(open_source(calibrate or data, split="train"), recipe) if int8 else None
    metadata = {"recipe": recipe.name, "scale": recipe.scale, "backbone": recipe.backbone.name}
    files: list[ExportedFile] = []
    written: list[RuntimeFiles] = []
    with narrator.work("Exporting", 1 + fp16 + len(ARCHITECTURES) * int8 + len(runtimes)) as bar:
        fp32 = export_onnx(
            backbone,
            path,
            input_size=recipe.evaluation.image_size,
            mean=recipe.data.mean,
            std=recipe.data.std,
            include_normalisation=include_normalisation,
            metadata=metadata,
            images=images,
        )
        normalised = normalise(images, recipe.data.mean, recipe.data.std)
        for file, quantisation in chain([(path, None)], _smaller_files(path, fp16=fp16, calibration=calibration)):
            files.append(_exported_file(file, quantisation, backbone, normalised, ort=ort))
            bar(len(files), file.name)
        for runtime in runtimes:
            written.append(write_for(runtime, path, backbone))
            bar(len(files) + len(written), runtime)
    for made in files:
        if made.quantisation is not None and made.quantisation.agreement < MIN_AGREEMENT:
            narrator.say(
                f"{made.file} agrees with fp32 by {made.quantisation.agreement:.3f} only, which is below "
                f"{MIN_AGREEMENT}. See what that costs: lightssl verify"
            )
    described = read_metadata(path)
    manifest = Manifest(
        **metadata,
        input=ModelInput(
            name=INPUT,
            size=fp32.input_size,
            range=described["input_range"],
            normalisation=described["normalisation"],
            mean=recipe.data.mean,
            std=recipe.data.std,
        ),
        output=ModelOutput(name=OUTPUT, width=fp32.feature_width),
        classes=source.classes,
        calibration=(calibrate or data) if int8 else None,
        versions=versions(),
        files=files,
        runtimes=written,
    )
    write_manifest(manifest_path(path), manifest)
    return manifest


def _smaller_files(
    path: Path, *, fp16: bool, calibration: tuple[Tensor, Tensor] | None
) -> Iterator[tuple[Path, Quantisation | None]]:
    """Write the other precisions of an exported file beside it, one after the other."""
    fp32 = path.read_bytes()
    if fp16:
        file = path.with_suffix(".fp16.onnx")
        write_bytes(file, to_fp16(fp32))
        yield file, None
    if calibration is not None:
        quantiser = Quantiser(fp32, *calibration)
        for architecture in ARCHITECTURES:
            file = path.with_suffix(f".int8.{architecture}.onnx")
            content, quantisation = quantiser.quantise(architecture)
            write_bytes(file, content)
            yield file, quantisation


def _exported_file(
    file: Path, quantisation: Quantisation | None, backbone: nn.Module, images: Tensor, *, ort: bool
) -> ExportedFile:
    """Describe a file that was written, from its content, and compare it with torch on normalised images."""
    description = describe_model(file)
    network = _onnx_network(file, description)
    with torch.inference_mode():
        parity = compare_features(network(images), backbone(images))
    return ExportedFile(
        file=file.name,
        precision=description.precision,
        architecture=description.architecture,
        bytes=description.bytes,
        sha256=description.sha256,
        opset=description.opset,
        parity=parity,
        computed_in=_computed_in(network, description),
        quantisation=quantisation,
        accelerators=check_accelerators(file.read_bytes()),
        # This machine would compute fp16 in float, and the conversion makes that so for good.
        ort=_ort_file(file, description, images) if ort and description.precision != "fp16" else None,
    )


def _ort_file(file: Path, description: ModelDescription, images: Tensor) -> OrtFile:
    """Write a file in ONNX Runtime's own format beside it, having compared the two on normalised images."""
    model = file.read_bytes()
    content, operators = to_ort(model, description.architecture)
    # The integer kernels of this machine may not be right for the file, but are the same for both.
    converted, original = (OnnxNetwork(form, description.metadata)(images) for form in (content, model))
    parity = compare_features(converted, original)
    if parity.max_error > TOLERANCE * parity.max_feature:
        raise ExportError(f"{file.name} computes something else as .ort: a feature is off by {parity.max_error:.3g}.")
    path = file.with_suffix(".ort")
    operators_path = file.with_suffix(".required_operators.config")
    write_bytes(path, content)
    write_text(operators_path, operators)
    return OrtFile(
        file=path.name,
        operators=operators_path.name,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        max_error=parity.max_error,
    )


def _onnx_network(file: Path, description: ModelDescription) -> OnnxNetwork:
    """Load a file to run as the machines that it is for run it."""
    in_float = not is_of_this_machine(description.architecture)
    return OnnxNetwork(file.read_bytes(), description.metadata, in_float=in_float)


def _computed_in(network: OnnxNetwork | EmulatedNetwork, description: ModelDescription) -> str:
    return "float" if network.in_float else description.precision


def _calibration_images(source: Source, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Draw normalised images to calibrate on, and others to judge the result by, float32 [N, 3, S, S] both."""
    order = np.random.default_rng(recipe.train.seed).permutation(len(source))
    images = _centre_crops(source, order[: _CALIBRATION_IMAGES + _HELD_OUT_IMAGES], recipe)
    if len(images) < _FEWEST_CALIBRATION_IMAGES:
        raise DataError(
            f"{source.name} holds {len(images)} images that can be used: too few to calibrate on.",
            f"Give {_FEWEST_CALIBRATION_IMAGES} at least, better {_CALIBRATION_IMAGES + _HELD_OUT_IMAGES}.",
        )
    aside = max(2, len(images) * _HELD_OUT_IMAGES // (_CALIBRATION_IMAGES + _HELD_OUT_IMAGES))
    normalised = normalise(images, recipe.data.mean, recipe.data.std)
    return normalised[aside:], normalised[:aside]


def _spread(images: int, count: int) -> np.ndarray:
    """Return ``count`` positions spread evenly over so many images, which often come sorted by class."""
    return np.linspace(0, images - 1, min(count, images), dtype=int)


def _centre_crops(source: Source, indices: np.ndarray, recipe: Recipe) -> Tensor:
    """Read some images as an evaluation shows them: uint8 [N, S, S, 3], without those that cannot be decoded."""
    loader = evaluation_loader(
        Subset(source, indices, source.name),
        size=recipe.evaluation.image_size,
        crop_share=recipe.evaluation.crop_share,
        batch_size=_EVALUATION_BATCH,
    )
    return torch.cat([images for images, _ in loader])


def verify(
    models: Sequence[Path | str] = (),
    *,
    run: Run | Path | str | None = None,
    data: str | None = None,
    arch: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Compare exported files with the torch network: their features on real images, and what these are worth.

    Args:
        models: ONNX files, all of one run; by default those in the manifest of the run.
        run: The run they were exported from; by default the one that the first of them lies in, or the latest.
        data: Labelled images; by default those that the run was trained on. If these have no labels, features are
            compared without kNN.
        arch: ``aarch64`` has the files computed by ONNX Runtime's build for that processor, on another in an emulator:
            see :mod:`lightssl.deploy.emulator`. That is slow, so fewer images are compared, and without kNN if they
            are too few for that. By default this machine computes the files.
        narrator: Told how it goes.

    Returns:
        ``{"data", "train_images", "rows", "machine", "versions"}``: one row for torch and one for each file, with
        ``knn_top1`` in percent, None without kNN, ``computed_in`` and ``computed_on``, and
        :class:`lightssl.deploy.parity.Parity`. Also written to the run folder.

    Raises:
        ConfigError: There is no emulator for ``arch``.
        TargetError: The emulator, or what it needs, is not installed.
        ExportError: A file is damaged, is not valid ONNX, is not what its manifest says, has another input or output
            than the run's network, or its features are not finite.
        DataError: ``data`` cannot be used.
    """
    narrator = narrator or Silent()
    if arch not in (None, EMULATED_MACHINE):
        raise ConfigError(f"There is no emulator for {arch} processors.", f"There is one: --arch {EMULATED_MACHINE}")
    emulate = arch is not None and not is_of_this_machine("arm")
    files = [Path(model) for model in models]
    run = _run_around(files[0]) if files and run is None else _as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    files = files or _exported_files(run)
    descriptions = {file: _checked_description(file, recipe) for file in files}
    backbone = load_backbone(run)
    splits, images = _verification_images(run, recipe, data, narrator)
    computed_on, batch_size, path = platform.machine(), _EVALUATION_BATCH, run.verification_path
    if emulate:
        computed_on, batch_size = f"{EMULATED_MACHINE} under qemu", _EMULATED_BATCH
        path = path.with_stem(f"{path.stem}_{EMULATED_MACHINE}")
        splits, images = _fewer_images(splits, images, backbone, recipe)
        knn = f"kNN among {len(splits[0]):,} others" if splits else "without kNN"
        narrator.say(f"Emulation is slow: compared on {len(images):,} images, {knn}")
    shown = sum(map(len, splits)) if splits else len(images)
    rows: list[dict[str, Any]] = []
    with (
        _networks(descriptions, emulate) as networks,
        narrator.work("Verifying", shown * (1 + len(descriptions))) as bar,
    ):
        done = 0

        def advance(by: int, status: str) -> None:
            nonlocal done
            done += by
            bar(done, status)

        def measure(network: nn.Module, name: str) -> tuple[Tensor, float | None]:
            """Return features of the compared images, and kNN accuracy in percent where there are labels."""
            on_batch = partial(advance, status=name)
            if splits is None:
                return _features_of(network, images, recipe, on_batch, batch_size)[0], None
            features = _features(network, *splits, recipe, on_batch, batch_size)
            return features.test, EVALUATIONS["knn"](features, seed=recipe.train.seed)["top1"]

        expected, top1 = measure(backbone, "torch")
        rows.append({"model": "torch", "precision": "fp32", "knn_top1": top1})
        for file, network in networks.items():
            features, top1 = measure(network, file.name)
            description = descriptions[file]
            row = {
                "model": str(file),
                "precision": description.precision,
                "architecture": description.architecture,
                "computed_in": _computed_in(network, description),
                "computed_on": computed_on,
                "bytes": description.bytes,
                "sha256": description.sha256,
                **asdict(compare_features(features, expected)),
                "knn_top1": top1,
            }
            rows.append(row)
    result = {
        "data": images.name,
        "train_images": len(splits[0]) if splits else None,
        "rows": rows,
        "machine": describe_machine(),
        "versions": versions(),
    }
    write_json(path, result)
    return result


def _verification_images(
    run: Run, recipe: Recipe, data: str | None, narrator: Narrator
) -> tuple[tuple[Source, Source] | None, Source]:
    """Open train and test images where there are labels, and the images that features are compared on."""
    spec = data or run.environment().get("data", SAMPLE)
    try:
        train, test, how = open_splits(spec, seed=recipe.train.seed)
    except DataError as error:
        if data is not None:
            raise
        narrator.say(f"No kNN: {error.message} Name labelled images with --data")
        source = open_source(spec, split="train")
        return None, Subset(source, _spread(len(source), _COMPARED_IMAGES), source.name)
    narrator.say(how)
    return (train, test), test


def _fewer_images(
    splits: tuple[Source, Source] | None, images: Source, backbone: Backbone, recipe: Recipe
) -> tuple[tuple[Source, Source] | None, Source]:
    """Leave out images until an emulator gets through them in minutes; kNN too, where too few are left for it."""
    count = _EMULATED_FLOPS // count_cost(backbone, recipe.evaluation.image_size).flops
    if splits is None or count < _FEWEST_KNN_IMAGES:
        few = _spread(len(images), min(max(count, _EMULATED_BATCH), _COMPARED_IMAGES))
        return None, Subset(images, few, images.name)
    train, test = splits
    tested = min(len(test), count // 5)
    train = some_of_each_class(train, count - tested, seed=recipe.train.seed)
    test = some_of_each_class(test, tested, seed=recipe.train.seed)
    return (train, test), test


def _networks(
    descriptions: Mapping[Path, ModelDescription], emulate: bool
) -> AbstractContextManager[Mapping[Path, OnnxNetwork | EmulatedNetwork]]:
    """Load files, to be computed here or by an emulated processor, for as long as the block lasts."""
    if emulate:
        return emulated_networks({file: description.metadata for file, description in descriptions.items()})
    return nullcontext({file: _onnx_network(file, description) for file, description in descriptions.items()})


def _checked_description(file: Path, recipe: Recipe) -> ModelDescription:
    """Read what a file says of itself, and refuse it if it is damaged, changed or of another network."""
    description = describe_model(file)
    manifest = read_manifest(manifest_path(file))
    if manifest is not None:
        written = {entry.file: entry.sha256 for entry in manifest.files}.get(file.name, description.sha256)
        if written != description.sha256:
            raise ExportError(
                f"{file} is not what its manifest says: it has changed since it was exported.",
                "Write it again with: lightssl export --onnx",
            )
    check_valid(file.read_bytes())
    check_fits(file, description, recipe.evaluation.image_size)
    return description


def _exported_files(run: Run) -> list[Path]:
    manifest = read_manifest(manifest_path(_exported(run)))
    return [run.onnx_path.with_name(entry.file) for entry in manifest.files] if manifest else [run.onnx_path]


def _run_around(model: Path) -> Run:
    """Return the run whose export folder a model lies in."""
    run = Run(model.resolve().parent.parent)
    if not run.recipe_path.exists():
        raise LightSSLError(
            f"{model} does not lie in a run.", "Name the run that it was exported from with --run, to compare with."
        )
    return run


def bench(
    models: Sequence[Path | str] = (),
    *,
    target: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    narrator: Narrator | None = None,
) -> list[dict[str, Any]]:
    """Time exported models on a target, or predict their time there.

    Args:
        models: ONNX files; by default the one of the latest run. Those of a run are compared with torch.
        target: A device profile in ``export/targets``, with what it asks for after a colon, or the path of one.
        settings: Takes the place of settings of the same name in the profile.
        narrator: Told how it goes.

    Returns:
        One row for each model, runtime and number of threads, as a dictionary with the model's path:
        :class:`~lightssl.deploy.latency.Measurement`, or :class:`~lightssl.deploy.latency.Prediction` where nothing was
        run. For the models of a run they are also written to the run folder. Where operators were timed, a picture of
        the slowest lies there, too, or else beside the model.
    """
    profile = load_profile(target)
    chosen = [Path(model) for model in models] or [_exported(find_run())]
    narrator = narrator or Silent()
    all_rows: list[dict[str, Any]] = []
    with narrator.work(f"Latency on {target}", len(chosen)) as bar:
        for done, model in enumerate(chosen):
            bar(done, model.name)
            run = _run_of(model)
            path = run.bench_path(_as_file_name(target), model.name) if run else model
            measurements = bench_profile(model, profile, network=load_backbone(run) if run else None, settings=settings)
            rows = [{"model": str(model), **asdict(measurement)} for measurement in measurements]
            if run is not None:
                result = {"target": target, "machine": describe_machine(), "versions": versions(), "rows": rows}
                write_json(path, result)
            if any(row.get("operators") for row in rows):
                narrator.say(f"Operators: {_draw_operators(rows, path)}")
            all_rows += rows
        bar(len(chosen))
    return all_rows


def compare(
    results: Sequence[Path | str], *, out: Path | str | None = None, narrator: Narrator | None = None
) -> list[Compared]:
    """Hold results of :func:`bench` against those of the first file: other devices, other models, or a change.

    Args:
        results: What ``bench`` wrote to a run or ``lightssl bench --json`` printed: two files or more.
        out: An HTML page to write, which also shows latency against accuracy and size.
        narrator: Told how it goes.

    Returns:
        As :func:`lightssl.deploy.results.compare_results`.

    Raises:
        ConfigError: A file does not hold results, or they have nothing in common.
    """
    read = {Path(file): read_results(Path(file)) for file in results}
    compared = compare_results(read)
    left_out = sum(map(len, read.values())) - len(compared)
    if left_out:
        (narrator or Silent()).say(f"Left out of the ratios: {left_out} results without a counterpart.")
    if out is not None:
        from lightssl.reports.comparison import write_comparison  # brings matplotlib

        write_comparison(Path(out), read, compared)
    return compared


def _draw_operators(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the operators that take longest, in a picture beside ``path``, and return where it is."""
    from lightssl.reports.plots import operator_bars  # brings matplotlib

    timed = {f"threads: {row['threads']}": row["operators"] for row in rows if row.get("operators")}
    picture = path.with_suffix(".operators.png")
    write_bytes(picture, operator_bars(timed, title=f"{Path(rows[0]['model']).name} on {rows[0]['device']}"))
    return picture


def _as_file_name(target: str) -> str:
    return Path(target).stem if Path(target).suffix in (".yaml", ".yml") else re.sub(r"[^\w.@-]+", "_", target)


def fit_profile(measurements: Path | str, out: Path | str, *, runtime: str | None = None) -> Profile:
    """Learn a device profile that predicts from measured models, and write it.

    Args:
        measurements: What ``lightssl bench --json`` printed, or a CSV table with its columns.
        out: The YAML file, which ``bench`` then takes as a target.
        runtime: The one to learn, where several were measured.

    Raises:
        LightSSLError: The measurements cannot be read, are of several devices, or do not make a profile.
    """
    from lightssl.deploy.fit_profile import fit_profile as learn_profile

    if Path(out).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{out} is not a YAML file's name.", "End it in .yaml")
    profile = learn_profile(Path(measurements), runtime=runtime)
    write_profile(Path(out), profile)
    return profile


def _exported(run: Run) -> Path:
    if not run.onnx_path.exists():
        raise LightSSLError(f"{run} has no exported model yet.", "Write one with: lightssl export --onnx")
    return run.onnx_path


def _run_of(model: Path) -> Run | None:
    """Return the run that a model lies in, if it was exported there: other precisions are named after the first."""
    run = Run(model.parent.parent)
    exported = run.onnx_path
    is_there = run.recipe_path.exists() and model.resolve().parent == exported.resolve().parent
    return run if is_there and model.name.startswith(f"{exported.stem}.") else None


def report(run: Run | Path | str | None = None, *, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, and return its path.

    Args:
        run: By default the latest run.
        out: The file; by default ``report.html`` in the run folder.
    """
    from lightssl.reports.page import write_report  # brings matplotlib

    return write_report(_as_run(run).folder, Path(out) if out is not None else None)


def _as_run(run: Run | Path | str | None) -> Run:
    return run if isinstance(run, Run) else find_run(run)


__all__ = [
    "bench",
    "compare",
    "default_scale",
    "evaluate",
    "export",
    "fit_profile",
    "import_weights",
    "load_backbone",
    "pretrain",
    "report",
    "resume",
    "verify",
]
