"""Saving pictures as PNG: a file appears under its name when it is whole, and not before."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boqsa.atomic import atomic_file
from boqsa.reports.palette import MAX_COLOURS, slot_colours


def png_bytes(image: Image.Image) -> bytes:
    """The picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(path: str | Path, image: Image.Image | NDArray[np.uint8], *, quickly: bool = False) -> None:
    """Write a picture, or a uint8 array (height, width, 3) or (height, width), as PNG.

    Args:
        path: File to write; an old one is replaced.
        image: The picture.
        quickly: Compress less: a photograph takes a third of the time and a twentieth more of the disk.

    Raises:
        InputError: if the folder of `path` does not exist or cannot be written to.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with atomic_file(path) as partial:
        picture.save(partial, format="PNG", compress_level=1 if quickly else 6)


def save_label_png(path: str | Path, labels: NDArray[np.integer]) -> None:
    """Write a label map as an indexed PNG: the pixel values are the labels, in the colours of the slots.

    Args:
        path: File to write; an old one is replaced.
        labels: Integers (height, width), 0 to 255.

    Raises:
        ValueError: if the labels are not a map of integers 0 to 255.
        InputError: if the folder of `path` does not exist or cannot be written to.
    """
    if labels.ndim != 2 or 0 in labels.shape or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers (height, width), got {labels.dtype} {labels.shape}.")
    if labels.min() < 0 or labels.max() >= MAX_COLOURS:
        raise ValueError(f"an indexed PNG holds labels 0 to 255, got {labels.min()} to {labels.max()}.")
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(slot_colours(MAX_COLOURS).tobytes())
    save_png(path, picture)
