"""Segmentation covering (SC, MSC): how well the best predicted segment covers each true one. Spec 4.4.

The published headline, "mSC", is the plain mean over true segments; the form weighted by segment size is
reported by others under the same name, so say which one a number is.

Later work on photographs reports the plain mean without the background as mBO, mean best overlap: the same
number, which has its usual name here as well.
"""

from typing import Any

import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table, pairwise_iou
from boqsa.metrics.label_map import label_map


def segmentation_covering(
    pred: Integer[Tensor, "B H W"],
    true: Integer[Tensor, "B H W"],
    foreground_only: bool = False,
    weighted: bool = False,
) -> Float64[Tensor, " B"]:
    """Mean over true segments of the best IoU with any predicted segment. Higher is better, range (0, 1].

    Predicted segments are those of the whole image: a segment that spills from an object into the background
    pays for it in the union, also with `foreground_only`. One predicted segment may serve several true ones.

    Args:
        pred: Predicted labels, from 0 up.
        true: True labels; 0 is the background, pixels below 0 are left out.
        foreground_only: Do not ask for the background to be covered (MSC-FG).
        weighted: Weigh true segments by their pixels instead of equally.

    Returns:
        One value an image; NaN where there is no true segment to cover.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    counts = contingency_table(pred, true)
    true_size = counts.sum(dim=1)  # (B, T)
    best = pairwise_iou(counts).amax(dim=1)  # (B, T)
    weight = true_size.double() if weighted else (true_size > 0).double()
    if foreground_only:
        best, weight = best[:, 1:], weight[:, 1:]
    return (best * weight).sum(dim=1) / weight.sum(dim=1)  # 0 / 0 is NaN: no segment to cover


class SegmentationCovering(MeanOverImages):
    """Mean of `segmentation_covering` over the images of a set."""

    higher_is_better = True

    def __init__(self, foreground_only: bool = False, weighted: bool = False, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        self.foreground_only = foreground_only
        self.weighted = weighted

    def update(self, masks_or_labels: Tensor, true: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and true labels (batch, height, width)."""
        self.add(segmentation_covering(label_map(masks_or_labels), true, self.foreground_only, self.weighted))


def class_labels(true: Integer[Tensor, "B H W"], classes: Integer[Tensor, "B L"]) -> Int64[Tensor, "B H W"]:
    """True labels with all objects of one class joined, for mBO_c.

    Args:
        true: True labels; 0 is the background, pixels below 0 are left out.
        classes: The class of each label below L, from 0 up; below 0 where it has none. That of label 0 does not count.

    Returns:
        0 on the background, class + 1 on objects; -1 on pixels that are left out, and on objects without a class, for
        nobody knows which others they belong to.

    Raises:
        ValueError: if `classes` is no row of whole numbers an image, or there is a label of L or above.
    """
    if classes.is_floating_point() or classes.ndim != 2 or len(classes) != len(true):
        raise ValueError(
            f"classes are {classes.dtype} {tuple(classes.shape)}; whole numbers ({len(true)}, labels) expected."
        )
    highest = int(true.max()) if true.numel() else 0
    if highest >= classes.shape[1]:
        raise ValueError(f"true has the label {highest}; classes are given of labels up to {classes.shape[1] - 1}.")
    labels = true.long()
    joined = classes.long().gather(1, labels.clamp(min=0).flatten(start_dim=1)).view_as(labels)
    return torch.where(labels > 0, torch.where(joined < 0, -1, joined + 1), labels.clamp(min=-1))


def mean_best_overlap(pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"]) -> Float64[Tensor, " B"]:
    """mBO: `segmentation_covering` of the foreground, unweighted, under the name that later work gives it.

    With instance masks as `true` it is mBO_i, with class masks, as `class_labels` makes them, mBO_c.

    Args:
        pred: Predicted labels, from 0 up.
        true: True labels; 0 is the background, pixels below 0 are left out.

    Returns:
        One value an image, range (0, 1]; NaN where there is no true object.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    return segmentation_covering(pred, true, foreground_only=True)


class MeanBestOverlap(SegmentationCovering):
    """Mean of `mean_best_overlap` over the images of a set."""

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(foreground_only=True, **metric_options)
