"""Adjusted Rand index, over all pixels (ARI) or over the pixels of true objects alone (ARI-FG). Spec 4.3.

Definition: Hubert and Arabie, "Comparing partitions", 1985. Two pixels agree when both maps put them together
or both put them apart; the share of agreement is corrected for chance, so that unrelated maps score about 0.
"""

from typing import Any

import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.label_map import label_map


def adjusted_rand_index(
    pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"], foreground_only: bool = False
) -> Float64[Tensor, " B"]:
    """Agreement of two partitions of an image, corrected for chance. Higher is better, 1 is best.

    Two maps that are the same partition score 1, also where that partition is a single segment: an image of
    one object that is not split scores 1.

    Args:
        pred: Predicted labels, from 0 up. Only the partition matters, not the numbers.
        true: True labels; 0 is the background, pixels below 0 are left out.
        foreground_only: Score only the pixels with `true > 0` (ARI-FG).

    Returns:
        One value an image, at most 1, negative for worse than chance; NaN where no pixel is left to score.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    counts = contingency_table(pred, true)
    return _from_counts(counts[:, :, 1:] if foreground_only else counts)


def _from_counts(counts: Int64[Tensor, "B P T"]) -> Float64[Tensor, " B"]:
    # Ordered pairs of different pixels, in exact integers (up to 3e9 pixels an image).
    pixels = counts.sum(dim=(1, 2))
    same_cell = counts.square().sum(dim=(1, 2))
    same_pred = counts.sum(dim=2).square().sum(dim=1)
    same_true = counts.sum(dim=1).square().sum(dim=1)
    together = (same_cell - pixels).double()
    only_pred_joins = (same_pred - same_cell).double()
    only_true_joins = (same_true - same_cell).double()
    apart = (pixels.square() - same_pred - same_true + same_cell).double()

    # The denominator is at least twice the sum of the two products above it, so their difference loses
    # nothing that matters to rounding.
    above = 2 * (together * apart - only_pred_joins * only_true_joins)
    below = (together + only_true_joins) * (only_true_joins + apart) + (together + only_pred_joins) * (
        only_pred_joins + apart
    )
    is_same_partition = (only_pred_joins == 0) & (only_true_joins == 0)
    index = torch.where(is_same_partition, 1.0, above / below)
    return index.masked_fill(pixels == 0, torch.nan)


class AdjustedRandIndex(MeanOverImages):
    """Mean of `adjusted_rand_index` over the images of a set; ARI-FG with `foreground_only`."""

    higher_is_better = True

    def __init__(self, foreground_only: bool = False, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        self.foreground_only = foreground_only

    def update(self, masks_or_labels: Tensor, true: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and true labels (batch, height, width)."""
        self.add(adjusted_rand_index(label_map(masks_or_labels), true, self.foreground_only))
