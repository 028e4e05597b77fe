"""A contact sheet of views: what the network sees of each image, beside where in the image it comes from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lightssl.views.crops import Box
from lightssl.views.maker import ViewMaker
from lightssl.views.plan import ViewPlan

# All lengths are in pixels of the sheet.
_WIDTH = 1200
_ORIGINAL_WIDTH = 260
_MARGIN = 16
_GAP = 8  # between columns
_SEAM = 2  # between local views
_LINE = 22  # of text

_PAPER, _INK = "#ffffff", "#374151"
_GLOBAL, _LOCAL = "#2563eb", "#ea580c"


@dataclass(frozen=True)
class _Layout:
    """Where things lie in a row: the original, the global views side by side, the local views as a block."""

    global_count: int
    local_count: int
    local_columns: int
    global_side: int
    local_side: int
    height: int

    @classmethod
    def of(cls, plan: ViewPlan) -> "_Layout":
        # Local views are stacked as long as that is about as high as a global view: all views can then be larger.
        local_rows = max(1, round(plan.global_.size / plan.local.size))
        local_columns = ceil(plan.local.count / local_rows)
        local_rows = ceil(plan.local.count / max(1, local_columns))
        seams = _GAP * (plan.global_.count + 1) + _SEAM * local_columns
        free = _WIDTH - 2 * _MARGIN - _ORIGINAL_WIDTH - seams
        zoom = _zoom(free / (plan.global_.count * plan.global_.size + local_columns * plan.local.size))
        global_side = max(1, round(plan.global_.size * zoom))
        local_side = max(1, round(plan.local.size * zoom))
        return cls(
            global_count=plan.global_.count,
            local_count=plan.local.count,
            local_columns=local_columns,
            global_side=global_side,
            local_side=local_side,
            height=max(global_side, local_rows * (local_side + _SEAM) - _SEAM),
        )

    def places(self) -> Iterator[tuple[int, int, int]]:
        """Yield left, top and side of each view in a row, in the order of the views."""
        for i in range(self.global_count):
            yield self.global_left(i), 0, self.global_side
        for i in range(self.local_count):
            row, column = divmod(i, self.local_columns)
            step = self.local_side + _SEAM
            yield self.global_left(self.global_count) + column * step, row * step, self.local_side

    def global_left(self, i: int) -> int:
        """Left edge of the i-th global view; the local views begin where one more would."""
        return _MARGIN + _ORIGINAL_WIDTH + _GAP + i * (self.global_side + _GAP)


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], maker: ViewMaker, *, epoch: int = 0, indices: Sequence[int] | None = None
) -> Image.Image:
    """Draw one row an image: the original with the box of every crop, then the views as the network sees them.

    Views keep their relative sizes; all are enlarged, or on a large plan shrunk, by one factor.

    Args:
        images: uint8 [H, W, 3] RGB each.
        maker: Makes the views.
        epoch: The epoch whose views to show.
        indices: Position of each image in its source, on which its views depend; 0, 1, ... if not given.

    Returns:
        An RGB image 1200 pixels wide.
    """
    layout = _Layout.of(maker.plan)
    positions = range(len(images)) if indices is None else indices
    rows = [_row(image, maker, layout, epoch, index) for image, index in zip(images, positions, strict=True)]
    height = 2 * _MARGIN + 2 * _LINE + sum(row.height + _GAP for row in rows)
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    _header(ImageDraw.Draw(sheet), layout)
    top = _MARGIN + _LINE
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    ImageDraw.Draw(sheet).text((_MARGIN, top + _GAP), maker.plan.describe(), _INK, _font(14))
    return sheet


def _header(draw: ImageDraw.ImageDraw, layout: _Layout) -> None:
    draw.text((_MARGIN, _MARGIN), "original and crops", _INK, _font(14))
    for i in range(layout.global_count):
        draw.text((layout.global_left(i), _MARGIN), f"global {i + 1}", _GLOBAL, _font(14))
    if layout.local_count:
        label = "local 1" if layout.local_count == 1 else f"local 1 to {layout.local_count}"
        draw.text((layout.global_left(layout.global_count), _MARGIN), label, _LOCAL, _font(14))


def _row(image: NDArray[np.uint8], maker: ViewMaker, layout: _Layout, epoch: int, index: int) -> Image.Image:
    row = Image.new("RGB", (_WIDTH, layout.height), _PAPER)
    boxes = maker.boxes(image.shape[0], image.shape[1], epoch, index)
    row.paste(_with_boxes(image, boxes, layout), (_MARGIN, 0))
    views = [view for group in maker(image, epoch, index) for view in group]
    for view, (left, top, side) in zip(views, layout.places(), strict=True):
        row.paste(_scaled(view, side, side), (left, top))
    return row


def _with_boxes(image: NDArray[np.uint8], boxes: list[Box], layout: _Layout) -> Image.Image:
    """Draw the image as large as its place allows, and a frame where each view was taken."""
    height, width = image.shape[:2]
    zoom = _zoom(min(_ORIGINAL_WIDTH / width, layout.height / height))
    picture = _scaled(image, max(1, round(width * zoom)), max(1, round(height * zoom)))
    draw = ImageDraw.Draw(picture)
    # Local frames come last: they are the smaller ones, and would vanish below the others.
    for view, box in enumerate(boxes):
        colour = _GLOBAL if view < layout.global_count else _LOCAL
        left, top = round(box.left * zoom), round(box.top * zoom)
        right, bottom = round((box.left + box.width) * zoom), round((box.top + box.height) * zoom)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    return picture


def _zoom(factor: float) -> float:
    """Enlarge by whole factors only, so that each pixel of a small image shows as a square."""
    return floor(factor) if factor >= 1 else factor


def _scaled(image: NDArray[np.uint8], width: int, height: int) -> Image.Image:
    enlarged = width > image.shape[1]
    filter_ = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((width, height), filter_)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
