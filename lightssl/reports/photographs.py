"""Photographs with what a detector found in them, in one picture."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.ops import box_iou

from lightssl.data.coco import CocoImages
from lightssl.data.loader import read_image
from lightssl.evaluation.average_precision import Detections
from lightssl.types import BadImage

_SURE = 0.3  # score from which a box is drawn
_SAME = 0.5  # overlap, as intersection over union, from which boxes are taken for several names of one thing
_HEIGHT, _WIDTH, _COLUMNS, _GAP, _HEADER = 240, 320, 4, 8, 28
_PAPER, _INK, _TRUTH = "#ffffff", "#0f172a", "#ffffff"
_COLOURS = ("#ea580c", "#2563eb", "#16a34a", "#db2777", "#9333ea", "#0891b2", "#ca8a04", "#dc2626")  # of classes
_NAMES = 2  # of one thing
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
    text = (
        f"White: what is there. In colour: what was found, where it is at least {100 * _SURE:.0f} % sure; "
        "several names of one thing, the surest first."
    )
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
    things = _things(found)
    if found.masks is not None:
        pixels = _with_masks(pixels, found, [names[0] for names in things])
    height, width = pixels.shape[:2]
    zoom = min(_HEIGHT / height, _WIDTH / width)
    filter_ = Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(pixels).resize((max(1, round(width * zoom)), max(1, round(height * zoom))), filter_)
    draw = ImageDraw.Draw(picture)
    for box in images.objects(index).boxes * zoom:
        draw.rectangle([float(side) for side in box], outline=_TRUTH, width=1)
    boxes = [[float(side * zoom) for side in found.boxes[names[0]]] for names in things]
    colours = [_colour(found.labels[names[0]]) for names in things]
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(box, outline=colour, width=2)
    for names, box, colour in zip(things, boxes, colours, strict=True):
        said = [f"{classes[int(found.labels[place])]} {100 * found.scores[place]:.0f}" for place in names[:_NAMES]]
        _label(draw, box, " / ".join(said), colour, picture.width)
    return picture


def _things(found: Detections) -> list[list[int]]:
    """Return what is to be drawn: of each thing the places of its names, the surest first."""
    boxes = torch.as_tensor(found.boxes, dtype=torch.float32).reshape(-1, 4)
    overlap = box_iou(boxes, boxes).numpy()
    things: list[list[int]] = []
    for place in np.argsort(-found.scores, kind="stable").tolist():
        if found.scores[place] >= _SURE:
            same = next((names for names in things if overlap[names[0], place] >= _SAME), None)
            things.append([place]) if same is None else same.append(place)
    return things


def _with_masks(pixels: np.ndarray, found: Detections, shown: Sequence[int]) -> np.ndarray:
    from pycocotools import mask as coder

    pixels = pixels.astype(np.float32)
    for place in shown:
        inside = coder.decode(found.masks[place]).astype(bool)  # type: ignore[index]
        colour = np.array(Image.new("RGB", (1, 1), _colour(found.labels[place])), np.float32)[0, 0]
        pixels[inside] += _VEIL * (colour - pixels[inside])
    return pixels.round().astype(np.uint8)


def _label(draw: ImageDraw.ImageDraw, box: Sequence[float], text: str, colour: str, width: int) -> None:
    font = ImageFont.load_default(12)
    length = font.getlength(text) + 6
    left, bottom = max(0.0, min(box[0], width - 1 - length)), max(box[1], 15)  # inside of the picture
    right = left + length
    draw.rectangle([left, bottom - 15, right, bottom], fill=colour)
    draw.text((left + 3, bottom - 15), text, fill=_PAPER, font=font)


def _colour(label: int) -> str:
    return _COLOURS[int(label) % len(_COLOURS)]
