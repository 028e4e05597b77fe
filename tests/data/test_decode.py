import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightssl.data import decode as module
from lightssl.data.decode import MAX_ASPECT, UndecodableImage, decode, image_size

HEIGHT, WIDTH = 48, 64


def smooth(seed: int = 0) -> np.ndarray:
    """Random colours without edges, which lossy formats keep nearly as they are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PIXELS = smooth()
IMAGE = Image.fromarray(PIXELS)
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_colour(kind: str) -> None:
    pixels = decode(encode(IMAGE, kind))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    tolerance = {"JPEG": 3, "WEBP": 4, "GIF": 12}.get(kind, 0)
    assert difference(pixels, PIXELS) <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_greyscale(kind: str) -> None:
    grey = IMAGE.convert("L")
    pixels = decode(encode(grey, kind))
    assert difference(pixels, np.asarray(grey.convert("RGB"))) <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind: str) -> None:
    bits = IMAGE.convert("L").point(lambda value: 255 * (value > 128)).convert("1")
    pixels = decode(encode(bits, kind))
    assert set(np.unique(pixels)) == {0, 255}
    np.testing.assert_array_equal(pixels, np.asarray(bits.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    alpha[: HEIGHT // 3], alpha[HEIGHT // 3 : 2 * HEIGHT // 3] = 255, 128
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode(encode(Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)), kind, **options))
    share = alpha / 255
    assert difference(pixels, np.round(PIXELS * share + 255 * (1 - share))) < 1
    assert (pixels[-1] == 255).all()


def test_grey_with_alpha_and_a_transparent_colour() -> None:
    grey = np.full((8, 8, 2), 100, np.uint8)
    grey[:, :4, 1], grey[:, 4:, 1] = 0, 255
    pixels = decode(encode(Image.fromarray(grey, "LA"), "PNG"))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 100).all()
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    keyed.paste((9, 9, 9), (4, 0, 8, 8))
    pixels = decode(encode(keyed, "PNG", transparency=(1, 2, 3)))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 9).all()


def test_palette() -> None:
    palette = IMAGE.quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encode(palette, "PNG")), expected)
    see_through = decode(encode(palette, "PNG", transparency=0))
    hidden = np.asarray(palette) == 0
    assert (see_through[hidden] == 255).all()
    np.testing.assert_array_equal(see_through[~hidden], expected[~hidden])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    # Pillow writes a CMYK JPEG as Adobe does, inverted and with an Adobe marker, and a TIFF upright.
    data = encode(IMAGE.convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
    assert (b"Adobe" in data) == (kind == "JPEG")
    assert difference(decode(data), PIXELS) < 4


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_to_eight(suffix: str) -> None:
    grey = (PIXELS[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    pixels = decode(cv2.imencode(suffix, grey)[1].tobytes())
    np.testing.assert_array_equal(pixels, np.repeat(PIXELS[..., :1], 3, axis=2))
    colour = decode(cv2.imencode(suffix, PIXELS[..., ::-1].astype(np.uint16) * 257)[1].tobytes())
    np.testing.assert_array_equal(colour, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    # EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored pixels are on the upright image.
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }[orientation](PIXELS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(decode(encode(IMAGE, kind, exif=exif)), upright) < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    data = encode(IMAGE, kind, save_all=True, append_images=[Image.fromarray(smooth(1)), Image.fromarray(smooth(2))])
    assert difference(decode(data), PIXELS) < 12


@pytest.mark.parametrize(("allowed", "divided"), [(1, 1), (1.9, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (50, 8)])
def test_a_jpeg_is_decoded_as_small_as_allowed(allowed: float, divided: int) -> None:
    asked = []

    def reduction(height: int, width: int) -> float:
        asked.append((height, width))
        return allowed

    pixels = decode(encode(IMAGE, "JPEG"), reduction=reduction)
    assert asked == [(HEIGHT, WIDTH)]
    assert pixels.shape == (HEIGHT // divided, WIDTH // divided, 3)
    assert difference(pixels, np.asarray(IMAGE.reduce(divided))) <= 4  # RGB, and the whole of the image
    assert decode(encode(IMAGE, "PNG"), reduction=reduction).shape == (HEIGHT, WIDTH, 3)


def test_decoded_pixels_pass_through() -> None:
    assert decode(PIXELS) is PIXELS
    with pytest.raises(UndecodableImage, match="too small"):
        decode(PIXELS[:1, :1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_file_is_refused(kind: str, share: float, progressive: bool) -> None:
    data = encode(IMAGE, kind, **({"progressive": progressive} if kind == "JPEG" else {}))
    with pytest.raises(UndecodableImage):
        decode(data[: int(len(data) * share)])


def test_the_reason_says_what_is_wrong() -> None:
    def reason(data: bytes, **limits: int) -> str:
        with pytest.raises(UndecodableImage) as caught:
            decode(data, **limits)
        return caught.value.reason

    jpeg = encode(IMAGE, "JPEG")
    assert reason(b"") == "empty file (zero bytes)"
    assert reason(b"<html>not found</html>") == "not an image, or of an unknown kind"
    assert reason(jpeg[: len(jpeg) // 2]) == "truncated: the file ends before the image does"
    assert reason(encode(Image.new("RGB", (1, 1)), "PNG")) == "1x1 pixels: too small"
    assert reason(encode(Image.new("RGB", (9, 1)), "PNG")) == "9x1 pixels: too small"
    long = (2 * MAX_ASPECT + 1, 2)
    assert "longer than" in reason(encode(Image.new("RGB", long), "PNG"))
    assert "32-bit" in reason(encode(Image.new("F", (8, 8)), "TIFF"))
    assert reason(jpeg, max_pixels=HEIGHT * WIDTH - 1) == "64x48 pixels: too large, the limit is 3,071"
    assert decode(jpeg, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", [(10_000, 9_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_refused_from_its_header(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = struct.pack(">4sIIBBBBB", b"IHDR", *size, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += struct.pack(">I4s", 100, b"IDAT") + b"\0" * 100

    def allocate(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", allocate)
    monkeypatch.setattr(module.cv2, "imdecode", allocate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UndecodableImage, match="too large"):
            decode(data)


def test_formats_that_start_programs_are_not_read() -> None:
    with pytest.raises(UndecodableImage, match="unknown kind"):
        decode(encode(IMAGE, "EPS"))


EXIF = Image.Exif()
EXIF[0x0112] = 6
SEEDS = [
    *(encode(IMAGE, kind) for kind in KINDS),
    encode(IMAGE, "JPEG", progressive=True, exif=EXIF),
    encode(IMAGE.convert("CMYK"), "JPEG"),
    encode(IMAGE.convert("RGBA"), "PNG", exif=EXIF),
    encode(IMAGE.quantize(16), "PNG", transparency=0),
    encode(IMAGE, "TIFF", compression="tiff_lzw"),
    encode(IMAGE.convert("1"), "TIFF", compression="group4"),
    encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)]),
]


def decodes_or_says_why(data: bytes) -> None:
    try:
        pixels = decode(data)
    except UndecodableImage as error:
        reason = error.reason
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        return
    assert reason
    assert "\n" not in reason


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    decodes_or_says_why(data)


@given(
    seed=st.sampled_from(SEEDS),
    patches=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    kept=st.floats(0.01, 1),
)
@settings(max_examples=400, deadline=None)
def test_damaged_files_never_raise_anything_else(seed: bytes, patches: list[tuple[int, int]], kept: float) -> None:
    data = bytearray(seed)
    for position, value in patches:
        # Half of the patches hit the header, where damage does the most.
        data[position // 2 % (len(data) if position % 2 else min(len(data), 200))] = value
    decodes_or_says_why(bytes(data[: max(1, int(len(data) * kept))]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_a_header_is_that_of_the_decoded_image(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "JPEG", exif=exif)
    assert image_size(file.getvalue()) == decode(file.getvalue()).shape[:2]


def test_the_size_needs_no_pixels_but_an_image() -> None:
    file = io.BytesIO()
    Image.effect_noise((400, 300), 60).save(file, "JPEG")
    assert image_size(file.getvalue()[:2000]) == (300, 400)
    assert image_size(np.zeros((5, 7, 3), np.uint8)) == (5, 7)
    for data, reason in (
        (b"", "empty file"),
        (b"no image", "not an image"),
        (np.zeros((1, 7, 3), np.uint8), "too small"),
    ):
        with pytest.raises(UndecodableImage, match=reason):
            image_size(data)
