"""Means of what happened since the last row: over the steps that gave a number."""

import math

import torch

from boqsa.training.interval import Interval

NAN, INF = float("nan"), float("inf")


def filled(losses: list[float]) -> Interval:
    interval = Interval(8)
    for loss in losses:
        interval.add(torch.tensor(loss), torch.tensor(1.0), {"half": torch.tensor(loss / 2)})
    return interval


def test_what_is_no_number_counts_in_no_mean() -> None:
    interval = filled([1.0, NAN, 3.0, INF])
    assert interval.mean_loss == 2.0
    assert interval.mean_parts == {"half": 1.0}
    assert interval.last_loss == INF
    assert len(interval.losses) == 4


def test_no_number_at_all_has_no_mean() -> None:
    assert math.isnan(filled([NAN, INF]).mean_loss)


def test_the_mean_of_numbers_is_torch_s_own_to_the_last_bit() -> None:
    torch.manual_seed(0)
    losses = torch.rand(37)
    assert filled(losses.tolist()).mean_loss == float(losses.mean())
