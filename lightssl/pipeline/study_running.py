"""``study run``: every network of a grid pre-trained, and evaluated in every scenario."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightssl.data.sources import located, open_source, open_splits
from lightssl.errors import ConfigError, DataError
from lightssl.evaluation import EVALUATIONS
from lightssl.pipeline.asked import new_folder, read_asked
from lightssl.pipeline.building import SAMPLE
from lightssl.pipeline.study_question import SECTION, StudyQuestion, Training, directory_of, recipe_of_method
from lightssl.pipeline.studying import RECIPE, choose_members
from lightssl.pipeline.suite import check_suite
from lightssl.progress import Narrator, Silent
from lightssl.units import parse_hours

TASKS = ("linear_cv",)


def run_study(
    grid: str,
    *,
    recipes: Sequence[str] = (),
    methods: Sequence[str] = (),
    train: str = SAMPLE,
    downstream: Sequence[str] = (SAMPLE,),
    tasks: Sequence[str] = TASKS,
    seeds: Sequence[int] = (0,),
    image_size: int = 224,
    where: Sequence[str] = (),
    limit: int | None = None,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    storage: str | None = None,
    time_budget: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Pre-train every member of a grid without labels, and evaluate each in every scenario.

    Each network is a job that one worker does in a process of its own: what happens to one, a loss that is not finite
    or no memory left, is written down and the study goes on. Any number of workers can share the jobs, and take up
    those of a worker that was killed where it was: see :func:`resume_study`.

    Args:
        grid: A name in :data:`lightssl.study.GRIDS`, or a YAML file: see :func:`lightssl.config.grids.load_grid`.
        recipes: How members are trained, each with all of them: names of shipped recipes, or paths of YAML files. Their
            backbone is replaced.
        methods: The same, by the name of a method, such as ``rotation``: the recipe that is shipped for it. By default
            SimCLR, as in One Network Doesn't Rule Them All (arXiv 2203.08130).
        train: Images to pre-train on, as for :func:`lightssl.pipeline.pretrain`.
        downstream: The scenarios, labelled images, as for :func:`lightssl.pipeline.evaluate`.
        tasks: How networks are judged there, as for :func:`lightssl.pipeline.evaluate_suite`; the first counts for
            rankings.
        seeds: Every member is trained with all of them.
        image_size: As for :func:`study_grid`.
        where: As for :func:`study_grid`.
        limit: As for :func:`study_grid`.
        scale: As for :func:`lightssl.pipeline.pretrain`.
        overrides: Texts like ``train.duration='20k examples'``, for all recipes.
        out: Folder of the study; results are in its folder ``study``. By default one below ``runs/``.
        storage: URL of a database that the jobs are kept in; by default a file in the folder.
        time_budget: Stop after so long, such as ``8h``, to be gone on with.
        narrator: Told how it goes.

    Returns:
        What :func:`study_report` does of the finished study; None if it was stopped.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    from lightssl.pipeline.study_work import StudyWork  # brings Optuna

    narrator = narrator or Silent()
    deadline = _deadline(time_budget)
    question = _question(
        grid=grid,
        recipes=[*recipes, *map(recipe_of_method, methods)] or [RECIPE],
        train=train,
        downstream=downstream,
        tasks=tasks,
        seeds=seeds,
        image_size=image_size,
        where=where,
        limit=limit,
        scale=scale,
        overrides=overrides,
        narrator=narrator,
    )
    folder = new_folder(out, Path(grid).stem, SECTION)
    study = StudyWork(
        question,
        folder,
        train=train,
        directory=Path.cwd(),
        storage=storage,
        name=folder.resolve().name,
        narrator=narrator,
    )
    study.start(where=list(where), limit=limit)
    return study.work(deadline=deadline)


def resume_study(
    folder: Path | str,
    *,
    train: str | None = None,
    join: bool = False,
    retry: bool = False,
    time_budget: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Go on with a study that was stopped, or help one that is under way.

    Args:
        folder: Of the study.
        train: Where the images to pre-train on are now, if they have moved.
        join: Work as one more worker, beside the process that runs the study.
        retry: Have what failed tried again: networks that failed, and scenarios that could not be measured.
        time_budget: As for :func:`run_study`.
        narrator: Told how it goes.

    Returns:
        As :func:`run_study`; None for a worker that joined.

    Raises:
        LightSSLError: The folder holds no study, or another process leads it.
        DataError: The images to pre-train on are not there, or no scenario is; or, of a worker that joins, one is not.
    """
    from lightssl.pipeline.study_work import StudyWork  # brings Optuna

    deadline = _deadline(time_budget)
    question, asked = read_asked(folder, SECTION, StudyQuestion)
    narrator = narrator or Silent()
    directory = directory_of(asked)
    train = located(train, Path.cwd()) if train is not None else asked["train"]
    _check_images(train, question.downstream, directory, join, narrator)
    study = StudyWork(
        question,
        Path(folder),
        train=train,
        directory=directory,
        storage=asked["storage"],
        name=asked.get("name") or Path(folder).resolve().name,
        narrator=narrator,
    )
    return study.work(join=join, retry=retry, deadline=deadline)


def _check_images(train: str, downstream: Sequence[str], directory: Path, join: bool, narrator: Narrator) -> None:
    """Refuse to take a job whose images are not here: it would count as done, without a result."""
    where = f"The study was started in {directory}, and paths are of it."
    try:
        open_source(located(train, directory), split="train")
    except DataError as error:
        raise DataError(error.message, f"{where} If the images have moved, name them with --train.") from error
    missing = []
    for spec in downstream:
        try:
            open_splits(located(spec, directory))
        except DataError as error:
            if join:
                raise DataError(error.message, f"{where} A worker that joins needs the images of all.") from error
            missing.append(spec)
            narrator.say(f"Left out: {error}")
    if len(missing) == len(downstream):
        raise DataError("No scenario of the study is there any more.", where)


def _deadline(time_budget: str | None) -> float:
    """Return when to stop, by the monotonic clock."""
    return time.monotonic() + 3600 * parse_hours(time_budget) if time_budget is not None else math.inf


def _question(
    *,
    grid: str,
    recipes: Sequence[str],
    train: str,
    downstream: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int],
    image_size: int,
    where: Sequence[str],
    limit: int | None,
    scale: str | None,
    overrides: Sequence[str],
    narrator: Narrator,
) -> StudyQuestion:
    """Put the question together, and refuse what cannot be done before anything is.

    Raises:
        ConfigError: The grid, a recipe, a task or the seeds cannot be used.
        DataError: Images are not there, or have no labels.
    """
    for name in tasks:
        EVALUATIONS[name]
    check_suite(SECTION, downstream, tasks)
    if not all(spec.strip() for spec in [train, *downstream]):
        raise ConfigError("A source of images has no name.", "Give them like --downstream photos/,sample")
    places = {located(spec, Path.cwd()): spec for spec in reversed(downstream)}
    scenarios = [places[located(spec, Path.cwd())] for spec in downstream]  # one name for each place
    for what, given in {"recipe": recipes, "scenario": scenarios, "task": tasks, "seed": seeds}.items():
        twice = [one for one in dict.fromkeys(given) if list(given).count(one) > 1]
        if twice:
            raise ConfigError(f"The {what} {twice[0]} is there twice.", "Give each once.")
    if not seeds or min(seeds) < 0:
        raise ConfigError("A study needs seeds of 0 or more.", "Give them like --seeds 0,1")
    open_source(train, split="train")
    for spec in downstream:
        open_splits(spec)
    chosen = choose_members(grid, image_size, where, limit, narrator)
    trainings = [Training.of(recipe, data=train, scale=scale, overrides=overrides) for recipe in recipes]
    names = [training.recipe for training in trainings]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two recipes have one name: {', '.join(names)}.", "Name their files differently.")
    problems = []
    for training in trainings:
        for member, _ in chosen:
            try:
                training.recipe_of(member)
            except ConfigError as error:
                problems.append(f"{member.name}, {training.recipe}: {' '.join(str(error).splitlines())}")
    if problems:
        raise ConfigError("Some networks cannot be trained so:", None, problems)
    return StudyQuestion(
        grid=grid,
        members=[
            {"name": member.name, "backbone": member.backbone, "options": dict(member.options), **cost._asdict()}
            for member, cost in chosen
        ],
        image_size=image_size,
        trainings=[asdict(training) for training in trainings],
        downstream=list(downstream),
        tasks=list(tasks),
        seeds=list(seeds),
    )
