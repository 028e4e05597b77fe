from itertools import product

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from lightssl.resources import resource
from lightssl.views.augment import Augmentations
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan, resize_plan
from lightssl.views.preview import contact_sheet


def make(size: int, local_count: int = 6) -> ViewMaker:
    recipe = yaml.safe_load(resource("recipes", "augment", "dino.yaml").read_text())
    plan = resize_plan(yaml.safe_load(resource("recipes", "views", "sslight.yaml").read_text()), size)
    plan["local"]["count"] = local_count
    return ViewMaker(ViewPlan.model_validate(plan), Augmentations.model_validate(recipe), seed=0)


def holds(sheet: Image.Image, part: NDArray[np.uint8]) -> bool:
    """Say whether the sheet shows this picture, pixel for pixel."""
    pixels = np.asarray(sheet)
    height, width = part.shape[:2]
    rows, columns = np.nonzero((pixels[: -height + 1, : -width + 1] == part[0, 0]).all(axis=-1))
    return any(
        np.array_equal(pixels[row : row + height, column : column + width], part)
        for row, column in zip(rows, columns, strict=True)
    )


def test_shows_every_view_enlarged_by_one_factor(photograph: NDArray[np.uint8]) -> None:
    maker = make(32)
    small = np.ascontiguousarray(photograph[::10, ::10])
    sheet = contact_sheet([small, small], maker, epoch=3, indices=[5, 2])
    for index in (5, 2):
        for group in maker(small, 3, index):
            for view in group:
                factor = 7  # a global view of 32 pixels then has 224
                assert holds(sheet, view.repeat(factor, axis=0).repeat(factor, axis=1))


@pytest.mark.parametrize("local_count", [0, 6])
def test_frames_each_crop_in_the_original(local_count: int) -> None:
    maker = make(32, local_count)
    side, zoom = 26, 9 if local_count else 8  # held by the height of the row: two local views, or a global one
    sheet = np.asarray(contact_sheet([np.zeros((side, side, 3), np.uint8)], maker))
    original = sheet[38 : 38 + side * zoom, 16 : 16 + side * zoom]
    expected = np.zeros_like(original)
    for view, box in enumerate(maker.boxes(side, side, 0, 0)):
        width = 5 if view == 0 else 2
        colour = (37, 99, 235) if view < 2 else (234, 88, 12)
        top, left = box.top * zoom, box.left * zoom
        bottom, right = top + box.height * zoom, left + box.width * zoom
        inside = expected[top + width + 1 : bottom - width - 1, left + width + 1 : right - width - 1].copy()
        expected[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = 255
        expected[top:bottom, left:right] = colour
        expected[top + width : bottom - width, left + width : right - width] = 255
        expected[top + width + 1 : bottom - width - 1, left + width + 1 : right - width - 1] = inside
    assert np.array_equal(original, expected)


def test_local_views_of_two_plans_are_drawn_to_one_measure(photograph: NDArray[np.uint8]) -> None:
    for count, (size, local_size) in product((6, 10), ((224, 128), (224, 96))):
        plan = make(size, count).plan.model_dump(by_alias=True)
        plan["local"]["size"] = local_size
        maker = ViewMaker(ViewPlan.model_validate(plan), make(size).augmentations, seed=0)
        sheet = contact_sheet([photograph], maker)
        assert all(holds(sheet, view) for group in maker(photograph, 0, 0) for view in group)


@pytest.mark.parametrize(("size", "local_count"), [(224, 6), (224, 10), (224, 0), (96, 1), (600, 7), (1, 6)])
def test_any_plan_fits(photograph: NDArray[np.uint8], size: int, local_count: int) -> None:
    sheet = np.asarray(contact_sheet([photograph], make(size, local_count)))
    assert (sheet[:, -8:] == 255).all(), "nothing may run over the right margin"
    assert (sheet[:8] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4000), (4000, 1)])
def test_any_image_is_shown(shape: tuple[int, int]) -> None:
    sheet = np.asarray(contact_sheet([np.zeros((*shape, 3), np.uint8)], make(32)))
    assert (sheet[38, 16] != 255).any(), "a frame begins where the image does"
