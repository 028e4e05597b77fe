"""Encoded bytes to uint8 RGB pixels, or a reason why not.

OpenCV decodes ordinary JPEG files, which is what nearly every large collection holds: it is the fastest. Pillow reads
every header, so that the size is known before a pixel is allocated, and decodes the rest, because OpenCV drops alpha
and squeezes CMYK and 16-bit files wrongly.
"""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # read when OpenCV is first imported
import cv2

# The kinds that sources list, and GIF, which is often found under another name. A short list also keeps Pillow's more
# daring plugins away from untrusted bytes: EPS, for one, starts another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MIN_SIDE = 2  # pixels; single pixels and one-pixel lines are trackers and spacers, not pictures
MAX_ASPECT = 64  # long over short side
MAX_PIXELS = 89_478_485  # 256 MiB once decoded; also where Pillow starts to warn of decompression bombs

# OpenCV's IMREAD_REDUCED_COLOR_* with the channels in the order RGB, by how much they divide each side.
_REDUCED_RGB = {
    factor: cv2.IMREAD_COLOR_RGB | grey
    for factor, grey in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
        (1, 0),
    )
}


class UndecodableImage(Exception):  # noqa: N818 (a verdict on the bytes)
    """These bytes are no usable image. The loader turns it into a :class:`lightssl.types.BadImage`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(
    data: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS, reduction: Callable[[int, int], float] | None = None
) -> np.ndarray:
    """Decode one image.

    Greyscale becomes three equal channels, 16 bits are scaled to 8, CMYK is converted, palettes are looked up, the EXIF
    orientation is applied, transparency is laid over white (as a page would show it), and of an animation the first
    frame is taken.

    Args:
        data: An encoded file, or pixels that are decoded already: uint8 [H, W, 3].
        max_pixels: A larger image is refused, from its header, before its pixels are allocated.
        reduction: Tells for an image's height and width by how much its sides may be divided. A JPEG file is then
            decoded at half, a quarter or an eighth of its size, whichever is allowed, in less time and memory. Other
            files are decoded whole.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        UndecodableImage: The only exception, whatever the bytes.
    """
    if isinstance(data, np.ndarray):
        _check_size(data.shape[1], data.shape[0], max_pixels)
        return data
    with _undecodable(data, max_pixels):
        return _decode(data, max_pixels, reduction)


def image_size(data: bytes | np.ndarray) -> tuple[int, int]:
    """Return height and width of the image that :func:`decode` gives, from its header: pixels are not looked at.

    Raises:
        UndecodableImage: The header is damaged, or of an image of a size that is refused. The pixels may be, too.
    """
    if isinstance(data, np.ndarray):
        _check_size(data.shape[1], data.shape[0], MAX_PIXELS)
        return data.shape[0], data.shape[1]
    with _undecodable(data, MAX_PIXELS), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_size(image.width, image.height, MAX_PIXELS)
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)  # by a quarter
        return (image.width, image.height) if turned else (image.height, image.width)


def rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image of any mode to uint8 RGB [H, W, 3], upright; transparency is laid over white.

    Raises:
        UndecodableImage: The pixels are 32-bit numbers, whose range no file format states.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F"):
        raise UndecodableImage("32-bit pixels: their range is not known")
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257  # 65535 = 255 * 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


@contextmanager
def _undecodable(data: bytes, max_pixels: int) -> Iterator[None]:
    """Turn whatever encoded bytes make a decoder raise into UndecodableImage."""
    if not data:
        raise UndecodableImage("empty file (zero bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damage that we either repair or report
            yield
    except UndecodableImage:
        raise
    except UnidentifiedImageError:
        raise UndecodableImage("not an image, or of an unknown kind") from None
    except Image.DecompressionBombError:
        raise UndecodableImage(f"more than {max_pixels:,} pixels: too large") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything: struct.error, IndexError, SyntaxError
        raise UndecodableImage(_reason(error)) from error


def _decode(data: bytes, max_pixels: int, reduction: Callable[[int, int], float] | None) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_size(image.width, image.height, max_pixels)
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            allowed = reduction(image.height, image.width) if reduction is not None else 1
            flags = next((flags for factor, flags in _REDUCED_RGB.items() if factor <= allowed), cv2.IMREAD_COLOR_RGB)
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            if pixels is not None:
                return pixels
        return rgb(image)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    size = f"{width}x{height} pixels"
    if min(width, height) < MIN_SIDE:
        raise UndecodableImage(f"{size}: too small")
    if width * height > max_pixels:
        raise UndecodableImage(f"{size}: too large, the limit is {max_pixels:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UndecodableImage(f"{size}: longer than {MAX_ASPECT} times its width")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower():
        return "truncated: the file ends before the image does"
    return f"damaged: {text or type(error).__name__}"[:160]
