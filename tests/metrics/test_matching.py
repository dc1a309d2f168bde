from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import HungarianIoU, hungarian_iou, mean_best_overlap
from boqsa.metrics.matching import cheapest_matching, matched_iou


def iou_by_trying_all(pred: list[int], true: list[int]) -> float:
    """The definition on sets of pixel numbers; every assignment of objects to segments is tried."""
    valid = [i for i, label in enumerate(true) if label >= 0]
    segments = [{i for i in valid if pred[i] == label} for label in {pred[i] for i in valid}]
    objects = [{i for i in valid if true[i] == label} for label in {true[i] for i in valid} if label > 0]
    if not objects:
        return float("nan")
    # An empty set for each object: it may stay without a partner.
    partners = segments + [set[int]()] * len(objects)
    return max(
        sum(len(a & b) / len(a | b) for a, b in zip(objects, chosen, strict=True)) / len(objects)
        for chosen in permutations(partners, len(objects))
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_equals_the_definition(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, true = random_maps(seed)
    expected = [iou_by_trying_all(p.flatten().tolist(), t.flatten().tolist()) for p, t in zip(pred, true, strict=True)]
    found = hungarian_iou(pred, true)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_matching_is_that_of_all_orders(seed: int) -> None:
    costs = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = min(permutations(range(5)), key=lambda order: sum(float(costs[i, j]) for i, j in enumerate(order)))
    assert cheapest_matching(costs).tolist() == list(best)


def test_one_segment_serves_one_object() -> None:
    true = torch.tensor([[[0, 0, 1, 1, 1, 2]]])
    merged = torch.tensor([[[0, 0, 1, 1, 1, 1]]])
    assert hungarian_iou(merged, true).item() == pytest.approx((3 / 4 + 0) / 2, abs=1e-15)
    assert mean_best_overlap(merged, true).item() == pytest.approx((3 / 4 + 1 / 4) / 2, abs=1e-15)


def test_the_sum_is_maximised_and_not_the_best_pair_first() -> None:
    iou = torch.tensor([[[0.6, 0.5], [0.5, 0.0]]], dtype=torch.float64)
    assert matched_iou(iou).tolist() == [[0.5, 0.5]]


def test_a_segment_of_the_background_may_be_matched_but_the_background_is_no_target() -> None:
    true = torch.tensor([[[0, 0, 0, 1]]])
    assert hungarian_iou(torch.zeros_like(true), true).tolist() == [1 / 4]
    assert hungarian_iou(1 - true, true).tolist() == [1]


def test_more_objects_than_segments_count_as_0() -> None:
    true = torch.tensor([[[1, 2, 3, 4]]])
    assert hungarian_iou(torch.tensor([[[0, 1, 1, 1]]]), true).item() == pytest.approx((1 + 1 / 3) / 4, abs=1e-15)


def test_no_object_is_nan() -> None:
    pred = torch.tensor([[[0, 1]]] * 3)
    true = torch.tensor([[[0, 0]], [[-1, 0]], [[0, 1]]])
    assert hungarian_iou(pred, true).isnan().tolist() == [True, True, False]
    assert hungarian_iou(pred[:2], true[:2]).isnan().all()
    assert hungarian_iou(pred[:0], true[:0]).shape == (0,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_only_the_partition_matters(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, true = random_maps(seed)
    expected = hungarian_iou(pred, true)
    other_pred = torch.tensor([900, 5, 2**33, 0])[pred]
    other_true = torch.where(true > 0, torch.tensor([0, 77, 300, 12])[true.clamp(min=0)], true)
    torch.testing.assert_close(hungarian_iou(other_pred, other_true), expected, rtol=0, atol=1e-15, equal_nan=True)


def test_class_averages_the_function() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(9, 4, 1, 6, 6, generator=generator)
    true = torch.randint(-1, 3, (9, 6, 6), generator=generator)
    true[4] = 0
    metric = HungarianIoU()
    for batch in torch.arange(9).split(4):
        metric.update(masks[batch], true[batch])
    values = hungarian_iou(masks.squeeze(2).argmax(dim=1), true)
    assert metric.compute().item() == pytest.approx(values.nanmean().item(), abs=1e-12)
    assert (metric.scored, metric.left_out) == (8, 1)
