"""Pictures one after the other: a film (.gif, .webp), or a sheet with a row for each (.png)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boqsa.atomic import atomic_file
from boqsa.errors import InputError

_MILLISECONDS = 80
"""Of each picture of a film."""


def write_film(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Write pictures of one size, (H, W, 3), as one file; whole or not at all.

    Raises:
        InputError: if the suffix is none of .gif, .webp and .png, or the file cannot be written.
        ValueError: if there is no picture.
    """
    if not pictures:
        raise ValueError("a film needs a picture.")
    kind = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} has no suffix of a film; give .gif, .webp or .png.")
    with atomic_file(path) as partial:
        if kind == "PNG":
            Image.fromarray(np.concatenate(pictures, axis=0)).save(partial, kind)
        else:
            first, *others = [Image.fromarray(picture) for picture in pictures]
            first.save(partial, kind, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
