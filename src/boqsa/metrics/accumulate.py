"""Metrics of a whole set, over all ranks, with a count of the images that were left out.

A mean is over images, not over batches: a short last batch counts by its images (spec 4.3 and 4.9).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torchmetrics import Metric


class ScoredImages(Metric):
    """Counts the images of a set that had something to score, and those that had nothing.

    A subclass hands every batch to `count`, and its `compute` calls `publish_counts`.

    Args:
        **metric_options: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    images_scored: Tensor
    images_left_out: Tensor

    def __init__(self, **metric_options: Any) -> None:
        # A cached result would hide images that `merge_state` brings in.
        super().__init__(**{"compute_with_cache": False, **metric_options})
        self.add_state("images_scored", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images_left_out", torch.tensor(0), dist_reduce_fx="sum")
        self._forget_counts()

    @property
    def scored(self) -> int:
        """Images behind the result of the last `compute()`, over all ranks; 0 before it."""
        return self._scored

    @property
    def left_out(self) -> int:
        """Images that the last `compute()` left out, over all ranks: they had nothing to score."""
        return self._left_out

    def count(self, is_scored: Bool[Tensor, " B"]) -> None:
        """Take in which images of a batch had something to score."""
        self.images_scored += is_scored.sum()
        self.images_left_out += (~is_scored).sum()

    def publish_counts(self) -> None:
        """Set `scored` and `left_out`. Only inside `compute` do the states hold the sums over all ranks."""
        self._scored, self._left_out = int(self.images_scored), int(self.images_left_out)

    def reset(self) -> None:
        """Start again with no images."""
        super().reset()
        self._forget_counts()

    def _forget_counts(self) -> None:
        self._scored, self._left_out = 0, 0


class MeanOverImages(ScoredImages):
    """Averages per-image values; an image with nothing to score (NaN) is left out and counted.

    A subclass computes the values of a batch in `update` and hands them to `add`. Sums are float64 and add up
    over ranks.

    Args:
        values_per_image: Shape of one image's values, `()` for a single number.
        **metric_options: Options of `torchmetrics.Metric`.
    """

    total: Tensor

    def __init__(self, values_per_image: tuple[int, ...] = (), **metric_options: Any) -> None:
        super().__init__(**metric_options)
        self.add_state("total", torch.zeros(values_per_image, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Float64[Tensor, "B *values_per_image"], is_scored: Bool[Tensor, " B"] | None = None) -> None:
        """Take in the values of a batch of images.

        Args:
            values: One value, or one row of values, an image.
            is_scored: Which images had something to score; by default those without NaN.
        """
        if is_scored is None:
            is_scored = ~values.flatten(start_dim=1).isnan().any(dim=1) if values.ndim > 1 else ~values.isnan()
        self.total += values[is_scored].sum(dim=0)
        self.count(is_scored)

    def compute(self) -> Any:
        """Mean over the scored images, float64; NaN where no image was scored."""
        self.publish_counts()
        return self.total / self.images_scored
