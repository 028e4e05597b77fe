"""What tests share: a tiny recipe, a folder of images, and the program as a real process."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.processes import Forks

if TYPE_CHECKING:
    from torch import Tensor

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# A training of a few steps that any machine manages in seconds.
_SHORT = [
    "train.batch_size=8",
    "train.duration=6 steps",
    "train.log_every=1 steps",
    "train.checkpoint_every=2 steps",
    "data.workers=0",
]
_SMALL_VIEWS = ["views.global_size=32", "views.local.count=2", "evaluation.image_size=32"]
_SMALL_PARTS = {
    "mobilenetv2": ["backbone.width=0.25"],
    "vit": ["backbone.patch=4", "backbone.image_size=32"],
    "dino": ["method.hidden=16", "method.bottleneck=8", "method.prototypes=16"],
    "swav": ["method.hidden=16", "method.bottleneck=8", "method.prototypes=16", "method.queue=16"],
    "mocov2": ["method.hidden=16", "method.bottleneck=8", "method.queue=16"],
    "simsiam": ["method.width=16", "method.predictor_hidden=8"],
    "simclr": ["method.hidden=16", "method.bottleneck=8"],
    "exemplar": ["method.width=8", "views.global.count=3"],
    "patch": ["method.width=8", "method.hidden=16", "method.patch=9"],
    "jigsaw": ["method.width=8", "method.hidden=16", "method.patch=9", "method.orders=10"],
}


def tiny_settings(recipe: str) -> list[str]:
    """Overrides that make a shipped recipe tiny, found by the parts that its name is made of."""
    parts = [settings for part, settings in _SMALL_PARTS.items() if part in recipe.split("_")]
    return [*_SHORT, *_SMALL_VIEWS, *(setting for settings in parts for setting in settings)]


@pytest.fixture
def tiny() -> list[str]:
    """Overrides that make ``mobilenetv2_dino`` tiny."""
    return tiny_settings("mobilenetv2_dino")


@pytest.fixture
def make_tiny() -> Callable[[str], list[str]]:
    """:func:`tiny_settings`, for tests of other recipes."""
    return tiny_settings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A labelled folder: two classes of fifteen images that differ in colour and grain."""
    return write_photos(tmp_path / "photos")


def write_photos(folder: Path) -> Path:
    """Write the images of :func:`photos`, and return the folder."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(15):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A COCO folder of 20 training and 6 test images of 64 x 48 px, each with one or two coloured rectangles."""
    folder = tmp_path / "coco"
    for split, count in (("train", 20), ("val", 6)):
        write_coco(folder, split, count)
    return folder


def write_coco(folder: Path, split: str, count: int) -> None:
    """Write images with a red rectangle on the left, and in every other one a blue one on the right."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(len(split))
    images, annotations = [], []
    for number in range(count):
        pixels = rng.integers(90, 160, (48, 64, 3), dtype=np.uint8)
        for category, colour in enumerate([(220, 20, 20), (20, 20, 220)][: 1 + number % 2], start=1):
            width, height = (int(side) for side in rng.integers(14, 24, 2))
            left, top = int(rng.integers(0, 32 - width)) + 32 * (category - 1), int(rng.integers(0, 48 - height))
            right, bottom = left + width, top + height
            pixels[top:bottom, left:right] = colour
            corners = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 10,
                    "category_id": category * 3,  # ids of COCO have gaps
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        Image.fromarray(pixels).save(folder / split / f"{number}.png")
        images.append({"id": number + 10, "file_name": f"{number}.png", "width": 64, "height": 48})
    categories = [{"id": 3, "name": "red"}, {"id": 6, "name": "blue"}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts the program without its imports, which take longer than most of what it is asked for."""
    forks = Forks()
    yield forks
    forks.end()


@pytest.fixture
def program(tmp_path: Path, forks: Forks) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``lightssl ARGUMENTS`` as a process of its own, in ``tmp_path``, one thread."""

    def run(*arguments: str, check: bool = True, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        done = forks.run(arguments, tmp_path, timeout, **env)
        if check and done.returncode:
            raise AssertionError(f"lightssl {' '.join(arguments)} left with {done.returncode}:\n{done.stderr}")
        return done

    return run


@pytest.fixture
def agrees() -> "Callable[..., None]":
    """Hold a float32 function of tensors against its reference in float64: the value and every gradient, to 1e-5.

    Gradients are compared relative to their largest entry.
    """
    import torch

    def compare(ours: "Callable[..., Tensor]", reference: "Callable[..., Tensor]", *inputs: "Tensor") -> None:
        narrow = [value.detach().float().requires_grad_() for value in inputs]
        wide = [value.detach().double().requires_grad_() for value in narrow]
        found, exact = ours(*narrow), reference(*wide)
        assert found.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-6)
        gradients, exact_gradients = torch.autograd.grad(found, narrow), torch.autograd.grad(exact, wide)
        for gradient, exact_gradient in zip(gradients, exact_gradients, strict=True):
            assert exact_gradient.abs().max() > 0
            torch.testing.assert_close(
                gradient.double(), exact_gradient, rtol=1e-5, atol=1e-5 * exact_gradient.abs().max().item()
            )

    return compare


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _listings_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LIGHTSSL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
