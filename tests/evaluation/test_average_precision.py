"""Average precision, beside pycocotools called by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coder
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lightssl.data.coco import CocoImages, open_coco_splits
from lightssl.evaluation.average_precision import Detections, average_precision


@pytest.fixture
def images(coco: Path) -> CocoImages:
    return open_coco_splits(str(coco), masks=True)[0]


def perfect(images: CocoImages) -> list[Detections]:
    found = []
    for index in range(len(images)):
        boxes, labels, masks = images.objects(index, masks=True)
        codes = [coder.encode(np.asfortranarray(mask)) for mask in masks]
        found.append(Detections(boxes, labels, np.full(len(labels), 0.9), codes))
    return found


def spoilt(images: CocoImages, seed: int) -> list[Detections]:
    """Move boxes and masks, change some labels, leave some out and add others."""
    rng = np.random.default_rng(seed)
    found = []
    for one in perfect(images):
        shift = rng.integers(-6, 7, (len(one.boxes), 1))
        masks = [
            np.roll(coder.decode(code), int(by), axis=(0, 1)) for code, by in zip(one.masks, shift[:, 0], strict=True)
        ]
        extra = rng.uniform(0, 24, (2, 2))
        boxes = np.concatenate([one.boxes + shift, np.concatenate([extra, extra + 12], axis=1)])
        labels = np.concatenate([one.labels, [0, 1]])
        swap = rng.random(len(labels)) < 0.2
        square = np.zeros((48, 64), np.uint8)
        square[20:30, 20:30] = 1
        codes = [coder.encode(np.asfortranarray(mask)) for mask in (*masks, square, square)]
        kept = np.flatnonzero(rng.random(len(labels)) < 0.8)
        found.append(
            Detections(
                boxes[kept],
                np.where(swap, 1 - labels, labels)[kept],
                rng.random(len(kept)),
                [codes[place] for place in kept],
            )
        )
    return found


def by_hand(coco: Path, images: CocoImages, found: Sequence[Detections], kind: str) -> np.ndarray:
    """Write the detections to a file, and have pycocotools compare it with the file of the truth."""
    truth = COCO(str(coco / "annotations" / "instances_train.json"))
    rows = [
        {
            "image_id": 10 + index,
            "category_id": 3 * (int(label) + 1),
            "score": float(score),
            **(
                {"bbox": [float(side) for side in (*box[:2], *(box[2:] - box[:2]))]}
                if kind == "bbox"
                else {"segmentation": {**code, "counts": code["counts"].decode()}}
            ),
        }
        for index, one in enumerate(found)
        for box, label, score, code in zip(one.boxes, one.labels, one.scores, one.masks, strict=True)
    ]
    file = coco / "found.json"
    file.write_text(json.dumps(rows))
    measure = COCOeval(truth, truth.loadRes(str(file)), kind)
    measure.evaluate()
    measure.accumulate()
    measure.summarize()
    return measure.stats


@pytest.mark.parametrize("masks", [False, True])
def test_it_is_what_pycocotools_says(coco: Path, images: CocoImages, masks: bool) -> None:
    for seed in range(5):
        found = spoilt(images, seed)
        expected = by_hand(coco, images, found, "segm" if masks else "bbox")
        measured = average_precision(images, found, masks=masks)
        assert 0 < measured["ap"] < 100
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        for name, value in zip(names, expected, strict=False):
            assert measured[name] == (None if value < 0 else pytest.approx(100 * value, abs=1e-9))
        assert np.mean(list(measured["by_class"].values())) == pytest.approx(measured["ap"])


@pytest.mark.parametrize("masks", [False, True])
def test_a_perfect_detector_has_100_and_one_that_finds_nothing_0(images: CocoImages, masks: bool) -> None:
    measured = average_precision(images, perfect(images), masks=masks)
    assert measured["ap"] == measured["ap50"] == measured["ap75"] == pytest.approx(100)
    assert measured["by_class"] == {"red": pytest.approx(100), "blue": pytest.approx(100)}
    nothing = [Detections(np.empty((0, 4)), np.empty(0), np.empty(0), []) for _ in range(len(images))]
    assert average_precision(images, nothing, masks=masks)["ap"] == 0


def test_a_class_that_no_image_shows_counts_for_nothing(images: CocoImages) -> None:
    red = images.some([0, 2, 4])
    measured = average_precision(red, perfect(red))
    assert measured["ap"] == pytest.approx(100)
    assert measured["by_class"]["blue"] is None
