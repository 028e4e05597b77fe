from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from lightssl.views.crops import Box, draw, sample_box

ASPECT = (3 / 4, 4 / 3)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(375, 500, (0.3, 1.0)), (375, 500, (0.05, 0.3)), (500, 333, (0.14, 1.0)), (28, 28, (0.05, 0.3))],
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    torch.manual_seed(0)
    numbers = iter(np.random.default_rng(0).random, None)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ASPECT)) for _ in range(3000)])
    ours = np.array([sample_box(numbers, height, width, scale, ASPECT) for _ in range(3000)])
    measures = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01, name


def test_area_is_uniform_and_aspect_log_uniform() -> None:
    numbers = iter(np.random.default_rng(1).random, None)
    boxes = np.array([sample_box(numbers, 2000, 2000, (0.05, 0.3), ASPECT) for _ in range(4000)])
    area, log_aspect = boxes[:, 2] * boxes[:, 3] / 2000**2, np.log(boxes[:, 3] / boxes[:, 2])
    assert area.mean() == pytest.approx(0.175, abs=0.005)
    assert area.std() == pytest.approx(0.25 / 12**0.5, abs=0.003)
    assert log_aspect.mean() == pytest.approx(0, abs=0.01)
    assert log_aspect.std() == pytest.approx(log(16 / 9) / 12**0.5, abs=0.005)


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    scale=st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)).map(sorted),
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_box_lies_inside_of_any_image(
    height: int, width: int, scale: list[float], aspect: list[float], seed: int
) -> None:
    numbers = iter(np.random.default_rng(seed).random, None)
    box = sample_box(numbers, height, width, (scale[0], scale[1]), (aspect[0], aspect[1]))
    assert 0 <= box.top < box.top + box.height <= height
    assert 0 <= box.left < box.left + box.width <= width


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 4000, Box(0, 1999, 1, 1)),
        (4000, 1, Box(1999, 0, 1, 1)),
        (30, 100, Box(0, 30, 30, 40)),
        (100, 30, Box(30, 0, 40, 30)),
    ],
)
def test_the_whole_of_a_long_image_falls_back_to_its_centre(height: int, width: int, box: Box) -> None:
    numbers = iter(np.random.default_rng(0).random, None)
    assert sample_box(numbers, height, width, (1.0, 1.0), ASPECT) == box


@pytest.mark.parametrize(("scale", "size"), [((0.14, 1.0), 224), ((0.05, 0.3), 128), ((0.05, 0.3), 32)])
def test_views_are_drawn_as_pillow_draws_them(
    photograph: NDArray[np.uint8], scale: tuple[float, float], size: int
) -> None:
    numbers = iter(np.random.default_rng(0).random, None)
    differences = []
    for _ in range(30):
        box = sample_box(numbers, 300, 400, scale, ASPECT)
        crop = photograph[box.top : box.top + box.height, box.left : box.left + box.width]
        theirs = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC))
        differences.append(np.abs(draw(photograph, box, size).astype(int) - theirs))
    assert np.mean(differences) < 0.1  # of 255 levels
    assert np.max(differences) <= 10


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    view = draw(stripes, Box(0, 0, 256, 256), 60)
    assert np.ptp(view[:, 1:-1]) < 40, "stripes finer than the view's pixels must turn grey"


@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(1, 1, 1, 2), Box(0, 0, 2, 3)])
def test_drawing_a_tiny_box(box: Box) -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert draw(image, box, 24).shape == (24, 24, 3)


def test_drawing_a_box_at_its_own_size_copies_it(photograph: NDArray[np.uint8]) -> None:
    assert np.array_equal(draw(photograph, Box(10, 20, 64, 64), 64), photograph[10:74, 20:84])
