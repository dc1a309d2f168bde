"""One colour for each slot, the same in every picture: slot k always has colour k, however many there are.

The first seven are the colours of Okabe and Ito (2008), made for colour-blind readers. Each further one is
the colour that is farthest from all before it and from white, grey and black, for the eye that tells it
worst: normal sight, protanopia or deuteranopia (simulated after Machado et al. 2009), by distance in OKLab
(Ottosson 2020).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

MAX_COLOURS = 256
"""As many as an indexed PNG holds."""

_OKABE_ITO = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
)
_TAKEN = ((255, 255, 255), (128, 128, 128), (0, 0, 0))  # paper, ignored pixels, ink

_SIGHT = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
"""Linear RGB as seen with normal sight, protanopia, deuteranopia."""

_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def slot_colours(count: int) -> NDArray[np.uint8]:
    """RGB colours of the first `count` slots.

    Args:
        count: 0 to 256.

    Returns:
        uint8 (count, 3). A shorter palette is the beginning of every longer one.

    Raises:
        ValueError: if `count` is out of range.
    """
    if not 0 <= count <= MAX_COLOURS:
        raise ValueError(f"count must be 0 to {MAX_COLOURS}, got {count}.")
    return _all_colours()[:count].copy()


@cache
def _all_colours() -> NDArray[np.uint8]:
    levels = np.linspace(0, 255, 9).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = as_seen(candidates)
    colours = [np.array(colour, dtype=np.float64) for colour in _OKABE_ITO]
    nearest = _distance(seen, as_seen(np.array(_OKABE_ITO + _TAKEN))).min(axis=1)
    while len(colours) < MAX_COLOURS:
        best = int(nearest.argmax())
        colours.append(candidates[best])
        nearest = np.minimum(nearest, _distance(seen, seen[best : best + 1])[:, 0])
    return np.array(colours, dtype=np.uint8)


def as_seen(colours: NDArray[np.generic]) -> NDArray[np.float64]:
    """sRGB colours (n, 3) in 0 to 255, as OKLab (n, 3 kinds of sight, 3)."""
    unit = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    sight = np.einsum("sij,nj->nsi", _SIGHT, linear).clip(0, 1)
    lab: NDArray[np.float64] = np.cbrt(sight @ _RGB_TO_LMS.T) @ _LMS_TO_OKLAB.T
    return lab


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab distance (n, m) for the sight that tells a pair worst."""
    difference = first[:, None] - second[None, :]  # (n, m, sight, 3)
    distance: NDArray[np.float64] = np.sqrt((difference**2).sum(axis=-1)).min(axis=-1)
    return distance
