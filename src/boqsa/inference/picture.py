"""Any picture people have, as 8-bit RGB, upright: the pixels that preparing a data set would give."""

import re
import struct
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from boqsa.data.readers.picture import FORMATS, to_rgb, why_unread
from boqsa.errors import InputError

MAX_PIXELS = 89_478_485
"""Larger pictures are refused: Pillow calls them possible decompression bombs from here on."""

MAX_SIDE = 65_535
"""Longer pictures are refused too, as by JPEG: masks are enlarged to their whole height at once."""

_SMALLER = f"make it smaller than {MAX_PIXELS // 10**6} million, and no side longer than {MAX_SIDE}"


def to_picture(picture: Any) -> UInt8[np.ndarray, "H W 3"]:
    """What people hold a picture in, as 8-bit RGB.

    Args:
        picture: A path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W); numbers are uint8, or
            floating point from 0 to 1.

    Raises:
        InputError: if it is none of these, or a file cannot be read.
    """
    if isinstance(picture, str | Path | Image.Image):
        return read_picture(picture)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or len(picture) != 3:
            raise InputError(f"a tensor (3, height, width) expected, {tuple(picture.shape)} found.")
        last = picture.detach().movedim(0, -1).cpu()
        pixels = (last.float() if last.is_floating_point() else last).numpy()
    elif isinstance(picture, np.ndarray):
        pixels = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    else:
        raise InputError(f"a path, a PIL image, an array or a tensor expected, {type(picture).__name__} found.")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(f"an array (height, width, 3) or (height, width) expected, {pixels.shape} found.")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS or max(pixels.shape) > MAX_SIDE:
        raise InputError(f"the picture has {pixels.shape[1]} x {pixels.shape[0]} pixels; {_SMALLER}.")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError("floating-point pixels must lie in 0 to 1; divide by 255, or give uint8.")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"pixels are {pixels.dtype}; uint8, or floating point from 0 to 1, expected.")
    return pixels


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
            given = nullcontext(picture) if isinstance(picture, Image.Image) else Image.open(picture, formats=FORMATS)
            with given as opened:
                _check_size(opened, name)
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                upright.format = opened.format
                return to_rgb(upright, name)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist.") from None
    except PermissionError:
        raise InputError(f"{name} cannot be read; you lack the permission.") from None
    except UnidentifiedImageError:
        raise InputError(why_unread(name) or f"{name} is not a picture; JPEG, PNG and the like are read.") from None
    except Image.DecompressionBombError as error:  # raised before the size can be asked for
        count = re.search(r"\d+", str(error))
        pixels = f"{int(count[0]) // 10**6} million" if count else "far too many"
        raise InputError(f"{name} has {pixels} pixels; {_SMALLER}.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{name} is a broken picture: {error}.") from None


def _check_size(picture: Image.Image, name: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name} has {width} x {height} pixels; {_SMALLER}.")
    if not width * height:
        raise InputError(f"{name} has no pixels.")
