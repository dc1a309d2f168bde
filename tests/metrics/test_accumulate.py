import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.metrics import AdjustedRandIndex, BestSlotOverlap, MeanOverImages

NAN = float("nan")


class PerImage(MeanOverImages):
    """The plainest subclass: it is given the values themselves."""

    def update(self, values: Tensor) -> None:
        self.add(values)


def filled(*batches: list[float], **options: Any) -> PerImage:
    metric = PerImage(**options)
    for batch in batches:
        metric.update(torch.tensor(batch, dtype=torch.float64))
    return metric


def test_mean_is_over_images_and_not_over_batches() -> None:
    metric = filled([1.0, 2.0, 3.0], [10.0])
    assert metric.compute().item() == 4.0
    assert metric.compute().dtype == torch.float64


def test_images_with_nothing_to_score_are_left_out_and_counted() -> None:
    metric = filled([1.0, NAN, 3.0], [NAN], [2.0])
    assert metric.compute().item() == 2.0
    assert (metric.scored, metric.left_out) == (3, 2)


def test_no_scored_image_gives_nan() -> None:
    metric = filled([NAN, NAN])
    assert metric.compute().isnan()
    assert (metric.scored, metric.left_out) == (0, 2)


def test_an_image_with_one_nan_among_its_values_is_left_out_whole() -> None:
    metric = PerImage(values_per_image=(2,))
    metric.update(torch.tensor([[1.0, 2.0], [NAN, 100.0], [3.0, 6.0]], dtype=torch.float64))
    assert metric.compute().tolist() == [2.0, 4.0]
    assert (metric.scored, metric.left_out) == (2, 1)


def test_images_can_be_declared_scored() -> None:
    metric = filled([3.0])
    metric.add(torch.tensor([1.0, NAN, 5.0]).double(), is_scored=torch.tensor([True, False, False]))
    assert metric.compute().item() == 2.0
    assert (metric.scored, metric.left_out) == (2, 2)


def test_an_empty_batch_changes_nothing() -> None:
    metric = filled([1.0], [], [3.0])
    assert metric.compute().item() == 2.0
    assert (metric.scored, metric.left_out) == (2, 0)


def test_reset_forgets_images_and_counts() -> None:
    metric = filled([1.0, NAN])
    metric.compute()
    metric.reset()
    assert (metric.scored, metric.left_out) == (0, 0)
    metric.update(torch.tensor([7.0], dtype=torch.float64))
    assert metric.compute().item() == 7.0
    assert (metric.scored, metric.left_out) == (1, 0)


def test_merged_states_equal_one_process_also_after_a_result() -> None:
    first, second = filled([1.0, NAN, 2.0]), filled([6.0, NAN, NAN])
    assert first.compute().item() == 1.5
    first.merge_state(second)
    assert first.compute().item() == 3.0
    assert (first.scored, first.left_out) == (3, 3)


def gather_with(other: MeanOverImages) -> Callable[..., list[Tensor]]:
    """What an all-gather of two processes gives: this state and the other process's, state after state."""
    states = iter([other.images_scored, other.images_left_out, other.total])
    return lambda state, group=None: [state, next(states)]


def test_two_processes_add_up() -> None:
    other = filled([6.0, NAN, NAN])
    metric = filled([1.0, NAN, 2.0], dist_sync_fn=gather_with(other), distributed_available_fn=lambda: True)
    assert metric.compute().item() == 3.0
    assert (metric.scored, metric.left_out) == (3, 3)
    # The states themselves go back to this process's share.
    assert (metric.images_scored.item(), metric.images_left_out.item()) == (2, 1)


def test_two_processes_add_up_for_several_values_an_image() -> None:
    generator = torch.Generator().manual_seed(0)
    pred = torch.randint(0, 3, (5, 4, 4), generator=generator)
    foreground = torch.randint(0, 2, (5, 4, 4), generator=generator)
    whole, other = BestSlotOverlap(), BestSlotOverlap()
    whole.update(pred, foreground)
    other.update(pred[3:], foreground[3:])
    part = BestSlotOverlap(dist_sync_fn=gather_with(other), distributed_available_fn=lambda: True)
    part.update(pred[:3], foreground[:3])
    torch.testing.assert_close(tuple(part.compute()), tuple(whole.compute()), rtol=1e-12, atol=0)
    assert part.scored == whole.scored == 5


def test_forward_returns_the_batch_and_accumulates_the_set() -> None:
    true = torch.tensor([[[0, 0, 1, 1]]])
    metric = AdjustedRandIndex()
    assert metric(true, true).item() == 1.0
    assert metric(torch.tensor([[[0, 1, 0, 1]]]), true).item() == -0.5
    assert metric.compute().item() == 0.25
    assert metric.scored == 2


def test_an_accumulator_survives_pickling() -> None:
    metric = pickle.loads(pickle.dumps(filled([1.0, NAN, 3.0])))
    assert metric.compute().item() == 2.0
    assert (metric.scored, metric.left_out) == (2, 1)


@pytest.mark.parametrize("count", [1, 10_000])
def test_sums_keep_float64_precision(count: int) -> None:
    metric = filled([0.1] * count)
    assert metric.compute().item() == pytest.approx(0.1, abs=1e-14)
