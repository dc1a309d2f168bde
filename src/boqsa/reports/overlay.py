"""Label maps in colour: alone, or over the picture they belong to. Enlarge small pictures first."""

import numpy as np
from numpy.typing import NDArray

from boqsa.reports.palette import slot_colours

IGNORED = np.array([128, 128, 128], dtype=np.uint8)
"""Colour of pixels whose label is below 0."""

_STRENGTH = 115  # of 256: how much of the slot's colour covers the picture
_LINES_A_SIDE = 300  # a boundary is as wide as the shorter side over this


def paint(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The colour of each pixel's slot.

    Args:
        labels: Integers of any shape, at most 255; below 0 means ignored and comes out grey.

    Returns:
        uint8 RGB of shape (*labels.shape, 3).

    Raises:
        ValueError: if a label is above 255.
    """
    indices = labels.astype(np.int64).clip(min=-1)  # signed: -1 is the last colour, that of ignored pixels
    colours = np.concatenate([slot_colours(int(indices.max(initial=-1)) + 1), IGNORED[None]])
    painted: NDArray[np.uint8] = colours[indices]
    return painted


def overlay(image: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The image under its slots' translucent colours, with a white line where one slot meets another.

    Args:
        image: uint8 RGB (height, width, 3).
        labels: Integers (height, width), at most 255. Below 0 means ignored: the image stays as it is there.

    Returns:
        uint8 RGB (height, width, 3); the line is a 300th of the shorter side wide, at least one pixel.

    Raises:
        ValueError: if the shapes do not belong together or the image is not uint8 RGB.
    """
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3) or labels.ndim != 2:
        raise ValueError(
            "need a uint8 image (height, width, 3) and labels (height, width), "
            f"got {image.dtype} {image.shape} and {labels.shape}."
        )
    tinted = image.astype(np.uint16) * (256 - _STRENGTH) + paint(labels).astype(np.uint16) * _STRENGTH
    covered = np.where(labels[..., None] < 0, image, (tinted >> 8).astype(np.uint8))
    covered[_boundary(labels, max(1, round(min(labels.shape) / _LINES_A_SIDE)))] = 255
    return covered


def _boundary(labels: NDArray[np.integer], width: int) -> NDArray[np.bool_]:
    boundary = np.zeros(labels.shape, dtype=np.bool_)
    boundary[width:] |= labels[width:] != labels[:-width]
    boundary[:, width:] |= labels[:, width:] != labels[:, :-width]
    return boundary
