"""Single image files: pixel formats and damage."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from boqsa.data.readers.picture import open_picture, read_rgb
from boqsa.errors import InputError


def test_palette_with_transparency_loses_its_alpha_aloud(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    phrases: list[str] = []
    assert read_rgb(tmp_path / "a.png", phrases.append).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert phrases == ["alpha dropped"]


def test_grey_is_repeated_without_a_word(tmp_path: Path) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(grey).save(tmp_path / "a.png")
    phrases: list[str] = []
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", phrases.append), np.stack([grey] * 3, axis=2))
    assert phrases == []


def test_sixteen_bit_colours_are_told(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 1, 0xFFFF)  # filter byte, two pixels

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    phrases: list[str] = []
    assert read_rgb(tmp_path / "a.png", phrases.append).tolist() == [[[0x12, 0x56, 0x9A], [0, 0, 0xFF]]]
    assert phrases == ["16 bits reduced to 8"]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="without a fixed range"):
        read_rgb(tmp_path / "a.tiff", lambda _: None)


def test_every_cut_of_a_png_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for length in range(len(content) - 20):  # the last bytes are the end marker, which decoders do not need
        (tmp_path / "a.png").write_bytes(content[:length])
        with pytest.raises(InputError):
            open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    phrases: list[str] = []
    with Image.open(tmp_path / "a.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", phrases.append), expected)
    assert phrases == ([] if orientation == 1 else ["EXIF orientation applied"])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_picture(tmp_path / "a.png")
