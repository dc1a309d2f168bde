"""Image files to arrays with nothing lost in silence: every conversion is told to the caller."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from boqsa.errors import InputError

Notice = Callable[[str], None]
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def open_picture(path: Path) -> Image.Image:
    """Open and decode the whole of an image file.

    Raises:
        InputError: if the file is missing, truncated or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is a broken image: {error}.") from None
    return picture


def read_rgb(path: Path, notice: Notice) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image as 8-bit RGB, upright by its EXIF orientation.

    `notice` is called with a phrase for each conversion that a user should hear of: alpha dropped, 16 bits
    reduced to 8, CMYK converted, EXIF orientation applied.

    Raises:
        InputError: as `open_picture`, and for a pixel format without a fixed range.
    """
    picture = open_picture(path)
    if picture.getexif().get(0x0112, 1) != 1:
        notice("EXIF orientation applied")
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in SIXTEEN_BITS:
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has {picture.mode} pixels without a fixed range; save it with 8 bits.")
        notice("16 bits reduced to 8")
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
