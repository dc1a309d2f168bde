"""Crops and resampling of images and label maps, by the names of spec/datasets.md 0.3.

Images take Pillow's bilinear filter, whose support grows when it shrinks (`pil-bilinear`). Label maps take
the nearest source pixel, on one of two grids: `pil-nearest` is aligned with the images', `torch-nearest` is
the published ShapeStacks choice and lies half an output pixel beside it.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

MaskResample = Literal["pil-nearest", "torch-nearest"]


def centre_crop(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The central `size` = (height, width) of an array (H, W, ...); starts at (side - crop) // 2."""
    top = (pixels.shape[0] - size[0]) // 2
    left = (pixels.shape[1] - size[1]) // 2
    return pixels[top : top + size[0], left : left + size[1]]


def centre_square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest central square of an array (H, W, ...)."""
    side = min(pixels.shape[:2])
    return centre_crop(pixels, (side, side))


def resize_image(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resize to (height, width) by `pil-bilinear`; the aspect ratio is not kept."""
    if image.shape[:2] == size:
        return image
    height, width = size
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(
    mask: UInt8[np.ndarray, "h w"], size: tuple[int, int], resample: MaskResample = "pil-nearest"
) -> UInt8[np.ndarray, "h2 w2"]:
    """Resize a label map to (height, width) without mixing labels.

    Output pixel i takes source pixel floor((i + 0.5) * in / out) by `pil-nearest`, floor(i * in / out) by
    `torch-nearest`.
    """
    if mask.shape == size:
        return mask
    height, width = size
    if resample == "torch-nearest":
        rows = np.arange(height) * mask.shape[0] // height
        columns = np.arange(width) * mask.shape[1] // width
        picked: NDArray[np.uint8] = mask[rows[:, None], columns]
        return picked
    picture = Image.fromarray(np.ascontiguousarray(mask))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
