"""``evaluate``: what a network has learned."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import has_batch_norm
from lightssl.config.load import load_options, validate
from lightssl.config.schema import Recipe
from lightssl.data.decode import decode
from lightssl.data.sources import Source, Subset, open_source, open_splits
from lightssl.errors import CheckpointError, ConfigError
from lightssl.evaluation import DEFAULT_EVALUATIONS, DETECTIONS, EVALUATIONS, FINE_TUNINGS, LABEL_FREE
from lightssl.evaluation.features import Features, StageFeatures
from lightssl.evaluation.neighbours import neighbour_gallery
from lightssl.files import write_json
from lightssl.pipeline.building import PRETRAINED, RANDOM, SAMPLE, build_backbone, estimate_batch_norm_on, options_of
from lightssl.pipeline.detecting import detections
from lightssl.pipeline.extracting import features_of_images, features_of_splits, features_of_views
from lightssl.pipeline.fine_tuning import fine_tunings
from lightssl.pipeline.loading import as_run, load_backbone
from lightssl.progress import Narrator, Silent, counting
from lightssl.runs import Run
from lightssl.train.host import prepare_host

# RankMe asks for more images than features are wide, and changes little from here on.
_LABEL_FREE_IMAGES, _LABEL_FREE_PAIRS = 10_000, 2_048


def evaluate(
    run: Run | Path | str | None = None,
    *,
    tasks: Sequence[str] = DEFAULT_EVALUATIONS,
    data: str | None = None,
    test_data: str | None = None,
    overrides: Sequence[str] = (),
    stages: bool = False,
    checkpoints: bool = False,
    random: bool = True,
    narrator: Narrator | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure what a network has learned, beside the same network at random initialisation.

    Most tasks take its features as they are. A random network with batch norm is then measured twice: with batch norm
    as initialised, and with its statistics estimated on the training images. Neither is the better baseline everywhere.
    ``semi`` and ``finetune`` train the network on; the latter leaves a classifier in the run folder, which is a run of
    its own: see :meth:`lightssl.runs.Run.made_by`. So do ``detect`` and ``segment``, which learn to find objects. Their
    state is kept every few minutes: called again after it was stopped, each goes on to the same end.

    Args:
        run: By default the latest run.
        tasks: Names in :data:`lightssl.evaluation.EVALUATIONS`.
        data: Labelled images, but for ``labelfree``; by default those that the run was trained on. ``detect`` and
            ``segment`` take a COCO file or folder: see :func:`lightssl.data.coco.open_coco_splits`.
        test_data: Labelled test images, if they lie elsewhere.
        overrides: Texts like ``knn.k=[10,20]``: options of the tasks, the keyword arguments of their functions.
        stages: Measure the features of every stage of the networks as well, to see which represents best.
        checkpoints: Compare the backbones that the training kept on its way (``train.keep_every``) instead, by tasks
            that do not train them on. The results lie beside the others, and name the ``step``.
        random: Measure the networks at random initialisation as well: most of the time is theirs.
        narrator: Told how it goes.

    Returns:
        For each task what was also written to the run folder: ``{"task", "results", "data"}``; each result holds
        ``network``, ``top1`` in percent and, of an earlier stage, ``stage``, of a part of the labels, ``labels``.
        Those of ``labelfree`` hold measures in place of ``top1``, and those of ``detect`` and ``segment`` ``ap``.

    Raises:
        ConfigError: There is no such task, or it has no such option, or checkpoints are to be fine-tuned.
        CheckpointError: There is no backbone yet, or fewer than two were kept.
        DataError: The images have no labels, or too few of a class.
    """
    narrator = narrator or Silent()
    run = as_run(run)
    recipe = validate(run.recipe(), origin=str(run.recipe_path))
    functions = {task: _with_options(task, tasks, overrides, recipe) for task in tasks}
    training = (*FINE_TUNINGS, *DETECTIONS)
    if checkpoints and (stages or not set(tasks).isdisjoint(training)):
        raise ConfigError(
            f"Checkpoints are compared as they are: not by {', '.join(training)}, and not by stages.",
            "Take others: --task knn --task labelfree --checkpoints",
        )
    detecting = {task: function for task, function in functions.items() if task in DETECTIONS}
    if detecting and (stages or len(detecting) < len(functions)):
        raise ConfigError(
            f"{' and '.join(detecting)} find objects in photographs: other tasks and stages take other data.",
            f"Measure those apart: --task {next(iter(detecting))} --data COCO",
        )
    if stages and not set(tasks).isdisjoint((*LABEL_FREE, *training)):
        raise ConfigError(
            f"Stages are measured by features as they are: not by {', '.join((*LABEL_FREE, *training))}.",
            "Take others: --task linear --task knn --stages",
        )
    if data is None:
        trained_on = run.environment()
        data, test_data = trained_on.get("data", SAMPLE), test_data or trained_on.get("test_data")
    if detecting:
        prepare_host()
        results, what = detections(run, recipe, data, test_data, detecting, random, narrator)
        return _write(run, recipe, results, what)
    label_free = {task: function for task, function in functions.items() if task in LABEL_FREE}
    trained = {task: function for task, function in functions.items() if task in FINE_TUNINGS}
    frozen = {task: function for task, function in functions.items() if task not in (*LABEL_FREE, *FINE_TUNINGS)}
    if frozen or trained:
        train, test, split = open_splits(data, test_data, seed=recipe.train.seed)
        said = {"test": test.name, "test_images": len(test), "split": split}
    else:
        train, said = open_source(data, split="train"), {}
    what = {"train": train.name, "train_images": len(train), **said}
    networks = _kept(run) if checkpoints else _networks(recipe, load_backbone(run), train, random)
    prepare_host()
    path_of = run.checkpoints_path if checkpoints else run.evaluation_path

    def write(results: Mapping[str, list[dict[str, Any]]], what: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        if checkpoints:
            for rows in results.values():
                for row, step in zip(rows, run.kept(), strict=True):
                    row["step"] = step
        return _write(run, recipe, results, what, path_of)

    # Each as soon as it is known: what goes wrong with a later one leaves it.
    written: dict[str, dict[str, Any]] = {}
    if label_free:
        written |= write(_without_labels(recipe, networks, train, label_free, narrator), what)
    if frozen:
        results, counts = _of_features(run, recipe, networks, train, test, frozen, stages, narrator)
        written |= write(results, what | counts)
    if trained:
        where = {"data": data} if test_data is None else {"data": data, "test_data": test_data}
        written |= write(fine_tunings(run, recipe, train, test, trained, where, random, narrator), what)
    return {task: written[task] for task in tasks}


def _write(
    run: Run,
    recipe: Recipe,
    results: Mapping[str, list[dict[str, Any]]],
    data: Mapping[str, Any],
    path_of: Callable[[str], Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the results of each task, to where evaluations lie by default, and return what was written."""
    written = {}
    for task, rows in results.items():
        written[task] = {"task": task, "results": rows, "data": dict(data), "seed": recipe.train.seed}
        write_json((path_of or run.evaluation_path)(task), written[task])
        shutil.rmtree(run.under_way_path(task), ignore_errors=True)
    return written


def _kept(run: Run) -> dict[str, Callable[[], Backbone]]:
    """Return what loads the backbones that a training kept, by their names."""
    kept = run.kept()
    if len(kept) < 2:
        raise CheckpointError(
            f"{run} has kept fewer than two backbones on its way: there is nothing to compare.",
            "Have a training keep them with --set train.keep_every=10%",
        )
    return {f"after {step:,} steps": partial(load_backbone, path) for step, path in kept.items()}


def _networks(recipe: Recipe, pretrained: Backbone, source: Source, random: bool) -> dict[str, Callable[[], Backbone]]:
    """Return what makes the pre-trained network and the random ones, by their names."""
    networks: dict[str, Callable[[], Backbone]] = {PRETRAINED: lambda: pretrained}
    if not random:
        return networks
    if not has_batch_norm(pretrained):
        return {**networks, RANDOM: lambda: build_backbone(recipe)}
    return {
        **networks,
        "random, batch norm as initialised": lambda: build_backbone(recipe),
        "random, batch norm estimated": lambda: _with_estimated_batch_norm(build_backbone(recipe), source, recipe),
    }


def _without_labels(
    recipe: Recipe,
    networks: Mapping[str, Callable[[], Backbone]],
    source: Source,
    functions: Mapping[str, Callable[[Tensor, Tensor], dict[str, Any]]],
    narrator: Narrator,
) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each task on features of some of the images, and of two views of some of them."""
    images, pairs = (_some(source, count, recipe.train.seed) for count in (_LABEL_FREE_IMAGES, _LABEL_FREE_PAIRS))
    results: dict[str, list[dict[str, Any]]] = {task: [] for task in functions}
    with narrator.work("Without labels", len(networks) * (len(images) + 2 * len(pairs))) as bar:
        advance = counting(bar)
        for name, make in networks.items():
            backbone, on_batch = make(), partial(advance, status=name)
            features, _ = features_of_images(backbone, images, recipe, on_batch)
            views = features_of_views(backbone, pairs, recipe, on_batch)
            for task, function in functions.items():
                results[task].append({"network": name, **function(features, views)})
    return results


def _some(source: Source, count: int, seed: int) -> Source:
    """Draw at most so many images."""
    drawn = np.random.default_rng(seed).permutation(len(source))[:count]
    return Subset(source, np.sort(drawn), source.name)


def _of_features(
    run: Run,
    recipe: Recipe,
    networks: Mapping[str, Callable[[], Backbone]],
    train: Source,
    test: Source,
    functions: Mapping[str, Callable[[Features], dict[str, Any]]],
    stages: bool,
    narrator: Narrator,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Return the results of each task on the frozen features of the networks, and keep nearest neighbours.

    Second come the numbers of images that were used.
    """
    results: dict[str, list[dict[str, Any]]] = {task: [] for task in functions}
    counts: dict[str, int] = {}
    with narrator.work("Evaluating", len(networks) * (len(train) + len(test) + 1000 * len(functions))) as bar:
        advance = counting(bar)
        for name, make in networks.items():
            backbone, earlier = make(), {}
            network = StageFeatures(backbone) if stages else backbone
            features = features_of_splits(network, train, test, recipe, partial(advance, status=name))
            if not counts:
                counts = {"train_images": len(features.train), "test_images": len(features.test)}
                for part, source, used in (
                    ("training", train, len(features.train)),
                    ("test", test, len(features.test)),
                ):
                    if used < len(source):
                        narrator.say(
                            f"{len(source) - used:,} of {len(source):,} {part} images cannot be used, and are left out."
                        )
            if isinstance(network, StageFeatures):
                *parts, features = features.columns(network.widths)
                earlier = dict(zip(network.names, parts, strict=False))
            for task, function in functions.items():
                results[task].append({"network": name, **function(features)})
                results[task] += [
                    {"network": name, "stage": stage, **function(part)} for stage, part in earlier.items()
                ]
                advance(1000, f"{task}, {name}")
            if name == PRETRAINED:
                gallery = neighbour_gallery(features, _pixels(train), _pixels(test), seed=recipe.train.seed)
                write_json(run.evaluation_path("neighbours"), gallery)
    return results, counts


def _with_options(task: str, tasks: Sequence[str], overrides: Sequence[str], recipe: Recipe) -> Callable[..., Any]:
    """Return a task's function with the options that the recipe's scale and overrides give it."""
    function, own = EVALUATIONS[task], [f"{task}.seed={recipe.train.seed}"]
    for text in overrides:
        section = text.partition(".")[0].strip()
        if section not in tasks:
            raise ConfigError(
                f"{text}: there is no task {section!r} here.",
                f"Begin with one of {', '.join(tasks)}, as in {tasks[0]}.seed=1.",
            )
        if section == task:
            own.append(text)
    options = load_options("tasks", task, function, scale=recipe.scale, overrides=own, prefix=task)
    return partial(function, **options_of(options))


def _pixels(source: Source) -> Callable[[int], np.ndarray]:
    return lambda index: decode(source.read(index))


def _with_estimated_batch_norm(backbone: Backbone, source: Source, recipe: Recipe) -> Backbone:
    estimate_batch_norm_on(backbone, source, recipe)
    return backbone
