from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import contingency_table


def test_hand_case() -> None:
    pred = torch.tensor([[[0, 0, 2], [2, 2, 0]]])
    true = torch.tensor([[[0, 1, 1], [1, -1, 0]]])
    assert contingency_table(pred, true).tolist() == [[[2, 1], [0, 0], [0, 2]]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_pair_is_counted_in_its_image(random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    pred, true = random_maps(seed)
    table = contingency_table(pred, true)
    for counts, p, t in zip(table.tolist(), pred, true, strict=True):
        expected = Counter((a, b) for a, b in zip(p.flatten().tolist(), t.flatten().tolist(), strict=True) if b >= 0)
        found = {(row, column): n for row, line in enumerate(counts) for column, n in enumerate(line) if n}
        assert found == dict(expected)


ALL_INTEGERS = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip


@pytest.mark.parametrize("pred_dtype", ALL_INTEGERS)
@pytest.mark.parametrize("true_dtype", ALL_INTEGERS)
def test_every_integer_dtype_counts_alike(pred_dtype: torch.dtype, true_dtype: torch.dtype) -> None:
    pred = torch.tensor([[[0, 100], [100, 3]]])
    true = torch.tensor([[[0, 120], [120, 1]]])
    expected = contingency_table(pred, true)
    assert expected[0, 100, 120] == 2
    assert torch.equal(contingency_table(pred.to(pred_dtype), true.to(true_dtype)), expected)


def test_no_label_overflows_a_narrow_dtype() -> None:
    pred = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    true = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    table = contingency_table(pred, true)
    assert table.shape == (3, 256, 256)
    assert table[:, 255, 255].tolist() == [4, 4, 4]
    assert table.sum() == 12


def test_large_labels_are_renumbered_and_the_background_keeps_column_0() -> None:
    huge = 2**40
    pred = torch.tensor([[[0, huge, huge]], [[7, 7, huge]]])
    true = torch.tensor([[[huge, 1000, -huge]], [[huge, huge, 1000]]])
    table = contingency_table(pred, true)
    # Rows 0, 7, huge; columns background, 1000, huge.
    assert table.tolist() == [
        [[0, 0, 1], [0, 0, 0], [0, 1, 0]],
        [[0, 0, 0], [0, 0, 2], [0, 1, 0]],
    ]


def test_large_labels_beside_background_and_ignored_pixels() -> None:
    true = torch.tensor([[[0, 5000, -3, -1]]])
    assert contingency_table(torch.zeros_like(true), true).tolist() == [[[1, 1]]]


def test_any_negative_true_label_is_ignored() -> None:
    true = torch.tensor([[[-1, -200, 0, 1]]])
    assert contingency_table(torch.zeros_like(true), true).tolist() == [[[1, 1]]]


def test_maps_of_any_memory_layout() -> None:
    pred = torch.randint(0, 4, (5, 6, 3), generator=torch.Generator().manual_seed(0))
    true = torch.randint(-1, 3, (5, 6, 3), generator=torch.Generator().manual_seed(1))
    turned = contingency_table(pred.permute(2, 0, 1), true.permute(2, 0, 1))
    assert torch.equal(
        turned, contingency_table(pred.permute(2, 0, 1).contiguous(), true.permute(2, 0, 1).contiguous())
    )


def test_inputs_are_not_changed() -> None:
    pred = torch.tensor([[[0, 300]]], dtype=torch.int32)
    true = torch.tensor([[[-5, 2]]], dtype=torch.int32)
    contingency_table(pred, true)
    assert pred.tolist() == [[[0, 300]]]
    assert true.tolist() == [[[-5, 2]]]


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4)])
def test_no_pixels_give_an_empty_table(shape: tuple[int, ...]) -> None:
    nothing = torch.zeros(shape, dtype=torch.int64)
    table = contingency_table(nothing, nothing)
    assert table.shape == (shape[0], 1, 1)
    assert table.sum() == 0


GOOD = torch.zeros(2, 3, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("pred", "true", "error", "message"),
    [
        (GOOD, GOOD[:, :2], ValueError, r"pred has shape \(2, 3, 3\) and true has shape \(2, 2, 3\)"),
        (GOOD[0], GOOD[0], ValueError, r"pred has shape \(3, 3\); expected \(batch, height, width\)"),
        (GOOD, GOOD[:, None], ValueError, r"true has shape \(2, 1, 3, 3\)"),
        (GOOD.float(), GOOD, TypeError, r"pred has dtype torch.float32; expected integer labels"),
        (GOOD, GOOD.bool(), TypeError, r"true has dtype torch.bool"),
        (GOOD.numpy(), GOOD, TypeError, r"pred is a ndarray; expected a torch tensor"),
        (GOOD - 2, GOOD, ValueError, r"pred has the label -2; expected labels from 0 up"),
        (GOOD, GOOD.to("meta"), ValueError, r"move both to one device"),
    ],
)
def test_bad_maps_are_refused(pred: Tensor, true: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        contingency_table(pred, true)


def test_a_table_that_would_not_fit_memory_is_refused() -> None:
    pixels = torch.arange(2 * 150 * 150).reshape(2, 150, 150)
    with pytest.raises(ValueError, match="2 images with 45000 predicted and 45000 true labels need a table"):
        contingency_table(pixels, pixels)
