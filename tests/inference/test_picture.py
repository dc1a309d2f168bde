"""Reading any picture: equal to what preparing a data set reads, or refused in one clear line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from boqsa.data.readers.picture import read_rgb
from boqsa.errors import InputError
from boqsa.inference import picture
from boqsa.inference.picture import read_picture


def test_every_mode_gives_the_pixels_that_training_saw(zoo):
    for path in zoo.values():
        pixels = read_picture(path)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, read_rgb(path, lambda _: None), err_msg=path.name)


def test_an_open_picture_is_read_like_its_file(zoo):
    for path in zoo.values():
        with Image.open(path) as opened:
            np.testing.assert_array_equal(read_picture(opened), read_picture(path), err_msg=path.name)


def test_sixteen_bits_are_reduced_and_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png")[0].tolist() == [[0] * 3, [0x12] * 3, [0xFF] * 3]


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    pixels = np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").tolist() == [[[255, 0, 0]], [[0, 255, 0]]]


def test_broken_files_are_named(broken):
    for path in broken.values():
        with pytest.raises(InputError, match=path.name) as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        read_picture(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    """A header of a gigantic picture; there is no pixel behind it, so decoding would fail otherwise."""
    for side in (10_000, 60_000):  # Pillow only warns of the first and refuses the second
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        data = b"IDAT" + zlib.compress(b"")
        (tmp_path / "bomb.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + struct.pack(">I", len(header))
            + chunk
            + struct.pack(">I", zlib.crc32(chunk))
            + struct.pack(">I", len(data) - 4)
            + data
            + struct.pack(">I", zlib.crc32(data))
        )
        found = "10000 x 10000" if side == 10_000 else "3600 million"
        with pytest.raises(InputError, match=rf"bomb\.png has {found} pixels; make it smaller than 89 million"):
            read_picture(tmp_path / "bomb.png")


def test_the_largest_picture_is_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "MAX_PIXELS", 12)
    assert read_picture(Image.new("RGB", (4, 3))).shape == (3, 4, 3)
    with pytest.raises(InputError, match="13 x 1"):
        read_picture(Image.new("RGB", (13, 1)))


@pytest.mark.parametrize("values", [np.zeros((2, 2), dtype=np.float32), np.full((2, 2), 255, dtype=np.int32)])
def test_pixels_without_a_range_are_refused(tmp_path, values):
    picture = Image.fromarray(values)
    picture.save(tmp_path / "raw.tif")
    for given in (tmp_path / "raw.tif", picture):
        with pytest.raises(InputError, match="without a fixed range"):
            read_picture(given)


def test_sixteen_bits_that_pillow_calls_32_are_read(tmp_path):
    """Some versions do so with PNG, and all with PGM."""
    deep = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.pgm")
    as_32 = Image.fromarray(deep.astype(np.int32))
    as_32.format = "PNG"
    for given in (tmp_path / "deep.pgm", as_32):
        assert read_picture(given)[0, :, 1].tolist() == [0, 0x12, 0xFF]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("a.JXL", b"\xff\x0a", "JXL"),
    ],
)
def test_formats_that_are_not_read_are_called_by_their_names(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is {kind}, which is not read; convert it to JPEG\.$"):
        read_picture(tmp_path / name)


def test_formats_that_start_programs_are_not_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    with pytest.raises(InputError, match="not a picture"):
        read_picture(tmp_path / "page.eps")
