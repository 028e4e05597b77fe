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
_GLOBAL_SIDE = 224  # of a global view, whatever the plan: local views of different plans can be compared across sheets
_ORIGINAL_WIDTH = 300
_NARROWEST = 640  # the longest line of text finds room
_MARGIN = 16
_GAP = 8  # between columns
_SEAM = 4  # between local views
_LINE = 22  # of text
_FRAME = {"global_1": 5, "global_2": 2, "local": 2}  # widths of frames, by role

_PAPER, _INK = "#ffffff", "#374151"
GLOBAL, LOCAL = "#2563eb", "#ea580c"  # blue and orange are told apart by whoever sees any colours


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
        # Local views are stacked as long as that is about as high as a global view.
        local_rows = max(1, round(plan.global_.size / plan.local.size))
        local_columns = ceil(plan.local.count / local_rows)
        local_rows = ceil(plan.local.count / max(1, local_columns))
        zoom = _zoom(_GLOBAL_SIDE / plan.global_.size)
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

    @property
    def width(self) -> int:
        """Of the sheet."""
        views_end = self.global_left(self.global_count) + self.local_columns * (self.local_side + _SEAM) - _SEAM
        return max(_NARROWEST, views_end + _MARGIN)

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

    Frames are blue for global views, thick for the first one, and orange for local views, all with white edges. Views
    keep their relative sizes; all are enlarged, or on a large plan shrunk, by one factor, which makes a global view
    about 224 pixels.

    Args:
        images: uint8 [H, W, 3] RGB each.
        maker: Makes the views.
        epoch: The epoch whose views to show.
        indices: Position of each image in its source, on which its views depend; 0, 1, ... if not given.

    Returns:
        An RGB image as wide as the views of one image ask for.
    """
    layout = _Layout.of(maker.plan)
    positions = range(len(images)) if indices is None else indices
    rows = [_row(image, maker, layout, epoch, index) for image, index in zip(images, positions, strict=True)]
    caption = _lines(maker.plan.describe(), layout.width - 2 * _MARGIN)
    height = 2 * _MARGIN + (1 + len(caption)) * _LINE + sum(row.height + _GAP for row in rows)
    sheet = Image.new("RGB", (layout.width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, layout, maker.plan)
    top = _MARGIN + _LINE
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    for line in caption:
        draw.text((_MARGIN, top + _GAP), line, _INK, _font(14))
        top += _LINE
    return sheet


def _header(draw: ImageDraw.ImageDraw, layout: _Layout, plan: ViewPlan) -> None:
    draw.text((_MARGIN, _MARGIN), "original and crops", _INK, _font(14))
    for i in range(layout.global_count):
        size = f", {plan.global_.size} px" + ", thick frame" * (i == 0)
        draw.text((layout.global_left(i), _MARGIN), f"global {i + 1}{size}", GLOBAL, _font(14))
    if layout.local_count:
        label = "local 1" if layout.local_count == 1 else f"local 1 to {layout.local_count}"
        label = f"{label}, {plan.local.size} px"
        draw.text((layout.global_left(layout.global_count), _MARGIN), label, LOCAL, _font(14))


def _row(image: NDArray[np.uint8], maker: ViewMaker, layout: _Layout, epoch: int, index: int) -> Image.Image:
    row = Image.new("RGB", (layout.width, layout.height), _PAPER)
    boxes = maker.boxes(image.shape[0], image.shape[1], epoch, index)
    row.paste(_with_boxes(image, boxes, maker, layout), (_MARGIN, 0))
    views = [view for group in maker(image, epoch, index) for view in group]
    for view, (left, top, side) in zip(views, layout.places(), strict=True):
        row.paste(_scaled(view, side, side), (left, top))
    return row


def _with_boxes(image: NDArray[np.uint8], boxes: list[Box], maker: ViewMaker, layout: _Layout) -> Image.Image:
    """Draw the image as large as its place allows, and a frame where each view was taken."""
    height, width = image.shape[:2]
    zoom = _zoom(min(_ORIGINAL_WIDTH / width, layout.height / height))
    picture = _scaled(image, max(1, round(width * zoom)), max(1, round(height * zoom)))
    draw = ImageDraw.Draw(picture)
    # Local frames come last: they are the smaller ones, and would vanish below the others.
    for view, box in enumerate(boxes):
        role = maker.role(view)
        left, top = round(box.left * zoom), round(box.top * zoom)
        right, bottom = round((box.left + box.width) * zoom), round((box.top + box.height) * zoom)
        edges = (left, top, max(left, right - 1), max(top, bottom - 1))
        # On a bright or blue image, a frame shows by its white edges.
        draw.rectangle((edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1), outline=_PAPER, width=_FRAME[role] + 2)
        draw.rectangle(edges, outline=LOCAL if role == "local" else GLOBAL, width=_FRAME[role])
    return picture


def _lines(text: str, width: int) -> list[str]:
    """Break a text between words so that each line is at most so many pixels wide."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(14).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _zoom(factor: float) -> float:
    """Enlarge by whole factors only, so that each pixel of a small image shows as a square."""
    return floor(factor) if factor >= 1 else factor


def _scaled(image: NDArray[np.uint8], width: int, height: int) -> Image.Image:
    enlarged = width > image.shape[1]
    filter_ = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((width, height), filter_)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
