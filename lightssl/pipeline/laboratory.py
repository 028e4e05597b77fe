"""What a search strategy works with, made from a recipe: see :class:`lightssl.search.task.Lab`."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from lightssl.backbones.topology import TopologyBackbone
from lightssl.checkpoint import load_checkpoint, load_strictly
from lightssl.config.load import dump
from lightssl.config.schema import Recipe
from lightssl.data.sources import Source
from lightssl.distributed import world_size
from lightssl.errors import LightSSLError
from lightssl.methods.base import Method
from lightssl.pipeline.building import build_method
from lightssl.pipeline.split_images import SplitImages
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

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Laboratory(SplitImages):
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
        super().__init__(recipe, source, fabric.device)
        self._space = space
        self._supernet_options, self._deployed_options = supernet_options, deployed_options
        self._run, self._question, self._fabric, self._narrator = run, question, fabric, narrator
        self._may_train = may_train

    def train(
        self, duration: Duration, passes: Passes, architecture: MakeArchitecture | None = None
    ) -> tuple[Method, Clock]:
        """See :meth:`lightssl.search.task.Lab.train`."""
        options = self._recipe.train.model_copy(update={"duration": duration, "probe": False})
        recipe = self._recipe.model_copy(update={"train": options})
        source, other = self.part(held_out=False), None
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


def _part_processes() -> None:
    """Let processes that trained together go on by themselves, each a worker on the same storage."""
    if world_size() > 1:
        dist.destroy_process_group()
