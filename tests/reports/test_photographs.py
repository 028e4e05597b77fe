"""What a detector found, drawn."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from lightssl.data.coco import CocoImages, open_coco_splits
from lightssl.evaluation.average_precision import Detections
from lightssl.reports.photographs import _COLOURS, _things, found_objects


@pytest.fixture
def images(coco: Path) -> CocoImages:
    return open_coco_splits(str(coco))[1].some([0])


def detections(*rows: tuple[list[float], int, float]) -> Detections:
    boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, float), None)


def colours_in(picture: bytes) -> set[int]:
    """Which of the colours of classes there are, by the labels they stand for."""
    with Image.open(BytesIO(picture)) as image:
        pixels = set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))
    return {label for label, colour in enumerate(_COLOURS) if ImageColor.getrgb(colour) in pixels}


def test_several_names_of_one_thing_are_one_box_in_the_colour_of_the_surest(images: CocoImages) -> None:
    found = detections(
        ([10, 20, 30, 40], 3, 0.4), ([11, 20, 31, 40], 4, 0.6), ([40, 20, 50, 30], 6, 0.5), ([12, 20, 30, 41], 5, 0.2)
    )
    assert _things(found) == [[1, 0], [2]]
    names = [f"class {label}" for label in range(8)]
    assert colours_in(found_objects(images, [found], names)) == {4, 6}


def test_things_that_overlap_a_little_are_drawn_each(images: CocoImages) -> None:
    found = detections(([0, 0, 20, 20], 3, 0.4), ([10, 0, 30, 20], 4, 0.6))
    assert _things(found) == [[1], [0]]


def test_nothing_sure_is_nothing_drawn(images: CocoImages) -> None:
    for found in (detections(), detections(([10, 20, 30, 40], 3, 0.29))):
        assert colours_in(found_objects(images, [found], ["one"] * 8)) == set()


def test_a_long_name_at_the_edge_stays_inside(images: CocoImages) -> None:
    height, width = images.sizes[0]
    found = detections(([float(width) - 6, float(height) - 8, float(width), float(height)], 2, 0.9))
    with Image.open(BytesIO(found_objects(images, [found], ["a very long name of it"] * 3))) as image:
        pixels = np.asarray(image.convert("RGB"))
    inside = (pixels == ImageColor.getrgb(_COLOURS[2])).all(axis=2)
    assert inside.sum() > 100 * 8  # the tag is whole: some 150 pixels wide, less its letters
