from collections.abc import Callable
from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms.v2 import functional as tv

from lightssl.views import pixels
from lightssl.views.augment import Drawn, JitterOperation
from lightssl.views.pixels import apply

NOTHING = Drawn(flip=False, jitter=(), grey=False, blur=None, solarize=None)


@pytest.mark.parametrize(
    ("operation", "function", "factors", "mean", "worst"),
    [
        ("brightness", tv.adjust_brightness, (0.6, 0.93, 1.4), 0.6, 1),
        ("contrast", tv.adjust_contrast, (0.6, 0.93, 1.4), 0.3, 1),
        ("saturation", tv.adjust_saturation, (0.8, 1.1, 1.2), 0.3, 1),
        # OpenCV, as Pillow, keeps hues as bytes.
        ("hue", tv.adjust_hue, (-0.1, 0.03, 0.1), 0.5, 12),
    ],
)
def test_jitter_matches_torchvision(
    photograph: NDArray[np.uint8], operation: str, function: Callable, factors: tuple, mean: float, worst: int
) -> None:
    part = photograph[:96, :128]
    tensor = torch.from_numpy(part).permute(2, 0, 1)
    for factor in factors:
        ours = apply(part, NOTHING._replace(jitter=((operation, factor),)))
        theirs = function(tensor, factor).permute(1, 2, 0).numpy()
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.mean() <= mean, factor
        assert difference.max() <= worst, factor
        assert np.abs(ours.astype(int) - part).mean() > 2 * difference.mean(), "the operation must do something"


@pytest.mark.parametrize("order", permutations(("brightness", "contrast", "saturation", "hue")))
def test_jitter_in_one_go_is_that_of_one_after_the_other(
    photograph: NDArray[np.uint8], order: tuple[JitterOperation, ...]
) -> None:
    middle = photograph[:96, :128] // 2 + 32  # levels that no operation drives out of range
    factors = {"brightness": 1.3, "contrast": 0.6, "saturation": 1.2, "hue": 0.08}
    steps = tuple((operation, factors[operation]) for operation in order)
    stepwise = middle
    for step in steps:
        stepwise = apply(stepwise, NOTHING._replace(jitter=(step,)))
    difference = np.abs(apply(middle, NOTHING._replace(jitter=steps)).astype(int) - stepwise)
    assert difference.mean() < 1.5  # fractions are cut off after every step
    assert difference.max() <= 8


def test_the_hue_is_turned_in_its_place(photograph: NDArray[np.uint8]) -> None:
    turn, fade = ("hue", 0.3), ("saturation", 0.2)
    first, last = (apply(photograph, NOTHING._replace(jitter=order)) for order in ((turn, fade), (fade, turn)))
    assert np.abs(first.astype(int) - last).mean() > 3


def test_flip_and_grey(photograph: NDArray[np.uint8]) -> None:
    assert np.array_equal(apply(photograph, NOTHING._replace(flip=True)), photograph[:, ::-1])
    grey = apply(photograph, NOTHING._replace(grey=True))
    expected = np.asarray(Image.fromarray(photograph).convert("L"))
    assert np.abs(grey.astype(int) - expected[:, :, None]).max() <= 1


@pytest.mark.parametrize("threshold", [0, 1, 99, 128, 255])
def test_solarize_matches_pillow(photograph: NDArray[np.uint8], threshold: int) -> None:
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(photograph), threshold))
    assert np.array_equal(apply(photograph, NOTHING._replace(solarize=threshold)), theirs)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_close_to_pillows(photograph: NDArray[np.uint8], sigma: float) -> None:
    theirs = np.asarray(Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(sigma)))
    difference = np.abs(apply(photograph, NOTHING._replace(blur=sigma)).astype(int) - theirs)
    assert difference.mean() < 1.5  # Pillow's is three box blurs


def test_published_order() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    drawn = Drawn(flip=True, jitter=(("brightness", 1.3),), grey=True, blur=1.0, solarize=128)
    steps = (
        NOTHING._replace(flip=True),
        NOTHING._replace(jitter=drawn.jitter),
        NOTHING._replace(grey=True),
        NOTHING._replace(blur=1.0),
        NOTHING._replace(solarize=128),
    )
    stepwise = image
    for step in steps:
        stepwise = apply(stepwise, step)
    assert np.array_equal(apply(image, drawn), stepwise)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_views_keep_their_shape_and_the_input_stays(size: int) -> None:
    image = np.full((size, size, 3), (200, 90, 30), np.uint8)
    before = image.copy()
    jitter = (("hue", 0.1), ("contrast", 0.7), ("saturation", 1.2), ("brightness", 0.8))
    view = apply(image, Drawn(flip=True, jitter=jitter, grey=True, blur=2.0, solarize=128))
    assert view.shape == image.shape
    assert view.dtype == np.uint8
    assert np.array_equal(image, before)


class Counting:
    """OpenCV, counting how many pixels go through it."""

    def __init__(self) -> None:
        self.pixels = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(cv2, name)
        if not callable(found):
            return found

        def counted(image: object, *arguments: object, **options: object) -> object:
            if isinstance(image, np.ndarray):
                self.pixels += image.shape[0] * image.shape[1]
            return found(image, *arguments, **options)

        return counted


def test_pixels_are_not_passed_over_more_often_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The time that views take is that of these passes: one for the flip, two to mix colours before the hue is turned
    # and two after it (one is for the mean), two for the hue, two for grey, one for the blur.
    counting = Counting()
    monkeypatch.setattr(pixels, "cv2", counting)
    everything = Drawn(
        flip=True,
        jitter=(("brightness", 1.1), ("contrast", 0.9), ("hue", 0.05), ("saturation", 1.1)),
        grey=True,
        blur=1.0,
        solarize=128,
    )
    view = np.zeros((32, 32, 3), np.uint8)
    apply(view, everything)
    assert counting.pixels / view[..., 0].size <= 10
    counting.pixels = 0
    apply(view, NOTHING._replace(blur=0.1))
    assert counting.pixels == 0
