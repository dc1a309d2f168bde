from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import (
    LabelFreeOverlap,
    best_slot_overlap,
    label_free_overlap,
    slot_off_border,
)


def picture(*rows: str) -> Tensor:
    """One label map from lines of digits."""
    return torch.tensor([[[int(label) for label in row] for row in rows]])


def off_border_by_hand(pred: list[list[int]], slot: int) -> float:
    """Share of the pixels less share of the frame, one pixel at a time."""
    height, width = len(pred), len(pred[0])
    frame = max(1, min(height, width) // 16)
    pixels = [(y, x) for y in range(height) for x in range(width)]
    border = [(y, x) for y, x in pixels if min(y, x, height - 1 - y, width - 1 - x) < frame]
    share, share_of_border = (sum(pred[y][x] == slot for y, x in area) / len(area) for area in (pixels, border))
    return share - share_of_border


def overlap_of_one(pred: Tensor, foreground: Tensor, slot: int) -> tuple[float, float]:
    chosen = (pred == slot) & (foreground >= 0)
    target = foreground > 0
    shared = int((chosen & target).sum())
    return shared / int((chosen | target).sum()), 2 * shared / int(chosen.sum() + target.sum())


def test_the_object_is_chosen_and_not_its_part_nor_the_background() -> None:
    pred = picture(
        "222222",
        "200002",
        "201102",
        "200002",
        "200002",
        "220022",
    )
    assert slot_off_border(pred).tolist() == [0]


def test_a_background_in_pieces_is_not_chosen() -> None:
    pred = picture(
        "000333",
        "001133",
        "001133",
        "000333",
    )
    assert slot_off_border(pred).tolist() == [1]


def test_an_empty_slot_is_never_chosen() -> None:
    assert slot_off_border(torch.full((1, 5, 5), 3)).tolist() == [3]
    metric = LabelFreeOverlap()
    metric.update(torch.full((2, 5, 5), 3), torch.ones(2, 5, 5, dtype=torch.int64))
    assert metric.compute().fixed_slot == 3


def test_a_thin_line_at_the_edge_does_not_hide_the_background() -> None:
    # Slot 1 is a frame of one pixel, as padding leaves it. The background, slot 2, keeps off that line altogether.
    pred = torch.ones(1, 64, 64, dtype=torch.int64)
    pred[:, 1:-1, 1:-1] = 2
    pred[:, 20:44, 20:44] = 0
    assert slot_off_border(pred).tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_both_choices_equal_the_definition(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, foreground = random_maps(seed)
    foreground[: seed % 2] = 0
    slots = range(int(pred.max()) + 1)
    off_border = [[off_border_by_hand(p.tolist(), slot) for slot in slots] for p in pred]

    chosen = slot_off_border(pred).tolist()
    for p, slot, scores in zip(pred, chosen, off_border, strict=True):
        assert slot in p
        assert scores[slot] == pytest.approx(max(scores[other] for other in slots if other in p), abs=1e-12)
    found = label_free_overlap(pred, foreground)
    has_foreground = (foreground > 0).flatten(start_dim=1).any(dim=1)
    for p, f, slot, iou, dice, is_scored in zip(pred, foreground, chosen, *found, has_foreground, strict=True):
        expected = overlap_of_one(p, f, slot) if is_scored else (float("nan"), float("nan"))
        assert (iou.item(), dice.item()) == pytest.approx(expected, abs=1e-12, nan_ok=True)

    metric = LabelFreeOverlap()
    for batch in torch.arange(len(pred)).split(2):
        metric.update(pred[batch], foreground[batch])
    scores = metric.compute()
    assert (metric.scored, metric.left_out) == (has_foreground.sum(), (~has_foreground).sum())
    fixed = int(scores.fixed_slot)
    totals = [sum(one[slot] for one in off_border) for slot in slots]
    assert fixed in pred
    assert totals[fixed] == pytest.approx(max(totals[slot] for slot in slots if slot in pred), abs=1e-12)
    if not has_foreground.any():
        assert torch.stack(scores[:4]).isnan().all()
        return
    assert scores.border_iou.item() == pytest.approx(found.iou.nanmean().item(), abs=1e-12)
    assert scores.border_dice.item() == pytest.approx(found.dice.nanmean().item(), abs=1e-12)
    by_image = [overlap_of_one(p, f, fixed) for p, f, ok in zip(pred, foreground, has_foreground, strict=True) if ok]
    assert scores.fixed_iou.item() == pytest.approx(sum(iou for iou, _ in by_image) / len(by_image), abs=1e-12)
    assert scores.fixed_dice.item() == pytest.approx(sum(dice for _, dice in by_image) / len(by_image), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_oracle_is_at_least_as_good(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, foreground = random_maps(seed)
    for oracle, free in zip(best_slot_overlap(pred, foreground), label_free_overlap(pred, foreground), strict=True):
        assert (free <= oracle)[~oracle.isnan()].all()
        assert torch.equal(free.isnan(), oracle.isnan())


def test_the_fixed_slot_pays_where_slots_change_their_roles() -> None:
    middle = torch.zeros(3, 5, 5, dtype=torch.int64)
    middle[:, 1:-1, 1:-1] = 1
    pred = middle.clone()
    pred[2] = 1 - pred[2]
    metric = LabelFreeOverlap()
    metric.update(pred, middle > 0)
    scores = metric.compute()
    assert scores.border_iou == scores.border_dice == 1
    assert scores.fixed_slot == 1
    assert scores.fixed_iou.item() == pytest.approx(2 / 3, abs=1e-15)


def test_labels_never_touch_the_choice() -> None:
    pred = torch.randint(0, 3, (6, 8, 8), generator=torch.Generator().manual_seed(0))
    slots = set()
    for seed in range(5):
        foreground = torch.randint(-1, 2, pred.shape, generator=torch.Generator().manual_seed(seed))
        foreground[seed] = 0
        metric = LabelFreeOverlap()
        metric.update(pred, foreground)
        slots.add(int(metric.compute().fixed_slot))
    assert len(slots) == 1


def test_predictions_on_ignored_pixels_do_not_enter_the_overlap() -> None:
    pred = picture("0000", "0110", "0110", "0000")
    foreground = pred.clone()
    foreground[0, 1, 1] = -1
    assert [value.item() for value in label_free_overlap(pred, foreground)] == [1, 1]
    pred[0, 1, 1] = 0
    assert [value.item() for value in label_free_overlap(pred, foreground)] == [1, 1]


def test_masks_count_as_their_label_map() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 3, 1, 6, 6, generator=generator)
    foreground = torch.randint(0, 2, (5, 6, 6), generator=generator)
    by_masks, by_labels = LabelFreeOverlap(), LabelFreeOverlap()
    by_masks.update(masks, foreground)
    by_labels.update(masks.squeeze(2).argmax(dim=1).to(torch.uint8), foreground.bool())
    assert torch.equal(torch.stack(by_masks.compute()), torch.stack(by_labels.compute()))


def test_ranks_add_up_also_when_one_has_no_images() -> None:
    generator = torch.Generator().manual_seed(1)
    pred = torch.randint(0, 3, (5, 6, 6), generator=generator)
    foreground = torch.randint(0, 2, (5, 6, 6), generator=generator)
    whole, first, second = LabelFreeOverlap(), LabelFreeOverlap(), LabelFreeOverlap()
    whole.update(pred, foreground)
    first.update(pred[:3], foreground[:3])
    second.update(pred[3:], foreground[3:])
    first.merge_state(second)
    first.merge_state(LabelFreeOverlap())
    torch.testing.assert_close(torch.stack(first.compute()), torch.stack(whole.compute()), rtol=1e-12, atol=0)


def test_no_images_give_nan_and_no_slot() -> None:
    metric = LabelFreeOverlap()
    metric.update(torch.zeros(0, 4, 4, dtype=torch.int64), torch.zeros(0, 4, 4, dtype=torch.int64))
    scores = metric.compute()
    assert torch.stack(scores[:4]).isnan().all()
    assert scores.fixed_slot == -1


def test_more_labels_than_slots_can_be_are_refused() -> None:
    pred = torch.tensor([[[0, 256]]])
    with pytest.raises(ValueError, match="pred has the label 256; expected slots, 0 to 255"):
        slot_off_border(pred)
    with pytest.raises(ValueError, match="pred has the label 256"):
        LabelFreeOverlap().update(pred, pred)
    assert slot_off_border(pred - 1 + pred.eq(0)).tolist() == [0]
