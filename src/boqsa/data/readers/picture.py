"""Image files to arrays with nothing lost in silence: every conversion is told to the caller.

Notable choices:
 - A file is what its first bytes say, whatever its name ends in, and only the formats of data sets are tried.
 - The size stands in the header and is looked at before anything is decoded: a few bytes can promise gigabytes.
 - The checksums of a PNG are compared: the decoder does not look at those of the pixels.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
MOST_PIXELS = 100_000_000
_BLOCK = 1 << 20
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
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
        # Pillow keeps the high bytes of 16-bit RGB without a word; only the decoder's arguments tell (`tile[-1]`).
        deep_rgb = opened.mode in ("RGB", "RGBA") and any(";16" in str(tile[-1]) for tile in opened.tile)
        if opened.format == "PNG":
            _verify_png(file)
        opened.load()
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
        if deep_rgb:
            notice(REDUCED)
        if turn is None:
            return opened
        notice(TURNED if upright else LEFT_AS_STORED)
        return opened.transpose(turn) if upright else opened


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
        raise InputError(f"{path} is not an image ({', '.join(FORMATS)} are read).") from None
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
        if picture.mode in SIXTEEN_BITS:
            values = np.asarray(picture)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(f"{path} has {picture.mode} pixels without a fixed range; save it with 8 bits.")
            notice(REDUCED)
            grey = (values >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if picture.mode in ("CMYK", "YCCK"):
            notice("CMYK converted to RGB")
        if picture.mode == "P" and "transparency" in picture.info:
            picture = picture.convert("RGBA")
        if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
            notice("alpha dropped")
        return np.asarray(picture.convert("RGB"))
