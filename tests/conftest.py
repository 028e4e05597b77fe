"""What tests share: a tiny recipe, a folder of images, and the program as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# A training of a few steps that any machine manages in seconds.
TINY = [
    "train.batch_size=8",
    "train.duration=6 steps",
    "train.log_every=1 steps",
    "train.checkpoint_every=2 steps",
    "views.global_size=32",
    "views.local.count=2",
    "backbone.width=0.25",
    "method.hidden=16",
    "method.bottleneck=8",
    "method.prototypes=16",
    "evaluation.image_size=32",
    "data.workers=0",
]


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A labelled folder: two classes of fifteen images that differ in colour and grain."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(15):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``lightssl ARGUMENTS`` as a process of its own, in ``tmp_path``, one thread."""

    def run(*arguments: str, check: bool = True, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "lightssl", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"lightssl {' '.join(arguments)} left with {done.returncode}:\n{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
