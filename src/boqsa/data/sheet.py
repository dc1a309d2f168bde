"""A contact sheet of a packed split: images, masks over them and beside them, to look at before anything is trained."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from PIL import Image

from boqsa.data.packed import PackedDataset
from boqsa.errors import InputError

_GAP = 4
_SMALLEST_TILE = 96
_IGNORED = (128, 128, 128)
_COLOURS = (
    (0, 0, 0),
    (230, 60, 60),
    (70, 170, 240),
    (250, 200, 60),
    (90, 200, 100),
    (190, 100, 220),
    (255, 140, 60),
    (80, 220, 210),
    (240, 120, 180),
    (170, 210, 70),
    (130, 130, 255),
    (200, 160, 120),
)
"""Background is black; labels beyond the last colour start again at the second."""


def contact_sheet(target: str | Path, split: str, *, rows: int = 5, columns: int = 4) -> Image.Image:
    """Draw `rows` x `columns` samples, evenly spaced over the split; the same for the same data.

    Each sample is its image, the image with its mask over it, and the mask: black background, colours for labels,
    grey = ignore. Where mask and objects do not meet in the middle one, something was paired or turned wrongly.

    Raises:
        InputError: if there is no such packed split, or `rows` or `columns` is not positive.
    """
    if rows < 1 or columns < 1:
        raise InputError(f"a contact sheet of {rows} x {columns} has no samples; give positive numbers.")
    dataset = PackedDataset(target, split)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, rows * columns).round().astype(np.int64))
    batch = dataset.batch(chosen)
    tiles = batch["image"].permute(0, 2, 3, 1).numpy()  # (n, 3, H, W) -> (n, H, W, 3)
    if "mask" in batch:
        masks = batch["mask"].numpy()
        colours = colour_labels(masks)
        labelled = np.where(masks[..., None] != 0, colours, tiles)
        overlaid = (tiles.astype(np.uint16) + labelled) // 2  # half and half; background stays as it is
        tiles = np.concatenate([tiles, overlaid.astype(np.uint8), colours], axis=2)  # side by side
    scale = max(1, -(-_SMALLEST_TILE // tiles.shape[1]))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = tiles.shape[1:3]
    used_rows = -(-len(tiles) // columns)
    sheet = np.full((used_rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top = _GAP + index // columns * (height + _GAP)
        left = _GAP + index % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return Image.fromarray(sheet)


def colour_labels(masks: Int[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Paint label maps: -1 grey, 0 black, every other label a colour, of its own up to 11."""
    palette: NDArray[np.uint8] = np.array([_IGNORED, *_COLOURS], np.uint8)
    index = np.where(masks > 0, (masks - 1) % (len(_COLOURS) - 1) + 1, masks)
    painted: NDArray[np.uint8] = palette[index + 1]
    return painted
