"""Bytes become the RGB that they mean, or are refused: made files whose right answer is known."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from builders import encoded
from dayfold.errors import IntakeError
from dayfold.ledger.decode import decode, examine

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def image_of(rows, mode="RGB"):
    made = Image.new(mode, (len(rows[0]), len(rows)))
    for y, row in enumerate(rows):
        for x, pixel in enumerate(row):
            made.putpixel((x, y), pixel)
    return made


def decoded(data):
    found = decode(data)
    assert found.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(found).tolist()]


def grey(*values):
    return [[(value, value, value) for value in values]]


def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(bits, white_is_zero, data):
    """A grey TIFF of one row, by hand: Pillow writes few of its many forms."""
    width, data = len(data) * 8 // bits, data + bytes(len(data) % 2)
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 0 if white_is_zero else 1}
    tags |= {273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<I", 8 + len(data))
    return b"II*\0" + start + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_colours_come_back_from_every_lossless_format_and_nearly_from_jpeg(form):
    rows = [[RED, GREEN], [BLUE, WHITE]]
    options = {"lossless": True} if form == "WEBP" else {}
    assert decoded(encoded(image_of(rows), form, **options)) == rows
    (row,) = decoded(encoded(Image.new("RGB", (1, 1), (200, 100, 50)), "JPEG", quality=95))
    assert row[0] == pytest.approx((200, 100, 50), abs=4)


DEEP = np.arange(256, dtype=np.uint16)[None, :] * 257


@pytest.mark.parametrize(
    ("data", "values"),
    [
        # 16 bits are scaled, not clipped, in either byte order, and round where white is zero.
        (encoded(Image.fromarray(DEEP)), range(256)),
        (encoded(Image.fromarray(DEEP), "TIFF"), range(256)),
        (tiff(16, False, struct.pack("<3H", 0, 257 * 9, 65535)), (0, 9, 255)),
        (encoded(image_of([[0, 257 * 9, 65535]], "I;16B"), "TIFF"), (0, 9, 255)),
        (tiff(16, True, struct.pack("<3H", 0, 257 * 9, 65535)), (255, 246, 0)),
        # 12 bits by their own range; 8 bits and 1 as they are.
        (tiff(12, False, b"\xff\xf0\x00"), (255, 0)),
        (encoded(image_of([[0, 7, 255]], "L")), (0, 7, 255)),
        (encoded(image_of([[0, 1]], "1")), (0, 255)),
    ],
)
def test_grey_of_every_depth_becomes_8_bits(data, values):
    assert decoded(data) == grey(*values)


def test_of_12_bits_in_a_range_of_16_it_is_said_that_they_are_nearly_black():
    (said,) = examine(encoded(Image.fromarray(DEEP // 16), "TIFF")).remarks
    assert "is nearly black" in said
    for whole in (Image.fromarray(DEEP // 15), image_of([[0, 15]], "L")):
        assert examine(encoded(whole, "TIFF")).remarks == ()


def test_what_is_transparent_is_composited_on_black():
    rows = [[(255, 0, 0, 255), (255, 0, 0, 0), (200, 100, 50, 51)]]
    # 51 of 255 is a fifth.
    assert decoded(encoded(image_of(rows, "RGBA"))) == [[RED, BLACK, (40, 20, 10)]]
    assert decoded(encoded(image_of([[(200, 51), (200, 0)]], "LA"))) == grey(40, 0)
    image = image_of([[0, 1, 2]], "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    assert decoded(encoded(image)) == [[RED, GREEN, BLUE]]
    assert decoded(encoded(image, transparency=1)) == [[RED, BLACK, BLUE]]
    assert decoded(encoded(image, "GIF", transparency=2)) == [[RED, GREEN, BLACK]]
    assert decoded(encoded(image_of([[RED, BLUE]]), transparency=RED)) == [[BLACK, BLUE]]
    assert decoded(encoded(image_of([[9, 99]], "L"), transparency=99)) == grey(9, 0)
    deep = Image.fromarray(np.array([[257 * 9, 257 * 99]], dtype=np.uint16))
    assert decoded(encoded(deep, transparency=257 * 99)) == grey(9, 0)


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_cmyk_is_turned_into_rgb(form):
    assert decoded(encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), form)) == [[RED]]


SEEN = ("AB CD", "BA DC", "DC BA", "CD AB", "AC BD", "CA DB", "DB CA", "BD AC")


@pytest.mark.parametrize(("orientation", "seen"), [*enumerate(SEEN, start=1)])
def test_exif_orientation_is_applied(orientation, seen):
    colour = dict(zip("ABCD", (RED, GREEN, BLUE, WHITE), strict=True))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image_of([[RED, GREEN], [BLUE, WHITE]])
    found = decoded(encoded(stored, exif=exif.tobytes()))
    assert found == [[colour[letter] for letter in row] for row in seen.split()]


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_counts_and_that_there_are_more_is_known(form):
    frames = [Image.new("RGB", (1, 1), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert decoded(data) == [[RED]]
    assert examine(data).has_frames
    assert not examine(encoded(frames[0], form)).has_frames


def test_the_jpeg_of_a_phone_with_a_second_picture_in_it_is_one_jpeg():
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    found = examine(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert (found.form, found.has_frames) == ("JPEG", False)
    assert found.image.getpixel((8, 8)) == pytest.approx(RED, abs=4)


def test_16_bit_colours_are_scaled():
    # By hand, as Pillow writes none: two pixels of a PNG with 16 bits a channel.
    colours = struct.pack(">6H", 257 * 200, 257 * 100, 257 * 50, 0, 65535, 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" + colours)) + chunk(b"IEND", b"")
    assert decoded(b"\x89PNG\r\n\x1a\n" + header + body) == [[(200, 100, 50), (0, 255, 1)]]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_colour_profile_changes_no_pixel(form):
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_it = encoded(image, form, icc_profile=profile)
    assert profile in with_it or form == "PNG"
    assert decoded(with_it) == decoded(encoded(image, form))


FORMS = [(form, {}) for form in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")]


@pytest.mark.parametrize(("form", "options"), [*FORMS, ("JPEG", {"progressive": True})])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(form, options, part):
    data = encoded(NOISE, form, **options)
    assert decode(data).size == (64, 64)
    with pytest.raises(IntakeError, match=r"is damaged|is not an image"):
        decode(data[: int(len(data) * part)])


def test_a_png_without_its_end_or_with_a_flipped_bit_is_refused():
    data = encoded(NOISE)
    assert decode(data + b"what an upload left").size == (64, 64)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for damaged in (bytes(flipped), *(data[:-missing] for missing in (1, 4, 8, 12, 16, 22))):
        with pytest.raises(IntakeError, match="is damaged"):
            decode(damaged)


OTHERS = [encoded(Image.new("RGB", (16, 16)), form) for form in ("PPM", "TGA", "ICO")]
NO_IMAGE = r"^is not an image \(PNG, JPEG, BMP, TIFF, WEBP, GIF, DICOM\)"


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<!DOCTYPE html><html></html>", b"\x89PNG", b"\0" * 4096, *OTHERS]
)
def test_what_is_no_image_or_of_another_format_is_refused(data):
    with pytest.raises(IntakeError, match=NO_IMAGE if data else r"^is empty \(0 bytes\)"):
        decode(data)


def test_a_decompression_bomb_is_refused_before_it_goes_off():
    for side in (10_000, 20_000, 100_000):
        with pytest.raises(IntakeError, match="is too large to be decoded safely"):
            decode(png_that_claims(side, side))


def test_grey_of_32_bits_or_of_floating_point_is_refused_not_clipped():
    floating = encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    for data in (tiff(32, False, struct.pack("<3I", 0, 2**20, 2**31)), floating):
        with pytest.raises(IntakeError, match="no range to scale by"):
            decode(data)


def test_decoding_in_threads_leaves_the_filters_of_warnings_alone():
    small, before = encoded(Image.new("RGB", (20, 20))), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(lambda _: decode(small).size, range(3000)))
    assert sizes == {(20, 20)}
    assert warnings.filters == before
