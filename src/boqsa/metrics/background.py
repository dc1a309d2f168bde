"""How the true background is shared out among slots (spec 8.4: several slots on it is a usual failure).

One slot that owns all of the background has the share 1. Slots that split it show as a flat list of shares.
"""

from typing import Any

from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.label_map import label_map


def background_shares(pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"]) -> Float64[Tensor, "B P"]:
    """Share of the true background that each predicted label owns, the largest first.

    Args:
        pred: Predicted labels, from 0 up.
        true: True labels; 0 is the background, pixels below 0 are left out.

    Returns:
        Shares that sum to 1 an image, one for each predicted label of the batch; NaN where an image has no
        background.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    owned = _owned_background(pred, true)
    return owned.double() / owned.sum(dim=1, keepdim=True)


def background_in_top_slots(
    pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"], slots: int = 2
) -> Float64[Tensor, " B"]:
    """Share of the true background that its `slots` largest owners hold together, 0 to 1.

    Args:
        pred: Predicted labels, from 0 up.
        true: True labels; 0 is the background, pixels below 0 are left out.
        slots: How many owners to add up, at least 1. Which labels they are may differ between images.

    Returns:
        One value an image; NaN where an image has no background.

    Raises:
        TypeError, ValueError: as `contingency_table`, and ValueError if `slots` is below 1.
    """
    if slots < 1:
        raise ValueError(f"slots is {slots}; expected at least 1.")
    owned = _owned_background(pred, true)
    return owned[:, :slots].sum(dim=1).double() / owned.sum(dim=1)


def _owned_background(pred: Tensor, true: Tensor) -> Int64[Tensor, "B P"]:
    """Background pixels of each predicted label, the most first."""
    return contingency_table(pred, true)[:, :, 0].sort(dim=1, descending=True).values


class BackgroundInTopSlots(MeanOverImages):
    """Mean of `background_in_top_slots` over the images of a set."""

    def __init__(self, slots: int = 2, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        if slots < 1:
            raise ValueError(f"slots is {slots}; expected at least 1.")
        self.slots = slots

    def update(self, masks_or_labels: Tensor, true: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and true labels (batch, height, width)."""
        self.add(background_in_top_slots(label_map(masks_or_labels), true, self.slots))
