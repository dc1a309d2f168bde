"""Pictures of a region: what one slot owns of an image, cut out, in its place, and on the mean over images.

Shapes: H W image pixels, h w pixels of the masks.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from boqsa.reports.palette import slot_colours

TILE = 128
"""Height and width that pictures of regions have at least, and of larger images at most, in pixels."""

_MARGIN = 0.2
_LEAST_CUT = 1 / 4
_DIMMED = 0.22
"""How much of a picture is left beside the region."""
_PAPER = 236
_LINE = 2


def region_cut_out(image: UInt8[np.ndarray, "H W 3"], owned: Bool[np.ndarray, "H W"], slot: int) -> Image.Image:
    """The square around the largest connected piece of a region, the rest of it dimmed.

    Args:
        image: RGB.
        owned: The region.
        slot: Whose colour the outline has.
    """
    top, left, side = _square_around(owned)
    square = slice(top, top + side), slice(left, left + side)
    return _drawn(image[square], owned[square], slot, dimmed=True)


def region_in_place(image: UInt8[np.ndarray, "H W 3"], owned: Bool[np.ndarray, "H W"], slot: int) -> Image.Image:
    """The whole image, with a line in the slot's colour around a region; arguments as for `region_cut_out`."""
    return _drawn(image, owned, slot, dimmed=False)


def mean_mask_picture(mask: Float[np.ndarray, "h w"], slot: int) -> Image.Image:
    """A mean mask in the slot's colour: from paper where it is 0 to the darkened colour where it is largest."""
    colour = slot_colours(slot + 1)[slot].astype(np.float64)
    share = (mask / max(float(mask.max()), 1e-9))[..., None]
    light, dark = np.full(3, 246.0), colour * 0.55
    # Through the colour itself in the middle, so that pale colours have a gradient that one sees.
    pixels = np.where(share < 0.5, light + (colour - light) * 2 * share, colour + (dark - colour) * (2 * share - 1))
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    return picture.resize(_tile_size(mask.shape), Image.Resampling.BILINEAR)


def _drawn(
    image: UInt8[np.ndarray, "H W 3"], owned: Bool[np.ndarray, "H W"], slot: int, *, dimmed: bool
) -> Image.Image:
    size = _tile_size(owned.shape)
    # Small images are enlarged pixel by pixel: what looks sharp is then what the model saw.
    filter_ = Image.Resampling.NEAREST if max(owned.shape) < TILE / 2 else Image.Resampling.BICUBIC
    pixels = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, filter_)).copy()
    shape = Image.fromarray(np.ascontiguousarray(owned).astype(np.uint8) * 255)
    inside = np.asarray(shape.resize(size, Image.Resampling.NEAREST)) > 0
    if dimmed:
        grey = pixels.mean(axis=2, keepdims=True)
        faded = (_DIMMED * grey + (1 - _DIMMED) * _PAPER).round().astype(np.uint8)
        pixels = np.where(inside[..., None], pixels, faded)
    line, halo = _lines(inside)
    pixels[halo] = 255
    pixels[line] = slot_colours(slot + 1)[slot]
    return Image.fromarray(pixels)


def _lines(inside: Bool[np.ndarray, "H W"]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The line just outside a region, and a thinner one around that: a colour is then seen on itself, too."""
    cross = ndimage.generate_binary_structure(2, 1)
    wider = ndimage.binary_dilation(inside, cross, iterations=_LINE)
    widest = ndimage.binary_dilation(wider, cross)
    return wider & ~inside, widest & ~wider


def _square_around(owned: Bool[np.ndarray, "H W"]) -> tuple[int, int, int]:
    """Top, left and side of a square within the image: around the largest connected piece, with a margin."""
    height, width = owned.shape
    pieces, count = ndimage.label(owned)
    if not count:
        return 0, 0, min(height, width)
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    rows, columns = (np.flatnonzero((pieces == largest).any(axis=axis)) for axis in (1, 0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    wanted = max(round(extent * (1 + 2 * _MARGIN)), round(min(height, width) * _LEAST_CUT))
    side = min(wanted, height, width)
    top = round((rows[0] + rows[-1] + 1 - side) / 2)
    left = round((columns[0] + columns[-1] + 1 - side) / 2)
    return min(max(top, 0), height - side), min(max(left, 0), width - side), side


def _tile_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of the picture of something of this height and width: the longer side is `TILE`."""
    height, width = size
    factor = TILE / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))
