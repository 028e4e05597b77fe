"""Trainings of one thread each, which go on where they were stopped."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lightssl.runs import Run


def train(recipe: str, *, data: str, folder: Path, seed: int, settings: Sequence[str]) -> Run:
    """Train at the quick scale to the end, from wherever the run in ``folder`` stands."""
    run = Run(folder)
    if not run.checkpoint_path.exists():
        overrides = [argument for setting in settings for argument in ("--set", setting)]
        where = ["--data", data, "--out", str(run), "--seed", str(seed)]
        lightssl("pretrain", "--recipe", recipe, "--scale", "quick", *where, *overrides)
    elif not run.weights_path.exists():
        lightssl("pretrain", "--resume", str(run))
    return run


def lightssl(*arguments: str) -> None:
    """Run the program with one thread; its progress goes to the terminal."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lightssl", *arguments], env=env, check=True, stdout=subprocess.DEVNULL)
