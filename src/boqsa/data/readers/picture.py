"""Image files to arrays with nothing lost in silence: every conversion is told to the caller."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from boqsa.errors import InputError

Notice = Callable[[str], None]
REDUCED = "16 bits reduced to 8"
TURNED = "EXIF orientation applied"
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


def open_picture(path: Path, notice: Notice = lambda _: None) -> Image.Image:
    """Decode the whole of an image file and turn it upright by its EXIF orientation.

    Raises:
        InputError: if the file is missing, truncated or not an image.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and odd metadata are no concern of the user's
            opened = Image.open(file)
            # Pillow keeps the high bytes of 16-bit RGB without a word; only the decoder's name tells.
            deep_rgb = opened.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in opened.tile)
            opened.load()
            turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is a broken image: {error}.") from None
    if deep_rgb:
        notice(REDUCED)
    if turn is not None:
        notice(TURNED)
        return opened.transpose(turn)
    return opened


def read_rgb(path: Path, notice: Notice) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image as 8-bit RGB, upright by its EXIF orientation.

    `notice` is called with a phrase for each conversion that a user should hear of: alpha dropped, 16 bits
    reduced to 8, CMYK converted, EXIF orientation applied.

    Raises:
        InputError: as `open_picture`, and for a pixel format without a fixed range.
    """
    picture = open_picture(path, notice)
    if picture.mode in SIXTEEN_BITS:
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has {picture.mode} pixels without a fixed range; save it with 8 bits.")
        notice(REDUCED)
        grey = (values >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise InputError(f"{path} has floating-point pixels without a fixed range; save it with 8 bits.")
    if picture.mode in ("CMYK", "YCCK"):
        notice("CMYK converted to RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        notice("alpha dropped")
    return np.asarray(picture.convert("RGB"))
