from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import (
    BestSlotOverlap,
    LargestIntersectionOverlap,
    best_slot_overlap,
    largest_intersection_overlap,
)


def overlap_by_sets(pred: list[int], foreground: list[int]) -> tuple[float, float]:
    """The definition on sets of pixel numbers."""
    valid = [i for i, label in enumerate(foreground) if label >= 0]
    target = {i for i in valid if foreground[i] > 0}
    if not target:
        return float("nan"), float("nan")
    slots = [{i for i in valid if pred[i] == label} for label in {pred[i] for i in valid}]
    return (
        max(len(s & target) / len(s | target) for s in slots),
        max(2 * len(s & target) / (len(s) + len(target)) for s in slots),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_equals_the_definition(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, foreground = random_maps(seed)
    expected = [
        overlap_by_sets(p.flatten().tolist(), f.flatten().tolist()) for p, f in zip(pred, foreground, strict=True)
    ]
    found = best_slot_overlap(pred, foreground)
    assert found.iou.dtype == found.dice.dtype == torch.float64
    np.testing.assert_allclose(torch.stack(found, dim=1).numpy(), expected, rtol=0, atol=1e-12)


def test_equals_the_published_numbers(published: dict[str, np.ndarray]) -> None:
    has_foreground = (published["true"] > 0).any(axis=(1, 2))
    found = best_slot_overlap(torch.from_numpy(published["pred"]), torch.from_numpy(published["true"]))
    for name in ("iou", "dice"):
        values, expected = getattr(found, name).numpy(), published[f"best_slot_{name}"]
        np.testing.assert_allclose(values[has_foreground], expected[has_foreground], rtol=0, atol=2e-7)
        # The published code scored 1 where there was no foreground (spec section 10).
        assert np.isnan(values[~has_foreground]).all()


def test_hand_case() -> None:
    foreground = torch.tensor([[[0, 0, 1, 1, 1, 1]]])
    pred = torch.tensor([[[3, 0, 0, 0, 0, 1]]])
    iou, dice = best_slot_overlap(pred, foreground)
    assert iou.tolist() == [3 / 5]
    assert dice.tolist() == [6 / 8]


def test_the_largest_intersection_is_not_the_best_fit() -> None:
    foreground = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
    pred = torch.tensor([[[0, 0, 0, 0, 0, 0, 0, 1]]])
    assert largest_intersection_overlap(pred, foreground).iou.tolist() == [3 / 8]
    everything = torch.zeros_like(pred)
    assert largest_intersection_overlap(everything, foreground).iou.tolist() == [1 / 2]
    assert best_slot_overlap(pred, foreground).iou.tolist() == [3 / 8]
    smaller = torch.tensor([[[2, 0, 0, 0, 0, 0, 1, 1]]])  # slots 0 and 1 have two pixels each; slot 1 has no others
    found = largest_intersection_overlap(smaller, foreground)
    assert found.iou.tolist() == [1 / 2]
    assert found.dice.tolist() == [2 / 3]


def test_the_largest_intersection_is_the_mean_of_what_its_slot_has() -> None:
    metric = LargestIntersectionOverlap()
    metric.update(torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]]]), torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 0]]]))
    scores = metric.compute()
    assert scores.intersection_iou.item() == 2 / 3
    assert scores.intersection_dice.item() == 4 / 5
    assert metric.left_out == 1


def test_foreground_may_be_boolean_binary_or_object_numbers() -> None:
    objects = torch.tensor([[[0, 3, 700, 3]], [[0, 0, 1, 1]]])
    pred = torch.tensor([[[0, 1, 1, 0]], [[0, 1, 1, 0]]])
    expected = best_slot_overlap(pred, objects)
    for foreground in (objects > 0, (objects > 0).to(torch.uint8)):
        assert torch.equal(torch.stack(best_slot_overlap(pred, foreground)), torch.stack(expected))


def test_no_foreground_is_nan_and_disturbs_no_other_image() -> None:
    pred = torch.tensor([[[0, 1]], [[2, 2]], [[0, 1]]])
    foreground = torch.tensor([[[0, 0]], [[-1, 0]], [[0, 1]]])
    for values in best_slot_overlap(pred, foreground):
        assert values[:2].isnan().all()
        assert values[2] == 1
    for values in best_slot_overlap(pred[:2], foreground[:2]):
        assert values.isnan().all()


def test_predictions_on_ignored_pixels_do_not_matter() -> None:
    foreground = torch.tensor([[[0, 1, 1, -1]]])
    for label in (0, 1, 8):
        iou, dice = best_slot_overlap(torch.tensor([[[0, 1, 1, label]]]), foreground)
        assert (iou.item(), dice.item()) == (1, 1)


def test_class_averages_the_function() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(9, 3, 6, 6, generator=generator)
    foreground = torch.randint(0, 2, (9, 6, 6), generator=generator)
    foreground[2] = 0
    metric = BestSlotOverlap()
    for batch in torch.arange(9).split(4):
        metric.update(masks[batch], foreground[batch])
    values = best_slot_overlap(masks.argmax(dim=1), foreground)
    found = metric.compute()
    assert found.iou.item() == pytest.approx(values.iou.nanmean().item(), abs=1e-12)
    assert found.dice.item() == pytest.approx(values.dice.nanmean().item(), abs=1e-12)
    assert (metric.scored, metric.left_out) == (8, 1)
