"""Trainings of detectors, which go on where they were stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightssl.backbones import BACKBONES
from lightssl.data.coco import open_coco_splits
from lightssl.evaluation.detection import Detected, Schedule, Surroundings, train_detector
from lightssl.evaluation.detector import DetectorOptions
from lightssl.progress import Silent


class Told(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def trained(coco: Path, states: Path | None = None, *, masks: bool = False, tested: int = 1) -> tuple[Detected, Told]:
    """Train for two steps, and test on the first images."""
    train, test, _ = open_coco_splits(str(coco), masks=True)
    photographs = Surroundings(train, test.some(range(tested)), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), under_way=states)
    options = DetectorOptions(masks, (48, 48), 64, smallest_anchor=8, width=8, hidden=8, regions=8)
    told = Told()
    torch.manual_seed(0)
    backbone = BACKBONES["mobilenetv2"](width=0.25)
    schedule = Schedule(2, 2, 0.001, 1)
    return train_detector(backbone, photographs, options, schedule, seed=0, title="here", narrator=told), told


def goes_on(coco: Path, states: Path, *, masks: bool) -> bool:
    """Return whether a state of such a training was there to go on from."""
    _, told = trained(coco, states, masks=masks)
    return any("going on after step 2 of 2" in line for line in told.lines)


def other_polygon(annotation: dict[str, Any]) -> None:
    annotation["segmentation"][0][0] += 1


def other_code(annotation: dict[str, Any]) -> None:
    annotation["segmentation"] = {"size": [48, 64], "counts": [0, 100, 2972]}


def a_crowd(annotation: dict[str, Any]) -> None:
    annotation["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "masks", "same"),
    [
        (other_polygon, True, False),
        (other_code, True, False),
        (other_polygon, False, True),  # boxes are learnt from boxes alone
        (a_crowd, False, False),
    ],
)
def test_it_goes_on_with_the_same_objects_alone(
    coco: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], masks: bool, same: bool
) -> None:
    states = tmp_path / "states"
    assert not goes_on(coco, states, masks=masks)
    assert goes_on(coco, states, masks=masks)
    file = coco / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    change(content["annotations"][2])  # of an image with another one
    file.write_text(json.dumps(content))
    assert goes_on(coco, states, masks=masks) == same


def test_test_images_that_cannot_be_used_are_counted(coco: Path) -> None:
    whole, _ = trained(coco, tested=2)
    assert "unusable_test_images" not in whole.result
    (coco / "val" / "1.png").write_bytes(b"no image")
    damaged, told = trained(coco, tested=2)
    assert (damaged.result["test_images"], damaged.result["unusable_test_images"]) == (2, 1)
    assert len(damaged.found[1].boxes) == 0
    assert "1 test images could not be used: nothing was found in them." in told.lines
