import pickle

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from lightssl.resources import resource
from lightssl.views.augment import Augmentations
from lightssl.views.batch import apply_batch
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan

PLAN = {
    "global": {"count": 2, "size": 32, "scale": [0.3, 1.0]},
    "local": {"count": 6, "size": 18, "scale": [0.05, 0.3]},
    "balance": {"global": 0.4, "local": 0.6},
}


def make(plan: dict = PLAN, *, seed: int = 0, **changes: object) -> ViewMaker:
    recipe = yaml.safe_load(resource("recipes", "augment", "dino.yaml").read_text())
    return ViewMaker(ViewPlan.model_validate(plan), Augmentations.model_validate({**recipe, **changes}), seed=seed)


def with_counts(global_count: int, local_count: int) -> dict:
    return {
        **PLAN,
        "global": {**PLAN["global"], "count": global_count},
        "local": {**PLAN["local"], "count": local_count},
    }


def same(a: list[NDArray[np.uint8]], b: list[NDArray[np.uint8]]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_shapes(photograph: NDArray[np.uint8]) -> None:
    views = make()(photograph, 0, 0)
    assert [(group.shape, group.dtype) for group in views] == [((2, 32, 32, 3), np.uint8), ((6, 18, 18, 3), np.uint8)]
    assert [group.shape for group in make(with_counts(3, 0))(photograph, 0, 0)] == [(3, 32, 32, 3)]


def test_crops_now_and_the_rest_later_are_the_same_views(photograph: NDArray[np.uint8]) -> None:
    whole = make()
    crops = ViewMaker(whole.plan, whole.augmentations, seed=0, crops_only=True)
    assert whole.left_to_do(0, 3) == []
    rows = torch.tensor(crops.left_to_do(0, 3)).split([2, 6])
    for views, group, left in zip(whole(photograph, 0, 3), crops(photograph, 0, 3), rows, strict=True):
        assert not np.array_equal(views, group)
        later = apply_batch(torch.from_numpy(group)[:, None], left[:, None])[:, 0].numpy()
        assert np.abs(later - views).mean() < 1.5


def test_views_are_drawn_where_asked(photograph: NDArray[np.uint8]) -> None:
    maker = make()
    batch = [np.zeros((views, 3, *pixels), np.uint8) for views, *pixels in maker.shapes]
    maker(photograph, 0, 5, [group[:, 1] for group in batch])
    assert same([group[:, 1] for group in batch], list(maker(photograph, 0, 5)))
    assert all(not group[:, ::2].any() for group in batch)


def test_a_reduced_image_gives_the_same_views_and_none_is_enlarged() -> None:
    size = (1920, 2560)
    image = np.asarray(Image.radial_gradient("L").resize(size[::-1]))[..., None].repeat(3, axis=2)
    maker = make(
        flip=0.0,
        grey=0.0,
        jitter={"probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        blur={"sigma": [1.0, 1.0], "probability": {"global_1": 0.0, "global_2": 0.0, "local": 0.0}},
        solarize={"threshold": 128, "probability": {"global_1": 0.0, "global_2": 0.0, "local": 0.0}},
    )
    reductions, differences = [], []
    for index in range(20):
        reduction = maker.reduction(*size, 0, index)
        reductions.append(reduction)
        boxes = maker.boxes(*size, 0, index)
        ratios = [min(box.height, box.width) / size for box, size in zip(boxes, (32, 32, *[18] * 6), strict=True)]
        assert reduction == int(min(ratios))
        halved = 2 ** int(np.log2(reduction))
        reduced = np.asarray(Image.fromarray(image).reduce(halved))
        for whole, small in zip(maker(image, 0, index), maker(reduced, 0, index), strict=True):
            differences.append(np.abs(whole.astype(int) - small).mean())
    # Boxes are rounded to pixels of the image, which decides on rare occasions whether one fits.
    assert np.mean(np.array(differences) < 5) >= 0.9
    assert min(reductions) >= 16
    assert maker.reduction(63, 500, 0, 0) == maker.reduction(20, 20, 0, 0) == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 400), (400, 1), (28, 28)])
def test_any_image_makes_views(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for index in range(20):
        assert [group.shape for group in make()(image, 0, index)] == [(2, 32, 32, 3), (6, 18, 18, 3)]


def test_the_same_key_makes_the_same_views(photograph: NDArray[np.uint8]) -> None:
    assert same(make()(photograph, 3, 7), make()(photograph, 3, 7))


@pytest.mark.parametrize(("seed", "epoch", "index"), [(1, 3, 7), (0, 4, 7), (0, 3, 8), (0, 7, 3)])
def test_another_key_makes_other_views(photograph: NDArray[np.uint8], seed: int, epoch: int, index: int) -> None:
    for ours, others in zip(make()(photograph, 3, 7), make(seed=seed)(photograph, epoch, index), strict=True):
        assert all(not np.array_equal(a, b) for a, b in zip(ours, others, strict=True))


def test_views_of_one_image_differ(photograph: NDArray[np.uint8]) -> None:
    for group in make()(photograph, 0, 0):
        assert len({view.tobytes() for view in group}) == len(group)


def test_views_do_not_depend_on_what_was_made_before(photograph: NDArray[np.uint8]) -> None:
    maker = make()
    in_order = {index: maker(photograph, 0, index) for index in range(6)}
    np.random.seed(123)
    for index in (4, 1, 5, 0, 3, 2):
        assert same(maker(photograph, 0, index), in_order[index])


def test_more_views_leave_the_first_ones_as_they_were(photograph: NDArray[np.uint8]) -> None:
    few, many = make(with_counts(2, 3))(photograph, 0, 0), make(with_counts(2, 6))(photograph, 0, 0)
    assert np.array_equal(few[0], many[0])
    assert np.array_equal(few[1], many[1][:3])


def test_a_plan_that_varies_is_drawn_step_by_step(photograph: NDArray[np.uint8]) -> None:
    local = {**PLAN["local"], "min_count": 1}
    maker = make({**PLAN, "local": local, "start": {"local_size": 26, "boundary": 0.5, "until": 0.5}})
    assert maker.largest_shapes == [(2, 32, 32, 3), (6, 26, 26, 3)]
    shapes = [maker.at(step, 200).shapes[1][:2] for step in range(200)]
    counts, sizes = zip(*shapes, strict=True)
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert [sizes[step] for step in (0, 50, 100, 199)] == [26, 22, 18, 18]
    assert sorted(sizes, reverse=True) == list(sizes)
    assert [make(maker.plan.model_dump(by_alias=True)).at(step, 200).shapes[1][:2] for step in range(200)] == shapes
    other = make(maker.plan.model_dump(by_alias=True), seed=1)
    assert [other.at(step, 200).shapes[1][0] for step in range(200)] != list(counts)

    # The views of a step are those of its plan; from the end on they are as they would be without a start.
    assert same(maker.at(199, 200)(photograph, 3, 1), make(with_counts(2, counts[199]))(photograph, 3, 1))
    for box in maker.at(0, 200).boxes(200, 250, 0, 0)[:2]:
        assert box.height * box.width >= 0.45 * 200 * 250
    still = make()
    assert still.at(5, 200) is still


def test_the_first_global_view_is_drawn_from_its_own_areas() -> None:
    maker = make({**PLAN, "global": {**PLAN["global"], "scale": [0.1, 0.1], "first_scale": [0.6, 0.6]}})
    for index in range(50):
        first, second = (box.height * box.width / (300 * 400) for box in maker.boxes(300, 400, 0, index)[:2])
        assert (first, second) == (pytest.approx(0.6, rel=0.02), pytest.approx(0.1, rel=0.03))


def test_a_pickled_maker_makes_the_same_views(photograph: NDArray[np.uint8]) -> None:
    maker = make(seed=5)
    assert same(pickle.loads(pickle.dumps(maker))(photograph, 1, 2), maker(photograph, 1, 2))


def test_roles() -> None:
    maker = make(with_counts(3, 2))
    assert [maker.role(view) for view in range(5)] == ["global_1", "global_2", "global_2", "local", "local"]


def test_boxes_are_where_the_views_come_from() -> None:
    # Each pixel holds its own place, so an undistorted view tells where it was taken.
    y, x = np.mgrid[:200, :250]
    image = np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)
    off = {"global_1": 0.0, "global_2": 0.0, "local": 0.0}
    plain = {
        "flip": 0.0,
        "jitter": {"probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        "grey": 0.0,
        "blur": {"sigma": [1.0, 1.0], "probability": off},
        "solarize": {"threshold": 128, "probability": off},
    }
    maker = make(**plain)
    boxes = maker.boxes(200, 250, 2, 9)
    views = [view for group in maker(image, 2, 9) for view in group]
    assert len(boxes) == len(views) == 8
    for box, view in zip(boxes, views, strict=True):
        centre = view.mean(axis=(0, 1))[:2]
        assert centre == pytest.approx([box.top + (box.height - 1) / 2, box.left + (box.width - 1) / 2], abs=1.0)
