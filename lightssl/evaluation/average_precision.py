"""Average precision as COCO measures it, by pycocotools."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np

from lightssl.data.coco import CocoImages

# Rows of COCO's summary: of which intersections over union, of objects of which size.
_SUMMARY = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


class Detections(NamedTuple):
    """What was found in one image."""

    boxes: np.ndarray  # float [N, 4], pixels: left, top, right, bottom
    labels: np.ndarray  # int [N], positions in the classes
    scores: np.ndarray  # float [N], the higher the surer
    masks: Sequence[Mapping[str, Any]] | None  # run-length codes of pycocotools


def average_precision(images: CocoImages, found: Sequence[Detections], *, masks: bool = False) -> dict[str, Any]:
    """Measure detections against what is to be found.

    Args:
        images: N images and their objects.
        found: N detections, in the same order.
        masks: Compare masks in place of boxes.

    Returns:
        ``ap``, the mean over intersections over union of .50 to .95 and over classes, ``ap50`` and ``ap75`` at one of
        them, and ``ap_small``, ``ap_medium``, ``ap_large`` of objects by area, all in percent, and ``by_class``, the
        ``ap`` of each. None where there is nothing to be found.
    """
    from pycocotools.cocoeval import COCOeval

    truth, detected = _coco(images, _objects(images, masks)), _coco(images, _detections(found, masks))
    with redirect_stdout(StringIO()):
        measure = COCOeval(truth, detected, "segm" if masks else "bbox")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    precision = measure.eval["precision"][:, :, :, 0, -1]  # of every overlap, recall and class; any area, most objects
    by_class = [_mean(precision[:, :, label]) for label in range(len(images.class_names))]
    return {
        **{name: _percent(value) for name, value in zip(_SUMMARY, measure.stats, strict=False)},
        "by_class": dict(zip(images.class_names, by_class, strict=True)),
    }


def _coco(images: CocoImages, annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": index, "height": height, "width": width}
            for index, (height, width) in enumerate(images.sizes.tolist())
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(images.class_names)],
        # No number is 0: pycocotools takes a match with such an object for none.
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
    }
    with redirect_stdout(StringIO()):
        coco.createIndex()
    return coco


def _objects(images: CocoImages, masks: bool) -> list[dict[str, Any]]:
    return [
        {
            "image_id": index,
            "category_id": int(images.box_labels[row]),
            "bbox": _as_coco(images.boxes[row]),
            "area": float(images.areas[row]),
            "iscrowd": int(images.crowds[row]),
            **({"segmentation": images.run_lengths(row, index)} if masks else {}),
        }
        for index in range(len(images))
        for row in range(len(images.boxes))[images.of_image(index)]
    ]


def _detections(found: Sequence[Detections], masks: bool) -> list[dict[str, Any]]:
    from pycocotools import mask as coder

    rows = []
    for index, one in enumerate(found):
        for place, (box, label, score) in enumerate(zip(one.boxes, one.labels, one.scores, strict=True)):
            left, top, width, height = _as_coco(box)
            row: dict[str, Any] = {
                "image_id": index,
                "category_id": int(label),
                "score": float(score),
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
            if masks and one.masks is not None:
                row["segmentation"] = one.masks[place]
                row["area"] = float(coder.area(one.masks[place]))
            rows.append(row)
    return rows


def _as_coco(box: np.ndarray) -> list[float]:
    left, top, right, bottom = (float(side) for side in box)
    return [left, top, right - left, bottom - top]


def _mean(precision: np.ndarray) -> float | None:
    measured = precision[precision > -1]
    return 100 * float(measured.mean()) if len(measured) else None


def _percent(value: float) -> float | None:
    return None if value < 0 else 100 * float(value)
