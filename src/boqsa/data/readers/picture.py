"""Image files to arrays with nothing lost in silence: every conversion is told to the caller.

Notable choices:
 - A file is what its first bytes say, whatever its name ends in, and only the formats below are tried: not EPS, which
   starts a program, and not AVIF, which some installations of Pillow read and others do not.
 - The size stands in the header and is looked at before anything is decoded: a few bytes can promise gigabytes.
 - The checksums of a PNG are compared: the decoder does not look at those of the pixels.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from boqsa.errors import InputError

Notice = Callable[[str], None]
REDUCED = "16 bits reduced to 8"
TURNED = "EXIF orientation applied"
LEFT_AS_STORED = "EXIF orientation ignored, as the masks lie as stored"
FIRST_FRAME = "of several frames or pages the first one taken"
MOST_PIXELS = 100_000_000
_BLOCK = 1 << 20
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as a picture in a folder."""
_RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw")
UNREAD_SUFFIXES = (".avif", ".heic", ".heif", ".hif", ".jp2", ".jxl", ".psd", ".svg", ".tga", *_RAW_SUFFIXES)
"""Pictures that people have, in formats that are not read: in a folder they are told, not passed over."""
_UNREAD_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys((b"heic", b"heix", b"heim", b"mif1"), "HEIC")}
"""What bytes 8 to 12 of such a file say, where 4 to 8 are `ftyp`; phones give some a name that ends in .jpg."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_SIXTEEN_AS_32 = ("PNG", "PPM")
"""Formats without 32-bit pixels: where Pillow calls them so, it read 16 bits."""


def open_picture(path: Path, notice: Notice = lambda _: None, *, upright: bool = True) -> Image.Image:
    """Decode the whole of an image file and turn it upright by its EXIF orientation.

    Args:
        path: The file.
        notice: Called with a phrase for each conversion that a user should hear of.
        upright: False leaves the picture as it is stored, for sets whose masks or boxes were made that way.

    Raises:
        InputError: if the file is missing, damaged, not an image, or has more than `MOST_PIXELS`.
    """
    if not path.is_file():
        raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    with decoding(path), open(path, "rb") as file:
        opened = Image.open(file, formats=FORMATS)
        if opened.width * opened.height > MOST_PIXELS:
            raise InputError(_too_large(path, f"{opened.height}x{opened.width} pixels"))
        if opened.format != "MPO" and getattr(opened, "is_animated", False):  # MPO: what a camera puts behind a JPEG
            notice(FIRST_FRAME)
        # Pillow turns a TIFF while it decodes it, and the orientation is gone then.
        is_turned = opened.format == "TIFF" and opened.getexif().get(_ORIENTATION, 1) in _TURNS
        # Pillow keeps the high bytes of 16-bit RGB without a word; only the decoder's arguments tell (`tile[-1]`).
        deep_rgb = opened.mode in ("RGB", "RGBA") and any(";16" in str(tile[-1]) for tile in opened.tile)
        if opened.format == "PNG":
            _verify_png(file)
        opened.load()
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
        if deep_rgb:
            notice(REDUCED)
        if is_turned:
            notice(TURNED)
        if turn is None:
            return opened
        notice(TURNED if upright else LEFT_AS_STORED)
        if not upright:
            return opened
        turned = opened.transpose(turn)
        turned.format = opened.format
        return turned


def why_unread(path: str | Path) -> str | None:
    """What is said of a picture in a format that is not read, by its first bytes or its suffix; None of other files."""
    kind = None
    with suppress(OSError), open(path, "rb") as file:
        first = file.read(12)
        if first[4:8] == b"ftyp":
            kind = _UNREAD_BRANDS.get(first[8:])
    suffix = Path(path).suffix.lower()
    kind = kind or (suffix[1:].upper() if suffix in UNREAD_SUFFIXES else None)
    return f"{path} is {kind}, which is not read; convert it to JPEG." if kind else None


def _verify_png(file: BinaryIO) -> None:
    """Compare the checksum of every chunk; the file's position is left where it was."""
    position = file.tell()
    file.seek(8)  # the signature
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", file.read(8))
        checksum = zlib.crc32(name)
        for start in range(0, length, _BLOCK):
            checksum = zlib.crc32(file.read(min(_BLOCK, length - start)), checksum)
        if checksum != int.from_bytes(file.read(4), "big"):
            raise ValueError(f"wrong checksum of its part {name.decode('latin-1')!r}")
    file.seek(position)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside while `path` is decoded is an `InputError` that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no concern of the user's
            yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(why_unread(path) or f"{path} is not an image ({', '.join(FORMATS)} are read).") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(path, "far more")) from None
    except Exception as error:  # decoders of damaged files raise whatever they run into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is a broken image: {reason.rstrip('.')}.") from None


def check_pair(
    image: Path,
    image_shape: tuple[int, ...],
    mask: Path,
    mask_shape: tuple[int, ...],
    *,
    turned: bool = False,
    what: str = "mask",
) -> None:
    """Go on if an image and its mask have the same height and width; `turned` tells that the image was put upright, and
    `what` what the mask is called.

    Raises:
        InputError: if they have not.
    """
    if image_shape[:2] != mask_shape[:2]:
        upright = " once its EXIF orientation is applied" if turned else ""
        found, of_mask = ("x".join(map(str, shape[:2])) for shape in (image_shape, mask_shape))
        raise InputError(f"{image} is {found}{upright}, its {what} {mask} is {of_mask}; they must agree.")


def _too_large(path: Path, found: str) -> str:
    return f"{path} has {found}; at most {MOST_PIXELS // 10**6} million pixels are read: make it smaller."


def read_rgb(path: Path, notice: Notice, *, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image as 8-bit RGB, upright by its EXIF orientation.

    `notice` is called with a phrase for each conversion that a user should hear of: alpha dropped, 16 bits
    reduced to 8, CMYK converted, EXIF orientation applied. `upright` is that of `open_picture`.

    Raises:
        InputError: as `open_picture`, and for a pixel format without a fixed range.
    """
    picture = open_picture(path, notice, upright=upright)
    with decoding(path):
        return to_rgb(picture, str(path), notice)


def to_rgb(picture: Image.Image, name: str, notice: Notice = lambda _: None) -> UInt8[np.ndarray, "h w 3"]:
    """A decoded picture as 8-bit RGB, as it lies. Of 16 bits the high byte is taken.

    Args:
        picture: In any mode of Pillow.
        name: What messages call it.
        notice: As for `read_rgb`.

    Raises:
        InputError: for floating-point and 32-bit pixels: nobody knows which value is white.
    """
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in _SIXTEEN_AS_32):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise InputError(f"{name} has {kind} pixels without a fixed range; save it with 8 or 16 bits.")
    if picture.mode in SIXTEEN_BITS:  # Pillow's own conversion clips them
        notice(REDUCED)
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("CMYK", "YCCK"):
        notice("CMYK converted to RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        notice("alpha dropped")
    return np.asarray(picture.convert("RGB"))
