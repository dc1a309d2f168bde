"""How far a count of objects is from the number of true ones, and what the best constant would reach."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int, Integer
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages

_MOST_OBJECTS = 256


class CountScores(NamedTuple):
    """Mean absolute errors over the images of a set; scalars."""

    count_error: Float64[Tensor, ""]
    """Of the counts, from 0 up."""
    count_error_of_constant: Float64[Tensor, ""]
    """Of the one number that is best for the whole set, chosen by the truth."""


def true_objects(true: Integer[Tensor, "B H W"]) -> Int[Tensor, "B"]:
    """How many objects each image shows: its distinct labels above 0, which may be any."""
    flat = true.flatten(1).sort(dim=1).values
    is_new = torch.ones_like(flat, dtype=torch.bool)
    is_new[:, 1:] = flat[:, 1:] != flat[:, :-1]
    return (is_new & (flat > 0)).sum(dim=1)


class ObjectCount(MeanOverImages):
    """Mean absolute error of a count; `compute` returns `CountScores`. Images of no object count as 0 objects."""

    higher_is_better = False
    seen: Tensor

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        self.add_state("seen", torch.zeros(_MOST_OBJECTS + 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, counts: Tensor, true: Tensor) -> None:
        """Take in a batch: whole numbers (batch,), and true labels (batch, height, width)."""
        objects = true_objects(true)
        self.add((counts - objects).abs().double())
        self.seen += torch.bincount(objects.clamp(max=_MOST_OBJECTS), minlength=_MOST_OBJECTS + 1)

    def compute(self) -> CountScores:
        """Mean absolute errors; NaN where no image was seen."""
        error = super().compute()
        numbers = torch.arange(_MOST_OBJECTS + 1, dtype=torch.float64, device=self.seen.device)
        distance = (numbers[:, None] - numbers).abs()  # of each constant to each number
        return CountScores(error, ((distance * self.seen).sum(dim=1) / self.seen.sum()).min())
