"""Figures 1 and 7 to 17: input, reconstruction, truth and prediction, a row an image, with the background in black.

The background slot is chosen without labels, in each image anew: the slot that owns most of the frame along the border,
which is as wide as a sixteenth of the shorter side (as in `boqsa.metrics.label_free`). A model that splits the
background into several slots shows the others in colour. The truth's background is black as well, and ignored pixels
are grey.

An object is drawn in the colour of the slot that overlaps it most, one to one, as in `boqsa.reports.grid`. The
background slot lends its colour to none: an object that it swallowed is coloured in the truth, black in the prediction.

Shapes: B images, H W pixels.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from boqsa.reports.grid import Column, draw_columns, enlarge, match_to_slots, pixels_of, whole_factor
from boqsa.reports.overlay import paint

_BORDER_WIDTH = 1 / 16


def grid_figure(
    image: UInt8[Tensor, "B 3 H W"],
    segmentation: Int[Tensor, "B H W"],
    *,
    true: Int[Tensor, "B H W"] | None = None,
    reconstruction: Float[Tensor, "B 3 H W"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw images with what a model made of them.

    Args:
        image: What the model saw.
        segmentation: Slot that owns each pixel: `Output.segmentation()`.
        true: True labels: 0 background, above it objects, below it ignored. Without them there is no such column.
        reconstruction: In [0, 1] units, clamped here. Of a transformer model say which of its three it is.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    expected = (len(image), *image.shape[2:])
    shapes = [tuple(labels.shape) for labels in (segmentation, true) if labels is not None]
    if image.ndim != 4 or not len(image) or any(shape != expected for shape in shapes):
        raise ValueError(f"images have shape {tuple(image.shape)}, label maps {shapes}; need {expected} for each map.")
    scale = whole_factor(image.shape[-2:])
    found = [labels.astype(np.int64) for labels in segmentation.cpu().numpy()]
    behind = [labels == background_slot(labels) for labels in found]
    columns = [Column("input", enlarge(pixels_of(image), scale))]
    if reconstruction is not None:
        columns.append(Column("reconstruction", enlarge(pixels_of(reconstruction), scale)))
    if true is not None:
        truths = [_truth(*maps) for maps in zip(true.cpu().numpy(), found, behind, strict=True)]
        columns.append(Column("truth", enlarge(np.stack(truths), scale)))
    predictions = np.stack([paint(labels) for labels in found])
    predictions[np.stack(behind)] = 0
    columns.append(Column("prediction", enlarge(predictions, scale)))
    return np.asarray(draw_columns(columns))


def background_slot(labels: Int[np.ndarray, "H W"]) -> int:
    """The slot that owns most of the border of a label map; ties go to the lower slot."""
    width = max(1, int(min(labels.shape) * _BORDER_WIDTH))
    is_border = np.ones(labels.shape, dtype=bool)
    is_border[width:-width, width:-width] = False
    return int(np.bincount(labels[is_border]).argmax())


def _truth(
    true: Int[np.ndarray, "H W"], found: Int[np.ndarray, "H W"], is_behind: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Objects in the colours of their slots, on black."""
    # In place of the background slot stands a number that no slot has: an object may take its colour.
    slots = np.where(is_behind, found.max() + 1, found)
    painted = paint(match_to_slots(np.where(true > 0, true, -1), slots))
    painted[true == 0] = 0
    return painted
