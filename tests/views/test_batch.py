import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from lightssl.resources import resource
from lightssl.views.augment import Augmentations, Drawn, Role
from lightssl.views.batch import apply_batch, as_row
from lightssl.views.pixels import apply

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
        Drawn(),
        Drawn(flip=True),
        Drawn(brightness=1.4),
        Drawn(contrast=0.6),
        Drawn(saturation=1.8),
        Drawn(hue=-0.2),
        Drawn(saturation=0.2, hue=0.3, contrast=1.3, brightness=0.7),
        Drawn(grey=True),
        Drawn(blur=0.4),
        Drawn(blur=2.0),
        Drawn(solarize=128),
    ],
)
def test_each_operation_is_that_of_one_image_at_a_time(crops: NDArray[np.uint8], drawn: Drawn) -> None:
    one_by_one, together = both(crops, [drawn] * 8)
    difference = np.abs(one_by_one - together)
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.999) <= 2


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
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.999) <= 3
