from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import BackgroundInTopSlots, background_in_top_slots, background_shares


def test_hand_case() -> None:
    true = torch.tensor([[[0, 0, 0, 0, 0, 1, 1, -1]]])
    pred = torch.tensor([[[2, 2, 2, 0, 1, 1, 1, 0]]])
    torch.testing.assert_close(
        background_shares(pred, true),
        torch.tensor([[0.6, 0.2, 0.2]], dtype=torch.float64),
        rtol=0,
        atol=1e-15,
    )
    for slots, share in ((1, 3 / 5), (2, 4 / 5), (3, 1.0), (9, 1.0)):
        assert background_in_top_slots(pred, true, slots).tolist() == [share]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4))
def test_equals_counting_by_hand(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, slots: int) -> None:
    pred, true = random_maps(seed)
    shares, in_top = background_shares(pred, true), background_in_top_slots(pred, true, slots)
    for p, t, found_shares, found_in_top in zip(pred, true, shares, in_top, strict=True):
        background = p[t == 0].tolist()
        if not background:
            assert found_shares.isnan().all()
            assert found_in_top.isnan()
            continue
        owners = sorted((background.count(label) for label in set(background)), reverse=True)
        expected = [count / len(background) for count in owners]
        assert found_shares.tolist() == pytest.approx(expected + [0.0] * (len(found_shares) - len(owners)), abs=1e-12)
        assert found_in_top.item() == pytest.approx(sum(expected[:slots]), abs=1e-12)


def test_fewer_than_one_slot_is_refused() -> None:
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="slots is 0; expected at least 1"):
        background_in_top_slots(labels, labels, slots=0)
    with pytest.raises(ValueError, match="slots is -1; expected at least 1"):
        BackgroundInTopSlots(slots=-1)


@pytest.mark.parametrize("slots", [1, 2])
def test_class_averages_the_function(slots: int) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(9, 4, 6, 6, generator=generator)
    true = torch.randint(0, 3, (9, 6, 6), generator=generator)
    true[5] = 1
    metric = BackgroundInTopSlots(slots)
    for batch in torch.arange(9).split(4):
        metric.update(masks[batch], true[batch])
    values = background_in_top_slots(masks.argmax(dim=1), true, slots)
    assert metric.compute().item() == pytest.approx(values.nanmean().item(), abs=1e-12)
    assert (metric.scored, metric.left_out) == (8, 1)
