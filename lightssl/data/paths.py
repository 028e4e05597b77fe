"""Paths of images, for the sources made of files: which count, how they are kept, what labels they give.

A path is text relative to its source, with ``/`` between folders. Bytes that are no valid text are surrogates in it, as
in all of Python's file functions.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise, takewhile

import numpy as np

from lightssl.errors import DataError

TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that is there
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class NoTestSplitError(DataError):
    """Test images were asked of a source that is all of one piece."""


class Paths:
    """Very many paths in two flat arrays.

    A list of a million strings is copied page by page into every forked worker, because looking at a string changes its
    reference count. These arrays stay shared.

    Args:
        text: uint8, the bytes of all paths, one after the other.
        ends: int64 [N + 1]; path i is ``text[ends[i] : ends[i + 1]]``.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        """Take up some paths."""
        encoded = [os.fsencode(path) for path in paths]
        ends = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(path) for path in encoded], out=ends[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.text[self.ends[index] : self.ends[index + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        text = self.text.tobytes()
        return (os.fsdecode(text[start:end]) for start, end in pairwise(self.ends.tolist()))


def is_image(path: str) -> bool:
    """Tell by its name whether a path is an image that counts: a known suffix, and no hidden file or folder in it."""
    return path.lower().endswith(IMAGE_SUFFIXES) and not path.startswith(".") and "/." not in path


def shown(path: str) -> str:
    """Return a path as text that can be printed and written to a file, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def test_folder(first_level: Collection[str]) -> str | None:
    """Return the folder that holds test images, given the first-level folders, or None where there is no such split.

    ``train`` beside one of them is a split; ``train`` alone may be a class, beside ``bus`` and ``car``.
    """
    if "train" not in first_level:
        return None
    return next((name for name in TEST_FOLDERS if name in first_level), None)


def first_level_labels(paths: Iterable[str]) -> tuple[np.ndarray | None, list[str] | None]:
    """Label each path with its first-level folder.

    Returns:
        Labels int64 [N], and the sorted names that they index; (None, None) if any path lies in no folder.
    """
    met: dict[str, int] = {}
    labels = []
    for path in paths:
        folder, slash, _ = path.partition("/")
        if not slash:
            return None, None
        labels.append(met.setdefault(folder, len(met)))
    classes = sorted(met)
    label_of = np.argsort([met[folder] for folder in classes])  # of the folder met first, second, ...: its label
    return label_of[labels], [shown(folder) for folder in classes]


def without_common_folders(paths: Sequence[str]) -> list[str]:
    """Cut off the folders that all paths begin with: archives often carry ``cifar10/train/`` before every class."""
    # What the first and the last in order begin with, all between them begin with too.
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return [path.split("/", depth)[depth] for path in paths]
