"""Single image files: pixel formats and damage."""

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from boqsa.data.readers.picture import open_picture, read_rgb
from boqsa.errors import InputError


def write_png(path: Path, header: bytes, rows: bytes, *more: tuple[bytes, bytes]) -> None:
    """Write a PNG chunk by chunk; `more` come between its header and its pixels."""
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


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
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), rows)
    phrases: list[str] = []
    assert read_rgb(tmp_path / "a.png", phrases.append).tolist() == [[[0x12, 0x56, 0x9A], [0, 0, 0xFF]]]
    assert phrases == ["16 bits reduced to 8"]


def test_a_file_is_what_its_first_bytes_say(tmp_path: Path) -> None:
    Image.new("RGB", (2, 3), (255, 0, 0)).save(tmp_path / "a.png", format="BMP")
    assert open_picture(tmp_path / "a.png").size == (2, 3)
    Image.new("RGB", (2, 3)).save(tmp_path / "b.png", format="ICO")
    (tmp_path / "c.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )  # Pillow would start a program
    read = "PNG, JPEG, BMP, WEBP, TIFF, GIF, PPM"
    for name in ("b.png", "c.png"):
        with pytest.raises(InputError, match=rf"{name} is not an image \({read} are read\)"):
            open_picture(tmp_path / name)
    (tmp_path / "d.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")  # as phones do
    with pytest.raises(InputError, match=r"d\.jpg is HEIC, which is not read; convert it to JPEG"):
        open_picture(tmp_path / "d.jpg")


@pytest.mark.parametrize("suffix", ["tif", "gif", "ppm"])
def test_other_formats_without_loss_are_read_alike(suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[1:3, 2:] = (255, 0, 51)
    frames = {} if suffix == "ppm" else {"save_all": True, "append_images": [Image.new("RGB", (5, 4), (9, 9, 9))]}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **frames)
    phrases: list[str] = []
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{suffix}", phrases.append), pixels)
    assert phrases == (["of several frames or pages the first one taken"] if frames else [])


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("tif", np.int32), ("tif", np.float32), ("tif", np.uint16), ("pgm", np.uint16)]
)
def test_only_sixteen_bits_have_a_range(suffix: str, dtype: type, tmp_path: Path) -> None:
    """Values up to 255 in 32 bits may be a grey picture or a dark one."""
    path = tmp_path / f"a.{suffix}"
    values = np.array([[0, 100, 255]], dtype)
    Image.fromarray(values if dtype != np.uint16 else values * 257).save(path)
    if dtype == np.uint16:
        assert read_rgb(path, lambda _: None)[0, :, 0].tolist() == [0, 100, 255]
    else:
        with pytest.raises(InputError, match=r"a\.tif has (32-bit|floating-point) pixels without a fixed range"):
            read_rgb(path, lambda _: None)


@pytest.mark.parametrize(("side", "found"), [(10_001, "10001x10001 pixels"), (60_000, "far more")])
def test_a_picture_that_promises_too_much_is_not_decoded(side: int, found: str, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"")
    tracemalloc.start()
    with pytest.raises(InputError, match=f"a.png has {found}; at most 100 million pixels are read"):
        open_picture(tmp_path / "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_the_largest_picture_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boqsa.data.readers.picture.MOST_PIXELS", 12)
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").size == (4, 3)
    Image.new("L", (13, 1)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="1x13 pixels"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_chunks_that_unpack_to_a_lot(kind: bytes, tmp_path: Path) -> None:
    long = zlib.compress(bytes(8_000_000), 9)
    before = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0", b"iCCP": b"key\0\0"}[kind]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    write_png(tmp_path / "a.png", header, b"\0\1\2\3", (kind, before + long))
    phrases: list[str] = []
    try:
        assert read_rgb(tmp_path / "a.png", phrases.append).tolist() == [[[1, 2, 3]]]  # where the decoder skips them
    except InputError as error:
        assert "a.png is a broken image: " in str(error)  # noqa: PT017
    write_png(tmp_path / "b.png", header, b"\0\1\2\3", *[(b"tEXt", b"key\0" + bytes(900_000))] * 80)
    with pytest.raises(InputError, match=r"b\.png is a broken image: .*text"):
        open_picture(tmp_path / "b.png")


def test_every_cut_of_a_png_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for length in range(len(content) - 20):  # the last bytes are the end marker, which decoders do not need
        (tmp_path / "a.png").write_bytes(content[:length])
        with pytest.raises(InputError):
            open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    phrases: list[str] = []
    with Image.open(tmp_path / f"a.{suffix}") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{suffix}", phrases.append), expected)
    assert phrases == ([] if orientation == 1 else ["EXIF orientation applied"])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_picture(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    os.mkfifo(tmp_path / "c.png")  # opening it would wait for a writer
    for name in ("b.png", "c.png"):
        with pytest.raises(InputError, match=f"{name} is not a file"):
            open_picture(tmp_path / name)


def test_a_picture_may_stay_as_it_is_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", exif=exif)
    phrases: list[str] = []
    assert read_rgb(tmp_path / "a.png", phrases.append, upright=False).shape == (2, 3, 3)
    assert phrases == ["EXIF orientation ignored, as the masks lie as stored"]
    assert read_rgb(tmp_path / "a.png", phrases.append).shape == (3, 2, 3)


@pytest.mark.parametrize("part", [b"IHDR", b"IDAT", b"IEND"])
def test_a_wrong_checksum_in_a_png_is_found(part: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 50, 3), 7, np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    start = content.index(part) - 4
    length = int.from_bytes(content[start : start + 4], "big")
    content[start + 8 + length] ^= 1  # the first byte of its checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a broken image|is not an image"):
        open_picture(path)


def test_a_png_that_lost_its_end_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 50, 3), 7, np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="a broken image"):
        open_picture(path)
