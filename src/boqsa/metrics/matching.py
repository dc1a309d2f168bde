"""One-to-one matching, as of predicted to true segments, and the mean IoU under it ("mIoU, Hungarian").

Published numbers of this name differ in their targets. Here, as in the evaluation that DINOSAUR brought to
photographs and later work kept: targets are the objects, the background is none of them, and every predicted
segment of the whole image may be matched, one to each object.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64, Integer
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.contingency import contingency_table, pairwise_iou
from boqsa.metrics.label_map import label_map


def cheapest_matching(costs: Float64[Tensor, "N N"]) -> Int64[Tensor, " N"]:
    """The column of each row in the one-to-one matching of the smallest sum of costs (the Hungarian method).

    Args:
        costs: Finite, and on the CPU. Where several matchings have the smallest sum, the result is one of them.
    """
    return torch.from_numpy(linear_sum_assignment(costs.numpy())[1])


def matched_iou(iou: Float64[Tensor, "B P T"]) -> Float64[Tensor, "B P"]:
    """IoU of each predicted segment with its partner in the one-to-one matching of the largest sum.

    Args:
        iou: IoU of each predicted with each true segment, an image at a time; rows and columns of segments
            that do not exist are 0.

    Returns:
        One value a predicted segment, 0 without a partner. Where several matchings have the largest sum, it
        is one of them.
    """
    tables = iou.cpu().numpy()  # one transfer a batch; the matching itself is on the CPU
    matched = np.zeros(tables.shape[:2])
    for image, table in enumerate(tables):
        rows, columns = linear_sum_assignment(table, maximize=True)
        matched[image, rows] = table[rows, columns]
    return torch.from_numpy(matched).to(iou.device)


def hungarian_iou(pred: Integer[Tensor, "B H W"], true: Integer[Tensor, "B H W"]) -> Float64[Tensor, " B"]:
    """Mean over true objects of the IoU with the one predicted segment that each is matched to.

    The matching maximises the sum of IoU; an object without a partner counts as 0. Higher is better, range
    (0, 1]; at most `mean_best_overlap`, in which one predicted segment may serve several objects.

    Args:
        pred: Predicted labels, from 0 up.
        true: True labels; 0 is the background, pixels below 0 are left out.

    Returns:
        One value an image; NaN where there is no true object.

    Raises:
        TypeError, ValueError: as `contingency_table`.
    """
    counts = contingency_table(pred, true)
    objects = (counts[:, :, 1:].sum(dim=1) > 0).sum(dim=1)  # (B,)
    return matched_iou(pairwise_iou(counts)[:, :, 1:]).sum(dim=1) / objects  # 0 / 0 is NaN: no object to match


class HungarianIoU(MeanOverImages):
    """Mean of `hungarian_iou` over the images of a set."""

    higher_is_better = True

    def update(self, masks_or_labels: Tensor, true: Tensor) -> None:
        """Take in a batch: masks or labels as for `label_map`, and true labels (batch, height, width)."""
        self.add(hungarian_iou(label_map(masks_or_labels), true))
