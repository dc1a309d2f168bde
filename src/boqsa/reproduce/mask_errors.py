"""What metrics make of masks that spill into the background (paper B.4: why ARI-FG and MSC-FG disagree on PTR).

No model: the true objects are the prediction, and grow into the background by some pixels at a time. A background
pixel goes to the nearest object (Euclidean, between the middles of pixels) once that is no farther than the step;
objects do not grow into one another. In the end each background pixel belongs to the nearest object. ARI-FG looks at
the pixels of true objects alone, so it stays at 1 all the way; MSC-FG divides by the union, so it falls.

Shapes: N images, H W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError
from boqsa.metrics import AdjustedRandIndex, ScoredImages, SegmentationCovering

PIXELS = (0, 1, 2, 3, 4, 6, 8)


class MaskError(NamedTuple):
    """A metric at a step of growth."""

    pixels: int | None
    """By how many the objects have grown; None where they share out the whole background."""
    metric: str
    """"ari_fg", "msc_fg" or "ari"; or "background_given", the share of background pixels that went to objects."""
    value: float
    """Mean over images, at most 1; of "background_given" over all pixels, NaN where there is no background."""


def builtin_masks(count: int = 256, *, image_size: int = 64, seed: int = 0) -> Int[Tensor, "N H W"]:
    """Masks of the first built-in scenes: the test split of data set "scenes", rendered without its cache."""
    scenes = render_scenes(count, seed=seed, settings=SceneSettings(image_size=image_size))
    return torch.from_numpy(scenes.mask[:, 0].astype(np.int64))


def masks_of(data: PackedDataset, count: int = 0) -> Int[Tensor, "N H W"]:
    """Masks of the first images of a split, of all with `count` 0.

    Raises:
        InputError: if it has none.
    """
    if not data.has_masks:
        raise InputError(f"{data.path} ({data.split}) has no masks; mask errors need the true objects.")
    return data.batch(range(min(count, len(data)) if count else len(data)))["mask"]


def mask_errors(mask: Int[Tensor, "N H W"] | None = None, *, pixels: Sequence[int] = PIXELS) -> list[MaskError]:
    """Score true masks that grow into the background.

    Args:
        mask: True labels: 0 background, above it objects, below it ignored; by default `builtin_masks()`.
        pixels: Steps of growth, each 0 or more; the whole background comes last by itself.

    Returns:
        Four rows a step, in the order of the steps. Images without objects are left out.

    Raises:
        ValueError: if a step is negative, or no image has an object.
    """
    mask = builtin_masks() if mask is None else mask
    if any(step < 0 for step in pixels):
        raise ValueError(f"pixels are {tuple(pixels)}; give 0 or more.")
    mask = mask[(mask > 0).flatten(1).any(dim=1)]
    if not len(mask):
        raise ValueError("no image has an object; pass masks with labels above 0.")
    nearest, distance = _nearest_objects(mask)
    background = mask == 0
    rows = []
    for step in (*pixels, None):
        taken = background if step is None else background & (distance <= step)
        # Ignored pixels take no part in any metric, but a prediction has no label below 0.
        grown = torch.where(taken, nearest, mask.clamp(min=0))
        rows += [MaskError(step, name, value) for name, value in _scores(grown, mask).items()]
        rows.append(MaskError(step, "background_given", float(taken.sum() / background.sum())))
    return rows


def _nearest_objects(mask: Int[Tensor, "N H W"]) -> tuple[Int[Tensor, "N H W"], Float[Tensor, "N H W"]]:
    """Label of the object nearest to each pixel, and how far it is in pixels."""
    labels, distances = [], []
    for image in mask.numpy():
        distance, (row, column) = distance_transform_edt(image <= 0, return_indices=True)
        labels.append(image[row, column])
        distances.append(distance)
    return torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(distances))


def _scores(grown: Int[Tensor, "N H W"], mask: Int[Tensor, "N H W"]) -> dict[str, float]:
    metrics: dict[str, ScoredImages] = {
        "ari_fg": AdjustedRandIndex(foreground_only=True),
        "msc_fg": SegmentationCovering(foreground_only=True),
        "ari": AdjustedRandIndex(),
    }
    for metric in metrics.values():
        metric.update(grown, mask)
    return {name: float(metric.compute()) for name, metric in metrics.items()}
