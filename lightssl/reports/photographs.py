"""Photographs with what a detector found in them, in one picture."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightssl.data.coco import CocoImages
from lightssl.data.loader import read_image
from lightssl.evaluation.average_precision import Detections
from lightssl.types import BadImage

_SURE = 0.3  # score from which a box is drawn
_HEIGHT, _WIDTH, _COLUMNS, _GAP, _HEADER = 240, 320, 4, 8, 28
_PAPER, _INK, _TRUTH = "#ffffff", "#0f172a", "#ffffff"
_COLOURS = ("#ea580c", "#2563eb", "#16a34a", "#db2777", "#9333ea", "#0891b2", "#ca8a04", "#dc2626")  # of classes
_VEIL = 0.45  # of a mask's colour over the image


def found_objects(images: CocoImages, found: Sequence[Detections], classes: Sequence[str]) -> bytes:
    """Draw what was found in the first of some images, in colour, beside what is to be found, in white.

    Args:
        images: The images and their objects.
        found: Of as many of the first images as are to be shown.
        classes: Names of the labels.

    Returns:
        A PNG file.
    """
    rows = -(-len(found) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _HEADER + rows * (_HEIGHT + _GAP)), _PAPER)
    text = f"White: what is there. In colour: what was found, where it is at least {100 * _SURE:.0f} % sure."
    ImageDraw.Draw(sheet).text((_GAP, 6), text, fill=_INK, font=ImageFont.load_default(14))
    for index, one in enumerate(found):
        row, column = divmod(index, _COLUMNS)
        place = (_GAP + column * (_WIDTH + _GAP), _HEADER + row * (_HEIGHT + _GAP))
        sheet.paste(_drawn(images, index, one, classes), place)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _drawn(images: CocoImages, index: int, found: Detections, classes: Sequence[str]) -> Image.Image:
    pixels = read_image(images, index)
    if isinstance(pixels, BadImage):
        return Image.new("RGB", (_WIDTH, _HEIGHT), _INK)
    sure = np.flatnonzero(found.scores >= _SURE)
    if found.masks is not None:
        pixels = _with_masks(pixels, found, sure)
    height, width = pixels.shape[:2]
    zoom = min(_HEIGHT / height, _WIDTH / width)
    filter_ = Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(pixels).resize((max(1, round(width * zoom)), max(1, round(height * zoom))), filter_)
    draw = ImageDraw.Draw(picture)
    for box in images.objects(index).boxes * zoom:
        draw.rectangle([float(side) for side in box], outline=_TRUTH, width=1)
    for place in sure:
        colour, box = _colour(found.labels[place]), [float(side * zoom) for side in found.boxes[place]]
        draw.rectangle(box, outline=colour, width=2)
        _label(draw, box, f"{classes[int(found.labels[place])]} {100 * found.scores[place]:.0f}", colour)
    return picture


def _with_masks(pixels: np.ndarray, found: Detections, sure: np.ndarray) -> np.ndarray:
    from pycocotools import mask as coder

    pixels = pixels.astype(np.float32)
    for place in sure:
        inside = coder.decode(found.masks[place]).astype(bool)  # type: ignore[index]
        colour = np.array(Image.new("RGB", (1, 1), _colour(found.labels[place])), np.float32)[0, 0]
        pixels[inside] += _VEIL * (colour - pixels[inside])
    return pixels.round().astype(np.uint8)


def _label(draw: ImageDraw.ImageDraw, box: Sequence[float], text: str, colour: str) -> None:
    font = ImageFont.load_default(12)
    left, bottom = box[0], max(box[1], 15)  # inside of the picture
    right = left + font.getlength(text) + 6
    draw.rectangle([left, bottom - 15, right, bottom], fill=colour)
    draw.text((left + 3, bottom - 15), text, fill=_PAPER, font=font)


def _colour(label: int) -> str:
    return _COLOURS[int(label) % len(_COLOURS)]
