import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from lightssl.resources import resource
from lightssl.views.augment import Augmentations, Drawn, Role
from lightssl.views.batch import COLUMNS, apply_batch, as_row
from lightssl.views.pixels import apply

NOTHING = Drawn(flip=False, jitter=(), grey=False, blur=None, solarize=None)
SIZE = 40


@pytest.fixture(scope="module")
def crops(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    corners = np.random.default_rng(0).integers(0, 250, (64, 2))
    return np.stack([photograph[top : top + SIZE, left : left + SIZE] for top, left in corners])


def both(crops: NDArray[np.uint8], drawn: list[Drawn]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    one_by_one = np.stack([apply(crop, each) for crop, each in zip(crops, drawn, strict=False)])
    rows = torch.tensor([as_row(each) for each in drawn])
    together = apply_batch(torch.from_numpy(crops[None, : len(drawn)]), rows[None])
    assert together.dtype == torch.float32
    assert together.shape == (1, len(drawn), SIZE, SIZE, 3)
    assert 0 <= together.min() <= together.max() <= 255
    return one_by_one.astype(np.float32), together[0].numpy()


@pytest.mark.parametrize(
    "drawn",
    [
        NOTHING,
        NOTHING._replace(flip=True),
        NOTHING._replace(jitter=(("brightness", 1.4),)),
        NOTHING._replace(jitter=(("contrast", 0.6),)),
        NOTHING._replace(jitter=(("saturation", 1.8),)),
        NOTHING._replace(jitter=(("hue", -0.2),)),
        NOTHING._replace(jitter=(("saturation", 0.2), ("hue", 0.3), ("contrast", 1.3), ("brightness", 0.7))),
        NOTHING._replace(grey=True),
        NOTHING._replace(blur=0.4),
        NOTHING._replace(blur=2.0),
        NOTHING._replace(solarize=128),
    ],
)
def test_each_operation_is_that_of_one_image_at_a_time(crops: NDArray[np.uint8], drawn: Drawn) -> None:
    one_by_one, together = both(crops, [drawn] * 8)
    difference = np.abs(one_by_one - together)
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.999) <= 5  # hues are bytes there


@pytest.mark.parametrize("name", ["dino", "swav"])
@pytest.mark.parametrize("role", ["global_1", "global_2", "local"])
def test_a_batch_of_different_draws(crops: NDArray[np.uint8], name: str, role: Role) -> None:
    recipe = yaml.safe_load(resource("recipes", "augment", f"{name}.yaml").read_text())
    augmentations = Augmentations.model_validate(recipe)
    numbers = iter(np.random.default_rng(1).random, None)
    drawn = [augmentations.sample(numbers, role) for _ in crops]
    one_by_one, together = both(crops, drawn)
    # What a level of difference before solarization makes of levels near the threshold is not counted.
    near = np.array([each.solarize is not None for each in drawn])
    difference = np.abs(one_by_one - together)[~near]
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.999) <= 10


def test_rows_say_what_comes_before_and_after_the_hue() -> None:
    drawn = NOTHING._replace(jitter=(("contrast", 0.5), ("hue", 0.1), ("brightness", 1.5), ("saturation", 0.7)))
    row = dict(zip(COLUMNS, as_row(drawn), strict=True))
    assert {name: value for name, value in row.items() if value != 1.0} == {
        "flip": 0.0,
        "contrast": 0.5,
        "hue": 0.1,
        "brightness after hue": 1.5,
        "saturation after hue": 0.7,
        "grey": 0.0,
        "blur": 0.0,
        "solarize": 256.0,
    }
