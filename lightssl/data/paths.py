"""Paths of images, for the sources made of files: which count, how they are kept, what labels they give.

A path is text relative to its source, with ``/`` between folders. Bytes that are no valid text are surrogates in it, as
in all of Python's file functions.
"""

import os
from collections.abc import Collection, Sequence
from itertools import takewhile

import numpy as np

from lightssl.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class NoTestSplitError(DataError):
    """Test images were asked of a source that is all of one piece."""


class Paths:
    """Very many paths in two flat arrays.

    A list of a million strings is copied page by page into every forked worker, because looking at a string changes its
    reference count. These arrays stay shared.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])


def is_image(path: str) -> bool:
    """Tell by its name whether a path is an image that counts: a known suffix, and no hidden file or folder in it."""
    return path.lower().endswith(IMAGE_SUFFIXES) and not any(part.startswith(".") for part in path.split("/"))


def shown(path: str) -> str:
    """Return a path as text that can be printed and written to a file, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def test_folder(first_level: Collection[str]) -> str | None:
    """Return the folder that holds test images, given the first-level folders, or None where there is no such split.

    ``train`` beside ``test`` or ``val`` is a split; ``train`` without them may be a class, beside ``bus`` and ``car``.
    """
    if "train" not in first_level:
        return None
    return next((name for name in ("test", "val") if name in first_level), None)


def first_level_labels(paths: Sequence[str]) -> tuple[np.ndarray | None, list[str] | None]:
    """Label each path with its first-level folder.

    Returns:
        Labels int64 [N], and the sorted names that they index; (None, None) if any path lies in no folder.
    """
    if not all("/" in path for path in paths):
        return None, None
    folders = [path.partition("/")[0] for path in paths]
    classes = sorted(set(folders))
    number = {folder: label for label, folder in enumerate(classes)}
    return np.array([number[folder] for folder in folders], np.int64), [shown(folder) for folder in classes]


def without_common_folders(paths: Sequence[str]) -> list[str]:
    """Cut off the folders that all paths begin with: archives often carry ``cifar10/train/`` before every class."""
    # What the first and the last in order begin with, all between them begin with too.
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return [path.split("/", depth)[depth] for path in paths]
