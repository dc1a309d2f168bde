"""Any picture people have, as 8-bit RGB, upright: the pixels that preparing a data set would give."""

import struct
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from boqsa.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What counts as a picture in a folder. A file that is named itself may have any suffix."""

MAX_PIXELS = 89_478_485
"""Larger pictures are refused: Pillow calls them possible decompression bombs from here on."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS, which starts a program


def read_picture(picture: str | Path | Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a picture whole and turn it upright by its EXIF orientation.

    16 bits are reduced to 8 by their high byte, alpha is dropped as in training, CMYK and palettes are
    converted, of an animation the first frame counts.

    Raises:
        InputError: if the file is missing, truncated, not an image, larger than `MAX_PIXELS`, or has pixels
            without a fixed range.
    """
    name = "the picture" if isinstance(picture, Image.Image) else str(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata and Pillow's own size warning; the size is checked here
            given = nullcontext(picture) if isinstance(picture, Image.Image) else Image.open(picture, formats=_FORMATS)
            with given as opened:
                _check_size(opened, name)
                opened.load()
                return _to_rgb(ImageOps.exif_transpose(opened), name)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist.") from None
    except PermissionError:
        raise InputError(f"{name} cannot be read; you lack the permission.") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture; JPEG, PNG and the like are read.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is a broken picture: {error}.") from None


def _check_size(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width} x {height} pixels; make it smaller than {MAX_PIXELS // 10**6} million.")
    if not width * height:
        raise InputError(f"{name} has no pixels.")


def _to_rgb(picture: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    if picture.mode == "F":
        raise InputError(f"{name} has floating-point pixels without a fixed range; save it with 8 bits.")
    if picture.mode.startswith("I"):  # 16 bits, in one of several byte orders; Pillow's own conversion clips them
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{name} has 32-bit pixels without a fixed range; save it with 8 bits.")
        grey = (values >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))
