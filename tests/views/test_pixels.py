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
from lightssl.views.augment import Drawn
from lightssl.views.pixels import apply


@pytest.mark.parametrize(
    ("operation", "function", "factors"),
    [
        ("brightness", tv.adjust_brightness, (0.6, 0.93, 1.4)),
        ("contrast", tv.adjust_contrast, (0.6, 0.93, 1.4)),
        ("saturation", tv.adjust_saturation, (0.8, 1.1, 1.2)),
    ],
)
def test_jitter_matches_torchvision(
    photograph: NDArray[np.uint8], operation: str, function: Callable, factors: tuple
) -> None:
    part = photograph[:96, :128]
    tensor = torch.from_numpy(part).permute(2, 0, 1)
    for factor in factors:
        ours = apply(part, Drawn(**{operation: factor}))
        theirs = function(tensor, factor).permute(1, 2, 0).numpy()
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.mean() <= 0.3, factor
        assert difference.max() <= 1, factor
        assert np.abs(ours.astype(int) - part).mean() > 2 * difference.mean(), "the operation must do something"


@pytest.mark.parametrize("order", permutations(("brightness", "contrast", "saturation")))
def test_jitter_in_one_go_is_that_of_one_after_the_other(photograph: NDArray[np.uint8], order: tuple[str, ...]) -> None:
    middle = photograph[:96, :128] // 2 + 32  # levels that no operation drives out of range
    factors = {"brightness": 1.3, "contrast": 0.6, "saturation": 1.2}
    stepwise = middle
    for operation in order:
        stepwise = apply(stepwise, Drawn(**{operation: factors[operation]}))
    difference = np.abs(apply(middle, Drawn(**factors)).astype(int) - stepwise)
    assert difference.mean() < 1.5  # fractions are cut off after every step
    assert difference.max() <= 3


def test_the_hue_is_turned_about_grey() -> None:
    red, yellow, green = (
        np.full((2, 2, 3), colour, np.uint8) for colour in ((200, 50, 50), (150, 150, 0), (50, 200, 50))
    )
    assert np.abs(apply(red, Drawn(hue=1 / 3)).astype(int) - green).max() <= 1
    assert np.abs(apply(green, Drawn(hue=-1 / 3)).astype(int) - red).max() <= 1
    assert np.abs(apply(red, Drawn(hue=1 / 6)).astype(int) - yellow).max() <= 1
    grey = np.full((2, 2, 3), 77, np.uint8)
    assert np.abs(apply(grey, Drawn(hue=0.2)).astype(int) - grey).max() <= 1


@pytest.mark.parametrize("turns", [-0.1, 0.05, 0.2])
def test_a_turn_of_the_hue_is_torchvisions_in_direction_and_size(turns: float) -> None:
    hue = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    saturated = np.stack([hue, np.full_like(hue, 120), np.full_like(hue, 140)], axis=-1)
    image = cv2.cvtColor(saturated, cv2.COLOR_HSV2RGB_FULL)

    def moved(view: NDArray[np.uint8]) -> float:
        after = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)[..., 0]
        angles = (after.astype(float) - hue) / 256 * 2 * np.pi
        return float(np.angle(np.exp(1j * angles).mean()) / (2 * np.pi))

    theirs = tv.adjust_hue(torch.from_numpy(image).permute(2, 0, 1), turns).permute(1, 2, 0).numpy()
    assert moved(apply(image, Drawn(hue=turns))) == pytest.approx(moved(theirs), abs=0.01)


def test_flip_and_grey(photograph: NDArray[np.uint8]) -> None:
    assert np.array_equal(apply(photograph, Drawn(flip=True)), photograph[:, ::-1])
    grey = apply(photograph, Drawn(grey=True))
    expected = np.asarray(Image.fromarray(photograph).convert("L"))
    assert np.abs(grey.astype(int) - expected[:, :, None]).max() <= 1


@pytest.mark.parametrize("threshold", [0, 1, 99, 128, 255])
def test_solarize_matches_pillow(photograph: NDArray[np.uint8], threshold: int) -> None:
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(photograph), threshold))
    assert np.array_equal(apply(photograph, Drawn(solarize=threshold)), theirs)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_close_to_pillows(photograph: NDArray[np.uint8], sigma: float) -> None:
    theirs = np.asarray(Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(sigma)))
    difference = np.abs(apply(photograph, Drawn(blur=sigma)).astype(int) - theirs)
    assert difference.mean() < 1.5  # Pillow's is three box blurs


def test_published_order() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    drawn = Drawn(flip=True, brightness=1.3, grey=True, blur=1.0, solarize=128)
    stepwise = image
    for step in (Drawn(flip=True), Drawn(brightness=1.3), Drawn(grey=True), Drawn(blur=1.0), Drawn(solarize=128)):
        stepwise = apply(stepwise, step)
    assert np.array_equal(apply(image, drawn), stepwise)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_views_keep_their_shape_and_the_input_stays(size: int) -> None:
    image = np.full((size, size, 3), (200, 90, 30), np.uint8)
    before = image.copy()
    colour = {"hue": 0.1, "contrast": 0.7, "saturation": 1.2, "brightness": 0.8}
    view = apply(image, Drawn(flip=True, grey=True, blur=2.0, solarize=128, **colour))
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
    # The time that views take is that of these passes: one for the flip, two for the colour (one is for the mean), two
    # for grey, one for the blur.
    counting = Counting()
    monkeypatch.setattr(pixels, "cv2", counting)
    everything = Drawn(
        flip=True, hue=0.05, saturation=1.1, contrast=0.9, brightness=1.1, grey=True, blur=1.0, solarize=128
    )
    view = np.zeros((32, 32, 3), np.uint8)
    apply(view, everything)
    assert counting.pixels / view[..., 0].size <= 6
    counting.pixels = 0
    apply(view, Drawn(blur=0.1))
    assert counting.pixels == 0
