"""What a search strategy works with, made from a recipe: see :class:`lightssl.search.task.Lab`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lightssl.backbones.topology import TopologyBackbone
from lightssl.checkpoint import load_checkpoint, load_strictly
from lightssl.config.load import dump
from lightssl.config.schema import Recipe
from lightssl.data.loader import evaluation_loader, pretraining_loader
from lightssl.data.sources import Source, Subset, require_labels
from lightssl.distributed import world_size
from lightssl.errors import DataError, LightSSLError
from lightssl.images import normalise
from lightssl.methods.base import Method
from lightssl.pipeline.building import build_method, worker_count
from lightssl.pipeline.training import checked_method, fit, make_trainer, plan_of, training_batches
from lightssl.progress import Narrator
from lightssl.runs import Run
from lightssl.search.spaces import Candidate, Space
from lightssl.search.supernet import Supernet
from lightssl.search.task import MakeArchitecture, Stopped
from lightssl.train.architecture import halves
from lightssl.train.loop import Passes, Plan
from lightssl.types import Batch, Clock
from lightssl.units import Duration
from lightssl.views.maker import ViewMaker

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_T = TypeVar("_T")
_HELD_OUT, _HELD_OUT_SHARE = 4096, 0.2  # images that training leaves out: so many, or that share of few
_BATCH = 128  # images of an evaluation


class Laboratory:
    """A recipe and its images, as a search uses them.

    Args:
        recipe: Resolved; its backbone is of the space.
        space: What is searched.
        supernet_options: Of the backbone, besides those of the space, as the supernet is trained.
        deployed_options: The same, as networks will be deployed.
        source: All images.
        run: Folder of the supernet's training.
        question: What was asked, kept with the checkpoints.
        fabric: Devices, precision and processes.
        narrator: Told how it goes.
        may_train: False for a worker that joins a search, which takes the supernet as it finds it.
    """

    def __init__(
        self,
        recipe: Recipe,
        space: Space,
        source: Source,
        *,
        supernet_options: Mapping[str, Any],
        deployed_options: Mapping[str, Any],
        run: Run,
        question: str,
        fabric: "Fabric",
        narrator: Narrator,
        may_train: bool = True,
    ) -> None:
        self.device = fabric.device
        self._recipe, self._space, self._source = recipe, space, source
        self._supernet_options, self._deployed_options = supernet_options, deployed_options
        self._run, self._question, self._fabric, self._narrator = run, question, fabric, narrator
        self._may_train = may_train

    @cached_property
    def _parts(self) -> dict[bool, Source]:
        """The images that training sees, and those held out."""
        order = np.random.default_rng(self._recipe.train.seed).permutation(len(self._source))
        count = min(_HELD_OUT, int(_HELD_OUT_SHARE * len(order)))
        if count < 2:
            raise DataError(
                f"{self._source.name} has {len(order)} images: too few to hold any out for a search.", "Use more."
            )
        parts = {False: order[count:], True: order[:count]}  # shuffled: the first images of each are a fair sample
        return {held_out: Subset(self._source, part, self._source.name) for held_out, part in parts.items()}

    def train(
        self, duration: Duration, passes: Passes, architecture: MakeArchitecture | None = None
    ) -> tuple[Method, Clock]:
        """See :meth:`lightssl.search.task.Lab.train`."""
        options = self._recipe.train.model_copy(update={"duration": duration, "probe": False})
        recipe = self._recipe.model_copy(update={"train": options})
        source, other = self._parts[False], None
        if architecture is not None:
            source, other = halves(source, seed=options.seed, batch_size=options.batch_size)
        plan = plan_of(recipe, len(source))
        steps = None
        if architecture is not None and other is not None:
            steps = architecture(plan.clock(0), partial(self._batches, recipe, other, plan))
        kept = {**dump(recipe), "search": self._question}
        path = self._run.checkpoint_path
        checkpoint = load_checkpoint(path, recipe=kept) if path.exists() else None
        if checkpoint is None or checkpoint["step"] < plan.total_steps:
            if not self._may_train:
                raise LightSSLError(
                    f"The supernet in {self._run} is not trained yet.", "Join once the search scores candidates."
                )
            method, _ = checked_method(recipe, plan, source, self.device, self._build_method)
            trainer = make_trainer(
                recipe,
                method,
                plan,
                source,
                fabric=self._fabric,
                run=self._run,
                kept=kept,
                architecture=steps,
                passes=passes,
            )
            if checkpoint is not None:
                trainer.restore(checkpoint)
                self._narrator.say(f"Going on from step {trainer.step:,} of {plan.total_steps:,} of the supernet")
            if not fit(trainer, recipe, source, "Training the supernet", self._narrator):
                raise Stopped
            checkpoint = load_checkpoint(path, recipe=kept)
        _part_processes()
        # Built anew: what was trained may be tied to other processes.
        trained = self._build_method(recipe).to(self.device)
        load_strictly(trained, checkpoint["state"]["method"], path)
        if steps is not None:
            steps.load_state_dict(checkpoint["state"]["architecture"])
        return trained, plan.clock(plan.total_steps - 1)

    def _batches(self, recipe: Recipe, source: Source, plan: Plan, start: int) -> Iterable[Batch]:
        """Return batches for the steps of the architecture, from that of number ``start`` on."""
        return training_batches(recipe, source, plan, self._fabric, start_step=start)

    def _build_method(self, recipe: Recipe) -> Method:
        torch.manual_seed(recipe.train.seed)
        return build_method(recipe, Supernet(self._space, **self._supernet_options))

    def build(self, candidate: Candidate) -> TopologyBackbone:
        """See :meth:`lightssl.search.task.Lab.build`."""
        torch.manual_seed(self._recipe.train.seed)
        return self._space.build(candidate, **self._deployed_options).to(self.device)

    def images(self, count: int, *, held_out: bool, size: int | None = None) -> Iterable[Tensor]:
        """See :meth:`lightssl.search.task.Lab.images`."""
        batches = [images for images, _ in self._evaluated(count, held_out, size or self._recipe.evaluation.image_size)]
        return _Again(lambda: map(self._shown, batches))

    def labels(self, count: int, *, held_out: bool) -> Tensor:
        """See :meth:`lightssl.search.task.Lab.labels`."""
        part = self._parts[held_out]
        require_labels(part, "a score by labels")
        positions = [of_batch for _, of_batch in self._evaluated(count, held_out, self._recipe.evaluation.image_size)]
        return torch.from_numpy(np.asarray(part.labels, dtype=np.int64))[torch.cat(positions)]

    def views(self, count: int) -> Iterable[list[Tensor]]:
        """See :meth:`lightssl.search.task.Lab.views`."""
        source, recipe = self._parts[True], self._recipe
        batch = min(recipe.train.batch_size, len(source))
        loader = pretraining_loader(
            source,
            ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed),
            batch_size=batch,
            seed=recipe.train.seed,
            start_step=0,
            total_steps=max(1, min(count, len(source)) // batch),
            workers=worker_count(recipe),
        )
        batches = [[group.clone() for group in made.views] for made in loader]
        return _Again(lambda: ([self._shown(group) for group in groups] for groups in batches))

    def _evaluated(self, count: int, held_out: bool, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [B, S, S, 3], and their positions, int64 [B]."""
        part = self._parts[held_out]
        loader = evaluation_loader(
            Subset(part, np.arange(min(count, len(part))), part.name),
            size=size,
            crop_share=self._recipe.evaluation.crop_share,
            batch_size=_BATCH,
            workers=worker_count(self._recipe),
        )
        return ((images, positions) for images, positions in loader if len(images) > 1)

    def _shown(self, images: Tensor) -> Tensor:
        return normalise(images.to(self.device), self._recipe.data.mean, self._recipe.data.std)


class _Again(Generic[_T]):
    """Batches that can be gone through more than once: in between they stay bytes, a quarter of what they become."""

    def __init__(self, begin: Callable[[], Iterator[_T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[_T]:
        return self._begin()


def _part_processes() -> None:
    """Let processes that trained together go on by themselves, each a worker on the same storage."""
    if world_size() > 1:
        dist.destroy_process_group()
