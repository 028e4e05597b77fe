"""A part of a labelled data set, written as a folder that lightssl reads."""

from pathlib import Path

import numpy as np
from PIL import Image

from lightssl.data.decode import decode
from lightssl.data.sources import Source, open_splits
from lightssl.files import write_text


def write_subset(data: str, per_class: int, folder: Path, *, with_test: bool = True) -> Path:
    """Write so many training images of each class, and beside them all test images, to a folder in ``folder``.

    The images are drawn with seed 0. What was written before is taken as it is; what was begun is written again.
    """
    folder = folder / f"{per_class}-a-class"
    done = folder / "done"
    if done.exists():
        return folder
    train, test, _ = open_splits(data)
    rng = np.random.default_rng(0)
    labels = np.asarray(train.labels)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    _write(train, np.sort(np.concatenate(chosen)), folder / "train" if with_test else folder)
    if with_test:
        _write(test, np.arange(len(test)), folder / "test")
    write_text(done, "")
    return folder


def _write(source: Source, indices: np.ndarray, folder: Path) -> None:
    """Write images as they are stored, or losslessly if they are stored as pixels."""
    labels, classes = np.asarray(source.labels), source.classes or []
    for index in indices.tolist():
        place = folder / classes[labels[index]]
        place.mkdir(parents=True, exist_ok=True)
        content = source.read(index)
        if isinstance(content, bytes):
            (place / f"{index:06d}.jpg").write_bytes(content)
        else:
            Image.fromarray(decode(content)).save(place / f"{index:06d}.png")
