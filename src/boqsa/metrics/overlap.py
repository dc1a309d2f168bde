"""IoU and Dice of the slot that fits the foreground best, for photographs with one object. Spec 4.5.

The best slot is chosen **by the truth**: this is an oracle choice. Say so beside the number, and report a
choice that needs no labels with it (`label_free.py`).

The published code takes the slot with the best score, IoU and Dice each for itself; the paper's text (section 5.2) the
slot with the largest intersection, which a slot that owns everything always has. Both stand here.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.label_map import label_map


class SlotOverlap(NamedTuple):
    """Overlap with the foreground: of one slot an image, of every slot, or averaged over a set."""

    iou: Float64[Tensor, "*B"]
    """Intersection over union, 0 to 1."""
    dice: Float64[Tensor, "*B"]
    """Twice the intersection over the sum of both sizes, 0 to 1."""


class IntersectionScores(NamedTuple):
    """Overlap of the slot that has most of the foreground's pixels, mean over images; scalars."""

    intersection_iou: Float64[Tensor, ""]
    """Its IoU, 0 to 1; at most the best slot's."""
    intersection_dice: Float64[Tensor, ""]
    """Its Dice, 0 to 1."""


def best_slot_overlap(
    pred: Integer[Tensor, "B H W"], foreground: Integer[Tensor, "B H W"] | Bool[Tensor, "B H W"]
) -> SlotOverlap:
    """Overlap of the foreground with the predicted segment that fits it best. Higher is better, range (0, 1].

    IoU and Dice are maximised separately.

    Args:
        pred: Predicted labels, from 0 up.
        foreground: 0 (or False) is background, anything above is foreground; pixels below 0 are left out.

    Returns:
        `iou` and `dice`, one value an image each; NaN where there is no foreground.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    return SlotOverlap(*(overlap.amax(dim=1) for overlap in overlap_of_slots(pred, foreground)))


def largest_intersection_overlap(
    pred: Integer[Tensor, "B H W"], foreground: Integer[Tensor, "B H W"] | Bool[Tensor, "B H W"]
) -> SlotOverlap:
    """Overlap of the foreground with the predicted segment that has most of it. Higher is better, range (0, 1].

    Of several segments that have as much the smallest counts, which is the best of them.

    Args, returns and errors are those of `best_slot_overlap`.
    """
    shared, slot_size, foreground_size = _areas(pred, foreground)
    others = shared < shared.amax(dim=1, keepdim=True)  # (B, P)
    overlap = _overlap(shared, slot_size, foreground_size)
    return SlotOverlap(*(values.masked_fill(others, -1).amax(dim=1) for values in overlap))


def overlap_of_slots(
    pred: Integer[Tensor, "B H W"], foreground: Integer[Tensor, "B H W"] | Bool[Tensor, "B H W"]
) -> SlotOverlap:
    """Overlap of the foreground with every predicted segment: as `best_slot_overlap`, but (B, P) for P labels.

    Columns are predicted labels as the rows of `contingency_table`; an empty segment has the overlap 0.
    """
    return _overlap(*_areas(pred, foreground))


def _areas(
    pred: Integer[Tensor, "B H W"], foreground: Integer[Tensor, "B H W"] | Bool[Tensor, "B H W"]
) -> tuple[Float64[Tensor, "B P"], Float64[Tensor, "B P"], Float64[Tensor, "B 1"]]:
    """Pixels that each segment shares with the foreground, that it has in all, and that the foreground has."""
    if isinstance(foreground, Tensor) and foreground.dtype == torch.bool:
        foreground = foreground.to(torch.uint8)
    counts = contingency_table(pred, foreground)
    shared = counts[:, :, 1:].sum(dim=2).double()  # (B, P)
    return shared, counts.sum(dim=2).double(), shared.sum(dim=1, keepdim=True)


def _overlap(
    shared: Float64[Tensor, "B P"], slot_size: Float64[Tensor, "B P"], foreground_size: Float64[Tensor, "B 1"]
) -> SlotOverlap:
    # An empty slot beside no foreground is 0 / 0 here; images without foreground become NaN below anyway.
    iou = shared / (slot_size + foreground_size - shared)
    dice = 2 * shared / (slot_size + foreground_size)
    has_none = foreground_size == 0
    return SlotOverlap(iou.masked_fill(has_none, torch.nan), dice.masked_fill(has_none, torch.nan))


class BestSlotOverlap(MeanOverImages):
    """Mean of `best_slot_overlap` over the images of a set; `compute` returns a `SlotOverlap` of scalars."""

    higher_is_better = True

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(values_per_image=(2,), **metric_options)

    def update(self, masks_or_labels: Tensor, foreground: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and the foreground (batch, height, width)."""
        overlap = best_slot_overlap(label_map(masks_or_labels), foreground)
        self.add(torch.stack(overlap, dim=1))  # (B, 2)

    def compute(self) -> SlotOverlap:
        """Mean IoU and mean Dice over the scored images, float64; NaN where no image was scored."""
        iou, dice = super().compute()
        return SlotOverlap(iou, dice)


class LargestIntersectionOverlap(MeanOverImages):
    """Mean of `largest_intersection_overlap` over the images of a set; `compute` returns `IntersectionScores`."""

    higher_is_better = True

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(values_per_image=(2,), **metric_options)

    def update(self, masks_or_labels: Tensor, foreground: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and the foreground (batch, height, width)."""
        overlap = largest_intersection_overlap(label_map(masks_or_labels), foreground)
        self.add(torch.stack(overlap, dim=1))  # (B, 2)

    def compute(self) -> IntersectionScores:
        """Mean IoU and mean Dice over the scored images, float64; NaN where no image was scored."""
        iou, dice = super().compute()
        return IntersectionScores(iou, dice)
