"""IoU and Dice of a foreground slot that is chosen without labels, for photographs with one object.

The oracle choice of `overlap.py` looks at the truth. Two choices that look at predicted maps alone stand here:

    border  in each image, the slot that keeps off the border of the image
    fixed   one slot for the whole set, the one that keeps off the border on the whole; a learned query can
            show the same concept in every image, so this also asks whether it does

Photographers put the object in the middle, so the background owns the border. A slot keeps off the border by
`its share of the image - its share of the border`, from -1 to 1. Over the slots of an image this sums to 0; a
part of the object that never touches the border scores its own small size, so that the whole object wins over
its parts. The border is a frame as wide as 1/16 of the shorter side: wider than the thin lines that
convolutions with padding leave at the edge. Asked to tell the true object from its background, the border choice
is right on 950 of 952 photographs (Flowers17, Weizmann horses, GrabCut).

Dice and IoU are those of the one chosen slot; they are not maximised separately.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.label_map import label_map
from boqsa.metrics.overlap import SlotOverlap, overlap_of_slots

_BORDER_WIDTH = 1 / 16

# Sums for this many slots are kept whatever the model has: ranks add them up, also a rank without images.
_MOST_SLOTS = 256


class LabelFreeScores(NamedTuple):
    """Overlap of label-free foregrounds with the truth, mean over images; scalars."""

    border_iou: Float64[Tensor, ""]
    """IoU of the slot that keeps off the border most in each image, 0 to 1."""
    border_dice: Float64[Tensor, ""]
    """Dice of the same slot, 0 to 1."""
    fixed_iou: Float64[Tensor, ""]
    """IoU of `fixed_slot` in every image, 0 to 1; 0 where it owns no pixel."""
    fixed_dice: Float64[Tensor, ""]
    """Dice of `fixed_slot` in every image, 0 to 1."""
    fixed_slot: Int64[Tensor, ""]
    """The slot that keeps off the border most over the whole set; -1 before any image."""


def slot_off_border(pred: Integer[Tensor, "B H W"]) -> Int64[Tensor, " B"]:
    """The slot that keeps off the border most, in each image: a guess at the foreground from the map alone.

    Args:
        pred: Predicted labels, 0 to 255.

    Returns:
        One label an image. It owns at least one pixel; ties go to the lower label.

    Raises:
        TypeError, ValueError: as `contingency_table`, and if a label is above 255.
    """
    return _most_off_border(*_areas_off_border(pred))


def label_free_overlap(
    pred: Integer[Tensor, "B H W"], foreground: Integer[Tensor, "B H W"] | Bool[Tensor, "B H W"]
) -> SlotOverlap:
    """Overlap of the foreground with the slot that keeps off the border most. Higher is better, range [0, 1].

    Args:
        pred: Predicted labels, 0 to 255.
        foreground: 0 (or False) is background, anything above is foreground. Pixels below 0 are left out of
            the overlap; the slot is chosen from the whole predicted map, for to leave them out there would be
            to look at the labels.

    Returns:
        `iou` and `dice`, one value an image each; NaN where there is no foreground.

    Raises:
        TypeError, ValueError: as `contingency_table`, and if a predicted label is above 255.
    """
    return _of_slot(overlap_of_slots(pred, foreground), slot_off_border(pred))


class LabelFreeOverlap(MeanOverImages):
    """Overlap of both label-free choices over the images of a set; `compute` returns `LabelFreeScores`.

    Images without foreground are left out of the means, but not of the choice of the fixed slot: that would be
    to look at the labels. At most 256 slots; label maps must give a slot the same number in every image.
    """

    higher_is_better = True
    overlap_sums: Tensor
    area_sums: Tensor
    off_border_sums: Tensor

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(values_per_image=(2,), **metric_options)
        self.add_state("overlap_sums", torch.zeros(2, _MOST_SLOTS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("area_sums", torch.zeros(_MOST_SLOTS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("off_border_sums", torch.zeros(_MOST_SLOTS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, masks_or_labels: Tensor, foreground: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and the foreground (batch, height, width)."""
        pred = label_map(masks_or_labels)
        overlap = overlap_of_slots(pred, foreground)  # (B, P)
        area, off_border = _areas_off_border(pred)  # (B, P)
        self.add(torch.stack(_of_slot(overlap, _most_off_border(area, off_border)), dim=1))  # (B, 2)
        slots = area.shape[1]
        # NaN marks images without foreground, which have no overlap to add.
        self.overlap_sums[:, :slots] += torch.stack(overlap).nansum(dim=1)
        self.area_sums[:slots] += area.sum(dim=0)
        self.off_border_sums[:slots] += off_border.sum(dim=0)

    def compute(self) -> LabelFreeScores:
        """Means over the scored images, float64; NaN where no image was scored."""
        border_iou, border_dice = super().compute()
        slot = _most_off_border(self.area_sums, self.off_border_sums)
        fixed_iou, fixed_dice = self.overlap_sums[:, slot] / self.images_scored
        is_any = self.area_sums.any()
        return LabelFreeScores(border_iou, border_dice, fixed_iou, fixed_dice, slot.where(is_any, -1))


def _of_slot(overlap: SlotOverlap, slot: Int64[Tensor, " B"]) -> SlotOverlap:
    """From the overlap of every slot (B, P) to that of one slot an image (B,)."""
    return SlotOverlap(*(values.gather(1, slot[:, None]).squeeze(1) for values in overlap))


def _most_off_border(area: Int64[Tensor, "*B P"], off_border: Float64[Tensor, "*B P"]) -> Int64[Tensor, "*B"]:
    # A slot without a pixel is no choice. It scores 0, as does a slot that owns the whole image.
    return off_border.masked_fill(area == 0, -torch.inf).argmax(dim=-1)


def _areas_off_border(pred: Integer[Tensor, "B H W"]) -> tuple[Int64[Tensor, "B P"], Float64[Tensor, "B P"]]:
    """Pixels of each slot, and its share of the image minus its share of the border."""
    is_border = torch.ones_like(pred)
    if is_border.ndim == 3:
        height, width = pred.shape[1:]
        frame = max(1, int(min(height, width) * _BORDER_WIDTH))
        is_border[:, frame : height - frame, frame : width - frame] = 0
    counts = contingency_table(pred, is_border)  # (B, P, 2)
    largest = int(pred.long().max()) if pred.numel() else 0
    if largest >= _MOST_SLOTS:
        raise ValueError(f"pred has the label {largest}; expected slots, 0 to {_MOST_SLOTS - 1}.")
    area, border = counts.sum(dim=2), counts[:, :, 1:].sum(dim=2)  # (B, P)
    image_size, border_size = area.sum(dim=1, keepdim=True), border.sum(dim=1, keepdim=True)
    return area, area.double() / image_size - border.double() / border_size
