"""Make a small set of photographs with known boxes and masks, in COCO's format::

    python -m benchmarks.pasted --objects 'data/cifar10-*.tar' --backgrounds data/photos-250.tar --out pasted

One to four labelled images, enlarged and cut out along a random outline, are pasted on a piece of a photograph, none
over another. Training and test photographs share neither objects nor backgrounds. It is no COCO: the objects are small
images enlarged and their outlines say nothing of what they are; but to name and place them a network must have learned
to see.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lightssl.data.decode import decode
from lightssl.data.sources import Source, Subset, open_source, open_splits

WIDTH, HEIGHT = 224, 160  # pixels
SIDES = 36, 88  # pixels of a pasted object, least and most
MOST_OBJECTS, TRIES = 4, 20
CORNERS = 20  # of an outline
QUALITY = 92  # of JPEG


def main() -> None:
    """Make both halves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", required=True, help="labelled images, train and test")
    parser.add_argument("--backgrounds", required=True, help="photographs")
    parser.add_argument("--train", type=int, default=1000, help="photographs to make for training")
    parser.add_argument("--val", type=int, default=300, help="photographs to make for testing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train, test, _ = open_splits(options.objects)
    photographs = open_source(options.backgrounds)
    order = np.random.default_rng(options.seed).permutation(len(photographs))
    aside = len(order) // 5
    halves = {
        "train": (train, Subset(photographs, order[aside:], photographs.name), options.train),
        "val": (test, Subset(photographs, order[:aside], photographs.name), options.val),
    }
    for split, (objects, backgrounds, count) in halves.items():
        make_split(options.out, split, objects, backgrounds, count, seed=options.seed)
        print(f"{count:,} photographs in {options.out / split}")


def make_split(out: Path, split: str, objects: Source, backgrounds: Source, count: int, *, seed: int) -> None:
    """Write the photographs of one half, and the file that says what is in them."""
    (out / split).mkdir(parents=True, exist_ok=True)
    (out / "annotations").mkdir(exist_ok=True)
    scenes = [cv2.cvtColor(decode(backgrounds.read(index)), cv2.COLOR_RGB2BGR) for index in range(len(backgrounds))]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        rng = np.random.default_rng((seed, len(split), number))  # the halves are drawn apart
        photograph = piece_of(scenes[rng.integers(len(scenes))], rng)
        name = f"{number:05}.jpg"
        taken: list[tuple[int, int, int, int]] = []
        for _ in range(int(rng.integers(1, MOST_OBJECTS + 1))):
            place = free_place(taken, rng)
            if place is None:
                break
            taken.append(place)
            index = int(rng.integers(len(objects)))
            outline = paste(photograph, cv2.cvtColor(decode(objects.read(index)), cv2.COLOR_RGB2BGR), place, rng)
            left, top = outline.min(axis=0)
            right, bottom = outline.max(axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": int(np.asarray(objects.labels)[index]) + 1,
                    "bbox": [round(float(side), 1) for side in (left, top, right - left, bottom - top)],
                    "area": round(float(cv2.contourArea(outline.astype(np.float32))), 1),
                    "iscrowd": 0,
                    "segmentation": [[round(float(side), 1) for side in outline.flatten()]],
                }
            )
        cv2.imwrite(str(out / split / name), photograph, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        images.append({"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
    categories = [{"id": label + 1, "name": kind} for label, kind in enumerate(objects.classes or [])]
    found = {"images": images, "categories": categories, "annotations": annotations}
    (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(found), encoding="utf-8")


def piece_of(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a piece of the photographs' shape out of a larger one, and scale it."""
    height, width = scene.shape[:2]
    share = rng.uniform(0.4, 1.0)
    tall = min(height, width * HEIGHT / WIDTH) * share
    wide = tall * WIDTH / HEIGHT
    top, left = (int(rng.uniform(0, side)) for side in (height - tall, width - wide))
    piece = scene[top : top + int(tall), left : left + int(wide)]
    return cv2.resize(piece, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def free_place(
    taken: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draw where an object may go, as left, top, width and height, without touching others."""
    for _ in range(TRIES):
        width, height = (int(rng.uniform(*SIDES)) for _ in range(2))
        left, top = int(rng.integers(WIDTH - width)), int(rng.integers(HEIGHT - height))
        if all(
            left + width <= other[0]
            or other[0] + other[2] <= left
            or top + height <= other[1]
            or other[1] + other[3] <= top
            for other in taken
        ):
            return left, top, width, height
    return None


def paste(
    photograph: np.ndarray, thing: np.ndarray, place: tuple[int, int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Paste an object along an uneven oval, and return its outline, [corners, 2] as x and y in pixels."""
    left, top, width, height = place
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radius = rng.uniform(0.8, 1.0, CORNERS)
    radius = (radius + np.roll(radius, 1) + np.roll(radius, -1)) / 3
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    outline = (corners + 1) / 2 * [width - 1, height - 1] + [left, top]
    mask = np.zeros(photograph.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    enlarged = np.zeros_like(photograph)
    enlarged[top : top + height, left : left + width] = cv2.resize(
        thing, (width, height), interpolation=cv2.INTER_CUBIC
    )
    photograph[mask == 1] = enlarged[mask == 1]
    return outline


if __name__ == "__main__":
    main()
