"""Trainings of detectors, which go on where they were stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightssl.backbones import BACKBONES
from lightssl.data.coco import open_coco_splits
from lightssl.evaluation.detection import Schedule, Surroundings, train_detector
from lightssl.evaluation.detector import DetectorOptions
from lightssl.progress import Silent


class Told(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def goes_on(coco: Path, states: Path, *, masks: bool) -> bool:
    """Train for two steps; return whether a state of such a training was there to go on from."""
    train, test, _ = open_coco_splits(str(coco), masks=True)
    photographs = Surroundings(train, test.some([0]), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), under_way=states)
    options = DetectorOptions(masks, (48, 48), 64, smallest_anchor=8, width=8, hidden=8, regions=8)
    told = Told()
    torch.manual_seed(0)
    backbone = BACKBONES["mobilenetv2"](width=0.25)
    train_detector(backbone, photographs, options, Schedule(2, 2, 0.001, 1), seed=0, title="here", narrator=told)
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
