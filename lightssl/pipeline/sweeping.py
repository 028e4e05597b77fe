"""``views sweep``: which views a network learns from best, measured on one's own images."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lightssl.config.load import compose, dump
from lightssl.data.sources import Source, open_source, require_labels
from lightssl.errors import ConfigError
from lightssl.files import make_folder, write_json
from lightssl.pipeline.asked import leading, new_folder, read_asked
from lightssl.pipeline.building import SAMPLE, describe_environment
from lightssl.pipeline.split_images import SplitImages
from lightssl.pipeline.sweep_question import SweepQuestion, run_name
from lightssl.pipeline.training import check_same_images, checked_method, default_scale, plan_of
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.search.sweep import Design, parse_axes
from lightssl.search.task import Stopped
from lightssl.train.host import prepare_host

if TYPE_CHECKING:
    from lightssl.pipeline.sweep_point import PointTraining
    from lightssl.search.jobs import Place

SECTION = "sweep"  # folder of a run: what the sweep leaves behind
_MAIN = "main"  # the worker that plans the points and writes the results


def sweep_views(
    recipe: str = "mobilenetv2_dino",
    *,
    axes: Sequence[str],
    data: str = SAMPLE,
    design: Design = "factor",
    trials: int = 20,
    score: str | None = None,
    seeds: Sequence[int] = (),
    equal_cost: bool = False,
    pruning: bool | None = None,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    storage: str | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any] | None:
    """Pre-train with different views, alike in everything else, and find which suit the network and the images.

    A part of the images is held out, the same for all points; scores are of those.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file; its plan is where the sweep starts from.
        axes: Texts like ``boundary=0.14,0.2,0.3``: see :data:`lightssl.search.sweep.AXES`.
        data: As for :func:`lightssl.pipeline.pretrain`.
        design: ``factor``: one axis at a time. ``grid``: all combinations. ``guided``: combinations that Optuna's TPE
            proposes. All measure the recipe's own plan as well.
        trials: How many points a guided sweep measures.
        score: ``knn``, ``rank`` or ``loss``; by default ``knn`` where images are labelled, else ``rank``.
        seeds: Each point is trained with all of them; by default with that of the recipe.
        equal_cost: Give every point as many steps as cost as many FLOPs over all views, instead of as many steps.
        pruning: Give points up early by successive halving; by default all but in a factor design.
        scale: As for :func:`lightssl.pipeline.pretrain`.
        overrides: Texts like ``train.duration='20k examples'`` for the recipe: how long each point is trained.
        out: Folder of the run; results are in its folder ``sweep``. By default one below ``runs/``.
        storage: URL of a database that results are kept in; by default a file in the folder.
        narrator: Told how it goes.

    Returns:
        What was also written to ``sweep/sweep.json``: what was ``asked``, all ``points``, the ``effects`` of each axis,
        what is ``recommended`` and the ``verdict``. None if the sweep was stopped.

    Raises:
        LightSSLError: Something the user can mend: see :mod:`lightssl.errors`.
    """
    composed = compose(recipe)
    parsed = parse_axes(axes)
    source = None
    if score is None:
        source = open_source(data, split="train")
        score = "knn" if source.classes is not None and len(source.classes) > 1 else "rank"
    question = SweepQuestion(
        recipe=Path(recipe).stem,
        composed=composed,
        scale=scale or composed.get("scale") or default_scale(data),
        overrides=list(overrides),
        axes=parsed,
        design=design,
        trials=trials,
        score=score,
        seeds=list(seeds),
        equal_cost=equal_cost,
        pruning=design != "factor" if pruning is None else pruning,
    )
    question.check()
    folder = new_folder(out, question.recipe, SECTION)
    sweep = _Sweep(question, data, storage, folder.resolve().name, narrator or Silent(), source=source)
    return sweep.start(folder)


def resume_sweep(
    run: Path | str, *, data: str | None = None, join: bool = False, narrator: Narrator | None = None
) -> dict[str, Any] | None:
    """Go on with a sweep that was stopped, or help one that is under way.

    Args:
        run: Its folder.
        data: Where the images are now, if they have moved.
        join: Measure points as one more worker, beside the process that does the sweep.
        narrator: Told how it goes.

    Returns:
        As :func:`sweep_views`; None for a worker that joined.

    Raises:
        LightSSLError: The folder holds no sweep, a checkpoint is damaged, or its images have changed.
    """
    sweep = _found(run, data, narrator)
    return sweep.measure(Path(run), join=join)


def repeat_point(
    run: Path | str, name: str, *, data: str | None = None, narrator: Narrator | None = None
) -> dict[str, Any] | None:
    """Train and score one point of a sweep again, alone and from the start, in ``sweep/again`` of the folder.

    Args:
        run: Folder of the sweep.
        name: Of the point and the seed: ``boundary-0.2-seed0``.
        data: Where the images are now, if they have moved.
        narrator: Told how it goes.

    Returns:
        What :meth:`lightssl.pipeline.sweep_point.PointTraining.train` does, and ``before``: the score that the sweep
        has, or None if it has none. None if it was stopped.

    Raises:
        LightSSLError: The folder holds no sweep, or there is no such point.
    """
    return _found(run, data, narrator).repeat(Path(run), name)


def _found(run: Path | str, data: str | None, narrator: Narrator | None) -> "_Sweep":
    question, asked = read_asked(run, SECTION, SweepQuestion)
    name = asked.get("name") or Path(run).resolve().name
    return _Sweep(question, data or asked["data"], asked["storage"], name, narrator or Silent())


class _Sweep:
    """A sweep on its images, ready to be gone on with."""

    def __init__(
        self,
        question: SweepQuestion,
        data: str,
        storage: str | None,
        name: str,  # in the storage; it stays when the folder is renamed
        narrator: Narrator,
        *,
        source: Source | None = None,
    ) -> None:
        from lightssl.pipeline.sweep_point import Judge, check_labels
        from lightssl.train.fabric import make_fabric  # takes seconds to import

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "A sweep trains each of its points in one process.", "Start it without torchrun, and add --join RUN."
            )
        prepare_host()
        self.question, self.data, self.storage, self.name, self.narrator = question, data, storage, name, narrator
        self.source = source or open_source(data, split="train")
        if question.score == "knn":
            require_labels(self.source, "a score by labels")
        own = question.own
        self.fabric = make_fabric(own.train.precision)
        self.images = SplitImages(own, self.source, self.fabric.device)
        trained = self.images.part(held_out=False)
        checked_method(own, plan_of(own, len(trained)), trained, self.fabric.device)
        if question.score == "knn":
            check_labels(self.images)
        self.judge = Judge(own, self.images, labelled=question.score == "knn")

    @property
    def asked(self) -> dict[str, Any]:
        return {"question": asdict(self.question), "data": self.data, "storage": self.storage, "name": self.name}

    def start(self, folder: Path) -> dict[str, Any] | None:
        """Begin in a folder, and measure to the end."""
        from lightssl.search.points import open_sweep

        run = Run(make_folder(folder / SECTION))
        open_sweep(self._place(folder, join=False), pruning=self.question.pruning)  # refuses another sweep's
        run.write_start(dump(self.question.own), describe_environment(data=self.data, images=len(self.source)))
        write_json(run.folder / "sweep.json", {"asked": self.asked})
        return self.measure(folder, join=False)

    def measure(self, folder: Path, *, join: bool) -> dict[str, Any] | None:
        """Measure points until none is left; then write the results, unless another process does."""
        from lightssl.pipeline.sweep_results import write_results
        from lightssl.search.points import measure_points

        question, run = self.question, Run(folder / SECTION)
        check_same_images(run, self.source)
        count = len(question.schedule.points) or question.trials
        trained = len(self.images.part(held_out=False))
        self.narrator.say(
            f"{question.own.card.title}, scale {question.scale}: {count} points of {len(question.all_seeds)} "
            f"trainings on {trained:,} of {len(self.source):,} images of {self.source.name}, in {run}"
        )
        self.narrator.say(f"Own views: {question.own.views.describe()}. Score: {question.score} of held-out images")
        with nullcontext() if join else leading(folder, SECTION):
            try:
                measured = measure_points(
                    self._place(folder, join=join),
                    question.schedule,
                    self._training(lambda name: Run(run.folder / "points" / name)),
                    self.narrator,
                )
            except Stopped:
                how = "--join" if join else "--resume"
                self.narrator.say(f"Stopped. Go on with: lightssl views sweep {how} {folder}")
                return None
            return None if join else write_results(run, question, self.asked, measured, str(folder))

    def repeat(self, folder: Path, name: str) -> dict[str, Any] | None:
        """Measure one point anew."""
        from lightssl.search.points import measured_points, open_sweep

        check_same_images(Run(folder / SECTION), self.source)
        measured = measured_points(open_sweep(self._place(folder, join=True), pruning=self.question.pruning))
        point, seed = self.question.find(name, [one.point for one in measured])
        scores = {run_name(one.point, result["seed"]): result["score"] for one in measured for result in one.results}
        run = Run(folder / SECTION / "again" / name)
        if run.folder.exists():
            shutil.rmtree(run.folder)
        try:
            found = self._training(lambda _: run).train(point, seed, name)
        except Stopped:
            return None
        return {**found, "before": scores.get(name)}

    def _training(self, run_of: Callable[[str], Run]) -> "PointTraining":
        from lightssl.pipeline.sweep_point import PointTraining

        return PointTraining(
            self.question,
            self.images,
            self.judge,
            data=self.data,
            fabric=self.fabric,
            run_of=run_of,
            narrator=self.narrator,
        )

    def _place(self, folder: Path, *, join: bool) -> "Place":
        from lightssl.search.jobs import Place

        return Place(
            storage=self.storage or f"sqlite:///{(folder / SECTION / 'points.db').resolve()}",
            name=self.name,
            question=self.question.digest,
            worker=uuid4().hex if join else _MAIN,
            leads=not join,
        )
