"""``search``: from a budget to a recipe for the network that makes the most of it."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from lightssl.config.load import PUBLISHED_SCALE, compose, dump, resolve
from lightssl.config.schema import Recipe
from lightssl.data.sources import open_source, require_labels
from lightssl.deploy.profile import Profile, load_profile, write_profile
from lightssl.errors import ConfigError
from lightssl.files import write_json
from lightssl.pipeline.asked import leading, new_folder, read_asked
from lightssl.pipeline.building import SAMPLE, describe_environment
from lightssl.pipeline.laboratory import Laboratory
from lightssl.pipeline.question import SECTION, Question, space_called, space_of
from lightssl.pipeline.search_results import write_results
from lightssl.pipeline.training import check_same_images, default_scale, pretrain
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.search import STRATEGIES
from lightssl.search.budget import check_budget
from lightssl.search.cost import LATENCY, CostTable
from lightssl.search.latency import Device, device_of, measure, open_target, predicts
from lightssl.search.task import Stopped, Task
from lightssl.train.host import prepare_host

_DEFAULT_SPACE = "mobilenetv2"
_PROFILE = "latency.yaml"  # of the device, in the folder of the search
_MAIN = "main"  # the worker that trains the supernet and writes the results


def search_network(
    limits: Mapping[str, float],
    *,
    strategy: str = "evolve",
    space: str | None = None,
    recipe: str | None = None,
    image_size: int | None = None,
    data: str = SAMPLE,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    labels: bool = False,
    target: str | Path | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    storage: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Search for the network that learns best, without labels, at a cost.

    Args:
        limits: The budget, such as ``{"flops": 300e6, "parameters": 3.5e6, "latency_ms": 20.0}``. The winner uses up 95
            to 100 % of the tightest.
        strategy: A name in :data:`lightssl.search.STRATEGIES`.
        space: A name in :data:`lightssl.search.spaces.SPACES`; by default that of the recipe's backbone.
        recipe: Name of a shipped recipe, or path of a YAML file: how the supernet is trained, and later the winner. By
            default DINO with the space's best-known network.
        image_size: Input size that the budget is counted at, in pixels; by default that which the recipe's networks are
            evaluated at as published. The supernet is trained on views of the scale's size.
        data: As for :func:`lightssl.pipeline.pretrain`.
        scale: As there; also decides how much is tried.
        overrides: Texts like ``train.batch_size=64`` for the recipe, and ``search.candidates=100`` for the strategy.
        seed: Short for the override ``train.seed``.
        labels: Short for ``search.score=knn``: score candidates by labels instead of without.
        target: The device that ``latency_ms`` is of: a profile as :func:`lightssl.pipeline.bench` takes it. One that
            predicts is used as it is. On one that measures, some networks of the space are timed first, to learn a
            profile that predicts the others, ``latency.yaml`` in the folder ``search``.
        threads: There; by default the first that the profile has.
        out: Folder of the run; results are in its folder ``search``. By default one below ``runs/``.
        storage: URL of a database that candidates are kept in; by default a file in the folder.
        narrator: Told how it goes.

    Returns:
        What was also written to ``search/search.json``: what was ``asked``, the ``winner``, the ``stock`` networks and
        the number of ``candidates``. None if the search was stopped, or in a process that is not the first.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    _check_latency_is_whole(limits, target, threads)
    if seed is not None:
        overrides = [*overrides, f"train.seed={seed}"]
    if labels:
        overrides = [*overrides, f"{SECTION}.score=knn"]
    if recipe is None:
        chosen = space_called(space or _DEFAULT_SPACE)
        recipe = f"{next(iter(chosen.stock))}_dino"
    composed = compose(recipe)
    chosen = space_called(space) if space is not None else space_of(recipe, composed)
    published = resolve(recipe, composed, scale=PUBLISHED_SCALE, origin=f"Recipe {recipe}")
    question = Question(
        strategy=strategy,
        space=chosen.name,
        limits=dict(limits),
        image_size=image_size or published.evaluation.image_size,
        recipe=Path(recipe).stem,
        composed=composed,
        scale=scale or default_scale(data),
        overrides=list(overrides),
        target=None if target is None else str(target),
        threads=threads,
    )
    return _search(question, None, None, data=data, out=out, storage=storage, narrator=narrator or Silent())


def resume_search(
    run: Path | str, *, data: str | None = None, join: bool = False, narrator: Narrator | None = None
) -> dict[str, Any] | None:
    """Go on with a search that was stopped, or help one that is under way.

    Args:
        run: Its folder.
        data: Where the images are now, if they have moved.
        join: Score candidates as one more worker, beside the process that does the search.
        narrator: Told how it goes.

    Returns:
        As :func:`search_network`; None for a worker that joined.

    Raises:
        LightSSLError: The folder holds no search, its checkpoint is damaged, or its images have changed.
    """
    question, asked = read_asked(run, SECTION, Question)
    return _search(
        question,
        Path(run),
        asked.get("name"),
        data=data or asked["data"],
        out=run,
        storage=asked["storage"],
        narrator=narrator or Silent(),
        join=join,
    )


def _search(
    question: Question,
    resumed: Path | None,
    name: str | None,
    *,
    data: str,
    out: Path | str | None,
    storage: str | None,
    narrator: Narrator,
    join: bool = False,
) -> dict[str, Any] | None:
    strategy, options = STRATEGIES[question.strategy], question.strategy_options()
    recipe, deployed = question.resolve(question.scale), question.resolve(PUBLISHED_SCALE)
    if recipe.train.compile:
        raise ConfigError(
            "train.compile=true does not go with a supernet, which is another network in every pass.",
            "Leave it at false.",
        )
    profile = None
    if question.target is not None:
        profile = open_target(question.target if resumed is None else resumed / SECTION / _PROFILE)
    device = device_of(profile, question.threads) if profile is not None and predicts(profile) else None
    table = _priced(question, device, deployed)
    prepare_host()
    source = open_source(data, split="train")
    if options.get("score") == "knn":
        require_labels(source, "a score by labels")

    from lightssl.search.study import open_study  # these take seconds to import
    from lightssl.train.fabric import make_fabric

    fabric = make_fabric(recipe.train.precision)
    first = fabric.is_global_zero and not join
    narrator = narrator if fabric.is_global_zero else Silent()
    # All processes write to one folder: the first one names it.
    folder = resumed or Path(fabric.broadcast(str(new_folder(out, recipe.name, SECTION)) if first else ""))
    name = name or folder.resolve().name  # in the storage; it stays when the folder is renamed
    run = Run(folder / SECTION)
    narrator.say(
        f"{question.strategy}: {question.space}, {question.budget} at {question.image_size} pixels; "
        f"{recipe.card.title}, scale {recipe.scale}, views of {recipe.views.global_.size} pixels, "
        f"{len(source):,} images of {source.name}, in {run}"
    )
    if profile is not None:
        if first and resumed is None:
            if device is None:
                profile = _measured(profile, question, table, deployed, narrator)
            write_profile(run.folder / _PROFILE, profile)
        fabric.barrier()
        device = device_of(load_profile(run.folder / _PROFILE), question.threads)
        narrator.say(f"Latency is predicted for {device.place}: {device.trust}. The profile: {run.folder / _PROFILE}")
        table = _priced(question, device, deployed)
    rank = fabric.global_rank
    task = Task(
        table=table,
        limits=question.limits,
        stock=question.stock,
        seed=recipe.train.seed,
        lab=Laboratory(
            recipe,
            question.searched,
            source,
            supernet_options=question.backbone_options(recipe),
            deployed_options=question.backbone_options(deployed),
            run=run,
            question=question.digest,
            fabric=fabric,
            narrator=narrator,
            may_train=not join,
        ),
        storage=storage or f"sqlite:///{(run.folder / 'candidates.db').resolve()}",
        name=name,
        question=question.digest,
        worker=uuid4().hex if join else f"process {rank}" if rank else _MAIN,
        narrator=narrator,
    )
    asked = {
        "question": asdict(question),
        "data": data,
        "storage": storage,
        "name": name,
        "options": _plain(options),
    }
    if resumed is not None:
        check_same_images(run, source)
    with leading(folder, SECTION) if first else nullcontext():
        if first:
            open_study(task)  # refuses another search's before anything is trained
        if first and resumed is None:
            run.write_start(dump(recipe), describe_environment(data=data, images=len(source)))
            write_json(run.folder / "search.json", {"asked": asked})
        fabric.barrier()
        try:
            found = strategy(task, **options)
        except Stopped:
            narrator.say(f"Stopped. Go on with: lightssl search {'--join' if join else '--resume'} {folder}")
            return None
        return write_results(run, question, asked, table, device, found) if first else None


def _check_latency_is_whole(limits: Mapping[str, float], target: str | Path | None, threads: int | None) -> None:
    if LATENCY in limits and target is None:
        raise ConfigError(
            "A limit of latency is of a device.",
            "Name it: --target predict:raspberry-pi-4, cpu, ssh:HOST, adb, or the YAML file of a profile.",
        )
    if LATENCY not in limits and (target is not None or threads is not None):
        raise ConfigError(
            "--target and --threads say what a limit of latency is of, and there is none.",
            "Give one, such as --latency 20ms, or leave them out.",
        )
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads is {threads}.", "Give 1 or more.")


def _priced(question: Question, device: Device | None, deployed: Recipe) -> CostTable:
    """Make the cost table, and check the limits that it has prices for.

    Raises:
        ConfigError: No candidate fits, or the device's profile does not know their kernels.
    """
    fit = None if device is None else device.fit
    table = CostTable(question.searched, fit=fit, **question.backbone_options(deployed))
    limits = {name: limit for name, limit in question.limits.items() if name in table.names}
    if limits:
        check_budget(table, limits)
    return table


def _measured(profile: Profile, question: Question, table: CostTable, deployed: Recipe, narrator: Narrator) -> Profile:
    """Learn to predict what networks of the space take on a device, by timing some of them there."""
    return measure(
        profile,
        table,
        threads=question.threads,
        build=partial(question.searched.build, **question.backbone_options(deployed)),
        mean=deployed.data.mean,
        std=deployed.data.std,
        generator=np.random.default_rng(deployed.train.seed),
        narrator=narrator,
    )


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int | float) else str(value) for key, value in options.items()}


def pretrain_winner(result: Mapping[str, Any], *, narrator: Narrator | None = None) -> Run:
    """Train the winner of a search in the folder of the search: see :func:`lightssl.pipeline.pretrain`."""
    asked = result["asked"]
    question = Question(**asked["question"])
    return pretrain(
        result["recipe"],
        data=asked["data"],
        scale=question.scale,
        overrides=question.recipe_overrides,
        out=Path(result["recipe"]).parent.parent,
        narrator=narrator,
    )
