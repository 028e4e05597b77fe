"""What a step of a training takes, measured on a few of them in a fresh process, which runs this module."""

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from lightssl.config.load import dump, validate
from lightssl.config.schema import Recipe
from lightssl.data.sources import open_source
from lightssl.machine import peak_memory_gib
from lightssl.pipeline.apart import answer, ask
from lightssl.pipeline.training import checked_method, make_trainer, plan_of, training_batches
from lightssl.progress import Narrator
from lightssl.runs import Run
from lightssl.train.host import prepare_host
from lightssl.types import Clock

WARM_UP, TIMED = 2, 6  # steps


class StepTiming(NamedTuple):
    """What was measured."""

    seconds: float  # of a step, on average, with the wait for its views
    memory_gib: float | None  # peak of the training process, without those that make views; None if unknown
    device_memory_gib: float | None  # peak of what tensors took on the GPU; None without one


def time_steps(recipe: Recipe, data: str) -> StepTiming:
    """Train as a recipe says, for a few steps in a process of its own whose memory nothing else has touched.

    The training has to be longer than ``WARM_UP`` steps.

    Raises:
        LightSSLError: The recipe cannot be trained on these images and this machine.
    """
    return StepTiming(**ask("lightssl.pipeline.step_timing", {"recipe": dump(recipe), "data": data}))


def _measure(asked: dict[str, Any], _narrator: Narrator) -> dict[str, Any]:
    from lightssl.train.fabric import make_fabric  # takes seconds to import

    prepare_host()
    recipe, data = validate(asked["recipe"], origin="The recipe"), asked["data"]
    source = open_source(data, split="train")
    fabric = make_fabric(recipe.train.precision)
    plan = plan_of(recipe, len(source))
    # Each step is logged, which waits for it; nothing else is done between steps.
    plan = replace(plan, log_every=1, checkpoint_every=plan.total_steps + 1, monitor_every=None, keep_every=None)
    method, labels = checked_method(recipe, plan, source, fabric.device)
    ends: list[float] = []

    def note(clock: Clock, row: Mapping[str, float]) -> None:
        ends.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        trainer = make_trainer(recipe, method, plan, source, fabric=fabric, run=Run(Path(folder)), labels=labels)
        batches = training_batches(recipe, source, plan, fabric, start_step=0)
        trainer.fit(islice(batches, WARM_UP + TIMED), note)
    return StepTiming(
        seconds=(ends[-1] - ends[WARM_UP - 1]) / (len(ends) - WARM_UP),
        memory_gib=peak_memory_gib(),
        device_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if fabric.device.type == "cuda" else None,
    )._asdict()


if __name__ == "__main__":
    answer(_measure)
