"""Make small labelled data sets of different kinds, a folder each, from what is at hand::

    python -m benchmarks.scenarios --objects 'data/cifar10-*.tar' --photographs data/photos-250.tar --out scenarios

objects
    Ten classes of CIFAR-10, as they are: what is it?
orientation
    The same images, turned by 0, 90, 180 or 270 degrees: which way is up?
places
    Pieces of 100 photographs, training pieces from the left half and test pieces from the right: which one is it of?
    Colours and textures are what one knows it by.
digits
    The 1,797 handwritten digits that scikit-learn brings, of 8 pixels, enlarged.
clothes
    The embedded sample of Fashion-MNIST, in the same form as the others.

All are pictures of 32 pixels, train and test apart. They are no benchmark of anything but networks against each other.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lightssl.data.decode import decode
from lightssl.data.sources import Source, open_source, open_splits

SIDE = 32  # pixels
PHOTOGRAPHS, PIECES = 100, {"train": 40, "test": 15}  # of each
PIECE = 0.25, 0.5  # of the shorter side of a photograph, least and most

Labelled = Iterator[tuple[str, np.ndarray]]  # class, and pixels uint8 [H, W, 3] in RGB


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", required=True, help="labelled images, train and test")
    parser.add_argument("--photographs", required=True)
    parser.add_argument("--train", type=int, default=5000, help="training images of a set at most")
    parser.add_argument("--test", type=int, default=2000, help="test images of a set at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for split, most in (("train", options.train), ("test", options.test)):
        rng = np.random.default_rng((options.seed, len(split)))
        sets: dict[str, Labelled] = {
            "objects": of_source(options.objects, split, most, rng),
            "orientation": turned(of_source(options.objects, split, most, rng), rng),
            "places": pieces(open_source(options.photographs), split, rng),
            "digits": digits(split, options.seed),
            "clothes": of_source("sample", split, most, rng),
        }
        for name, images in sets.items():
            print(f"{write(options.out / name / split, images):,} images in {options.out / name / split}")


def write(folder: Path, images: Labelled) -> int:
    """Write a PNG file for each image, below a folder for its class; return how many."""
    count = 0
    for kind, pixels in images:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if len(pixels) != SIDE else pixels
        cv2.imwrite(str(folder / kind / f"{count:05}.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        count += 1
    return count


def of_source(spec: str, split: str, most: int, rng: np.random.Generator) -> Labelled:
    """Some images of a source as they are."""
    train, test, _ = open_splits(spec)
    source: Source = train if split == "train" else test
    labels, classes = np.asarray(source.labels), source.classes or []
    for index in rng.permutation(len(source))[:most]:
        yield classes[labels[index]], decode(source.read(int(index)))


def turned(images: Labelled, rng: np.random.Generator) -> Labelled:
    """Turn images by a quarter as often as is drawn: that is their class."""
    for _, pixels in images:
        quarters = int(rng.integers(4))
        yield f"{90 * quarters:03}", np.ascontiguousarray(np.rot90(pixels, quarters))


def pieces(photographs: Source, split: str, rng: np.random.Generator) -> Labelled:
    """Cut pieces out of one half of each photograph, whose name is their class."""
    for number in range(PHOTOGRAPHS):
        whole = decode(photographs.read(number))
        middle = whole.shape[1] // 2
        half = whole[:, :middle] if split == "train" else whole[:, middle:]
        for _ in range(PIECES[split]):
            side = int(min(half.shape[:2]) * rng.uniform(*PIECE))
            top, left = (int(rng.integers(length - side + 1)) for length in half.shape[:2])
            yield f"{number:03}", half[top : top + side, left : left + side]


def digits(split: str, seed: int) -> Labelled:
    """Handwritten digits; every fifth, in an order that is drawn, is a test image."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for place, index in enumerate(np.random.default_rng(seed).permutation(len(found.images))):
        if (place % 5 == 0) == (split == "test"):
            grey = (found.images[index] * 255 / 16).astype(np.uint8)
            large = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            yield str(found.target[index]), np.repeat(large[:, :, None], 3, axis=2)


if __name__ == "__main__":
    main()
