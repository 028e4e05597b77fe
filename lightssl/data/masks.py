"""Masks of objects, as COCO writes them and as they are kept until they are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Polygons, float64 [2 N], x and y in turn, or a run-length code of pycocotools. Polygons take less memory than the code
# that they would make, and no time to convert.
Mask = list[np.ndarray] | bytes

_BITS, _MORE, _NEGATIVE, _FIRST = 5, 0x20, 0x10, ord("0")  # of a character of a code
_CHARACTERS = 7  # of a number at most, which is below 2 ** 32
_CORNERS = 3
_FAR = 10  # long sides of an image; to draw a corner that is further out could take all memory


def checked(outline: Sequence[Sequence[float] | np.ndarray] | dict[str, Any], height: int, width: int) -> Mask:
    """Return a mask of an image that can be drawn.

    Args:
        outline: Polygons, or a run-length code with its ``size``, as text or as a list of numbers.
        height: Pixels of the image.
        width: Pixels of the image.

    Raises:
        ValueError: It is damaged, or made for an image of another size. Other exceptions say the same.
    """
    if not isinstance(outline, dict):
        return _polygons(outline, height, width)
    if missing := [key for key in ("size", "counts") if key not in outline]:
        raise ValueError(f"its run-length code has no {missing[0]!r}")
    if outline["size"] != [height, width]:
        raise ValueError(f"its size, height and width, is {outline['size']}, that of the image {[height, width]}")
    counts = outline["counts"]
    code = counts.encode() if isinstance(counts, str) else None
    runs = np.asarray(counts, np.int64) if code is None else _runs(code)
    # pycocotools draws a code that is too short, and compares it with another for ever.
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"its runs are not those of {height * width:,} pixels")
    if code is None:
        from pycocotools import mask as coder

        code = coder.frPyObjects(outline, height, width)["counts"]
    return code


def run_lengths(mask: Mask, height: int, width: int) -> dict[str, Any]:
    """Return a mask as pycocotools writes it."""
    from pycocotools import mask as coder

    if isinstance(mask, bytes):
        return {"size": [height, width], "counts": mask}
    return coder.merge(coder.frPyObjects(mask, height, width))


def _polygons(outline: Sequence[Sequence[float] | np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Return the polygons that enclose something: pycocotools takes a lone one of two corners for a box."""
    polygons = [np.asarray(polygon, np.float64) for polygon in outline if len(polygon) >= 2 * _CORNERS]
    if not polygons or any(len(polygon) % 2 for polygon in outline):
        raise ValueError("a polygon takes x and y of three corners at least")
    if not all(np.abs(polygon).max() <= _FAR * max(height, width) for polygon in polygons):  # nor what is no number
        raise ValueError("a corner of its polygons is far outside of the image")
    return polygons


def _runs(code: bytes) -> np.ndarray:
    """Return the lengths of the runs of a code: those of 0 and those of 1 in turn.

    A number has five bits a character, the lowest first and the last one signed. From the fourth on it says by how much
    a run is longer than the one before the last.
    """
    characters = np.frombuffer(code, np.uint8).astype(np.int64) - _FIRST
    more = characters & _MORE > 0
    if not len(code) or (characters < 0).any() or (characters >= 2 * _MORE).any() or more[-1]:
        raise ValueError("its run-length code is damaged")
    ends = np.flatnonzero(~more)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends + 1 - starts
    if lengths.max() > _CHARACTERS:
        raise ValueError("its run-length code is damaged")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((characters & (_MORE - 1)) << _BITS * place, starts)
    numbers -= (characters[ends] & _NEGATIVE > 0) * (1 << _BITS * lengths)
    numbers[1::2], numbers[2::2] = numbers[1::2].cumsum(), numbers[2::2].cumsum()
    return numbers
