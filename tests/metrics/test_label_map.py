import pytest
import torch

from boqsa.metrics import label_map


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_largest_mask_owns_the_pixel(dtype: torch.dtype) -> None:
    masks = torch.tensor([[0.1, 0.5], [0.7, 0.25], [0.2, 0.25]], dtype=dtype).reshape(1, 3, 1, 1, 2)
    assert label_map(masks).tolist() == [[[1, 0]]]
    assert label_map(masks.squeeze(2)).tolist() == [[[1, 0]]]


def test_ties_go_to_the_lower_slot() -> None:
    assert label_map(torch.full((1, 4, 2, 2), 0.25)).eq(0).all()


def test_labels_pass_through() -> None:
    labels = torch.randint(0, 5, (2, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert label_map(labels) is labels


def test_a_batch_of_no_images_gives_no_labels() -> None:
    assert label_map(torch.zeros(0, 3, 1, 4, 5)).shape == (0, 4, 5)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 2, 4, 4), (2, 0, 4, 4)])
def test_other_mask_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"masks have shape .*expected \(batch, slots, 1, height, width\)"):
        label_map(torch.zeros(shape))


def test_nan_in_any_slot_is_refused() -> None:
    masks = torch.full((1, 3, 1, 2, 2), 0.3)
    masks[0, 2, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="masks hold NaN"):
        label_map(masks)
