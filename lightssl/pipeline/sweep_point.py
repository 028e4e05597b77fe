"""The points of a sweep, trained and scored."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import batch_norm_layers, in_eval_mode
from lightssl.checkpoint import load_checkpoint, load_strictly, save_network
from lightssl.collapse import effective_rank
from lightssl.config.load import dump
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source
from lightssl.errors import DataError, TrainingError
from lightssl.evaluation.features import Features
from lightssl.evaluation.knn import knn_accuracy
from lightssl.files import read_json_lines, write_json
from lightssl.methods.base import Method
from lightssl.pipeline.building import (
    build_method,
    describe_environment,
    describe_network,
    estimate_batch_norm_on,
    standalone_backbone,
)
from lightssl.pipeline.extracting import features_of_images, features_of_splits
from lightssl.pipeline.split_images import SplitImages
from lightssl.pipeline.sweep_question import SweepQuestion, run_name
from lightssl.pipeline.training import checked_method, fit, make_trainer, pace, plan_of
from lightssl.progress import Narrator
from lightssl.runs import Run
from lightssl.search.points import Report
from lightssl.search.sweep import Point
from lightssl.search.task import Stopped

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PARTS = 4  # of a training, after each of which it may be given up
_NEIGHBOURS = 20
_GALLERY = 8192  # training images that held-out ones are compared with
_VIEWED = 1024  # held-out images that the loss is measured on: their views stay in memory
_PREFIX = "held_out_"  # of scores in the log of a run


class Judge:
    """Scores networks on images that no point trains on; all alike, whatever views they were trained with.

    - ``knn``: percentage of held-out images that the labels of training images name right; where there are labels.
    - ``rank``: effective rank of their features: see :func:`lightssl.collapse.effective_rank`.
    - ``loss``: the method's own loss, at the end of its schedules, in held-out views of the recipe's own plan with its
      own weights of global and local terms; batch norm uses the statistics of each batch.

    Args:
        recipe: With its own plan.
        images: Split.
        labelled: Whether there are labels.
    """

    def __init__(self, recipe: Recipe, images: SplitImages, *, labelled: bool) -> None:
        self._recipe, self._images, self._labelled = recipe, images, labelled
        plan = plan_of(recipe, len(images.part(held_out=False)))
        self._clock = plan.clock(plan.total_steps - 1)

    def network(self, method: Method, recipe: Recipe) -> Backbone:
        """Return the trained backbone of a point as it is evaluated: with batch norm as the recipe wants it."""
        network = standalone_backbone(method.encoder, recipe)
        if recipe.train.estimate_batch_norm:
            estimate_batch_norm_on(network, self._images.part(held_out=False), recipe)
        return network

    def __call__(self, method: Method, recipe: Recipe) -> dict[str, float]:
        """Score the method of a point as it stands, and leave it as it is."""
        found = {"loss": self._loss(method)}
        network, held_out = self.network(method, recipe), self._images.part(held_out=True)
        if self._labelled:
            features = features_of_splits(network, self._images.part(_GALLERY, held_out=False), held_out, recipe)
            return {**found, "rank": effective_rank(features.test), "knn": _knn(features)}
        return {**found, "rank": effective_rank(features_of_images(network, held_out, recipe)[0])}

    @cached_property
    def _views(self) -> Iterable[list[Tensor]]:
        return self._images.views(_VIEWED)

    @torch.no_grad()
    def _loss(self, method: Method) -> float:
        # A copy: batch norm is about to see other images. Its weights of terms are those of the recipe's own plan.
        copy = build_method(self._recipe).to(self._images.device)
        load_strictly(copy, method.state_dict(), "the trained method")
        with in_eval_mode(copy):
            for layer in batch_norm_layers(copy):
                layer.train()
            losses = [copy.step(views, self._clock).loss for views in self._views]
        return float(torch.stack(losses).mean())


def _knn(features: Features) -> float:
    return float(knn_accuracy(features, k=min(_NEIGHBOURS, len(features.train)))["top1"])


def check_labels(images: SplitImages) -> None:
    """Refuse labels that held-out images could not be named by.

    Raises:
        DataError: A class is held out as a whole.
    """
    gallery, held_out = images.part(_GALLERY, held_out=False), images.part(held_out=True)
    seen = set(gallery.labels.tolist()) if gallery.labels is not None else set()
    unseen = sorted(set(held_out.labels.tolist()) - seen) if held_out.labels is not None else []
    if unseen:
        names = ", ".join(repr((held_out.classes or [])[label]) for label in unseen[:5])
        raise DataError(
            f"All images of {names} are held out, and none is left to know the class by.",
            "Use more images of each class, or --score rank, which needs no labels.",
        )


class PointTraining:
    """Trains the points of a sweep and scores them, each from where it stands.

    Args:
        question: What the sweep is asked.
        images: Split.
        judge: Scores.
        data: Where the images come from, to be written down.
        fabric: Devices and precision.
        run_of: Folder of the run of that name.
        narrator: Told how it goes.
    """

    def __init__(
        self,
        question: SweepQuestion,
        images: SplitImages,
        judge: Judge,
        *,
        data: str,
        fabric: "Fabric",
        run_of: Callable[[str], Run],
        narrator: Narrator,
    ) -> None:
        self._question, self._judge, self._data = question, judge, data
        self._fabric, self._run_of, self._narrator = fabric, run_of, narrator
        self._source: Source = images.part(held_out=False)

    def __call__(self, point: Point, title: str, report: Report) -> list[dict[str, Any]]:
        """See :data:`lightssl.search.points.Measure`."""
        return [
            # Seeds follow each other, so that parts of the training of one are counted after those of the last.
            self.train(point, seed, title, partial(_later, report, PARTS * number) if self._question.pruning else None)
            for number, seed in enumerate(self._question.all_seeds)
        ]

    def train(self, point: Point, seed: int, title: str, report: Report | None = None) -> dict[str, Any]:
        """Train a point with a seed, or go on with it, or return what was found of it.

        Returns:
            ``point``, ``seed``, ``score``, all ``scores`` by name, ``steps``, ``images_per_s`` and ``minutes``.

        Raises:
            TrainingError: It cannot be trained.
            Stopped: The user stopped it.
            Pruned: The report said so.
        """
        name = run_name(point, seed)
        run, recipe = self._run_of(name), self._question.recipe_of(point, seed, images=len(self._source))
        kept = {**dump(recipe), "sweep": self._question.digest}
        result_path = run.folder / "score.json"
        if result_path.exists():
            found: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
            return found
        checkpoint = load_checkpoint(run.checkpoint_path, recipe=kept) if run.checkpoint_path.exists() else None
        plan = plan_of(recipe, len(self._source))
        plan.monitor_every = part = ceil(plan.total_steps / PARTS) if report is not None else plan.total_steps
        method, _ = checked_method(recipe, plan, self._source, self._fabric.device)

        def monitor(_encoder: nn.Module) -> Mapping[str, float]:
            scores = self._judge(method, recipe)
            if report is not None:
                report(self._score(scores), PARTS if trainer.step == plan.total_steps else trainer.step // part)
            return {f"{_PREFIX}{key}": value for key, value in scores.items()}

        trainer = make_trainer(
            recipe, method, plan, self._source, fabric=self._fabric, run=run, kept=kept, monitor=monitor
        )
        if checkpoint is not None:
            trainer.restore(checkpoint)
        else:
            run.write_start(
                dump(recipe), describe_environment(data=self._data, images=len(self._source), sweep_point=name)
            )
        if not fit(trainer, recipe, self._source, f"{title}, seed {seed}", self._narrator):
            raise Stopped
        rows = read_json_lines(run.metrics_path)
        scores = {key.removeprefix(_PREFIX): value for key, value in rows[-1].items() if key.startswith(_PREFIX)}
        backbone = self._judge.network(method, recipe)
        save_network(run.weights_path, backbone, describe_network(recipe, backbone))
        result = {
            "point": point.name,
            "seed": seed,
            "score": self._score(scores),
            "scores": scores,
            "steps": plan.total_steps,
            **pace(rows, plan.batch_size),
        }
        write_json(result_path, result)
        return result

    def _score(self, scores: Mapping[str, float]) -> float:
        """Return what points are compared by: higher is better."""
        score = self._question.score
        value = -scores[score] if score == "loss" else scores[score]
        if not isfinite(value):
            raise TrainingError(f"The {score} of held-out images is {value}.", "Lower the learning rate.")
        return value


def _later(report: Report, before: int, score: float, step: int) -> None:
    report(score, before + step)
