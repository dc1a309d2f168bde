from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.reports import segmentation_grid, slot_colours
from boqsa.reports.grid import _GAP, _HEADER, _MARGIN, match_to_slots


def halves(scenes: int = 2, slots: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    """Red images whose left half is slot 2's and whose right half is slot 0's."""
    image = torch.zeros(scenes, 3, size, size)
    image[:, 0] = 1.0
    masks = torch.zeros(scenes, slots, 1, size, size)
    masks[:, 2, :, :, : size // 2] = 1.0
    masks[:, 0, :, :, size // 2 :] = 1.0
    return image, masks


def tile(picture: Any, row: int, column: int, side: int) -> np.ndarray:
    top, left = _MARGIN + _HEADER + row * (side + _GAP), _MARGIN + column * (side + _GAP)
    return np.asarray(picture)[top : top + side, left : left + side]


@pytest.mark.parametrize(("with_truth", "with_reconstruction"), [(False, False), (True, False), (True, True)])
def test_size_follows_from_rows_columns_and_scale(with_truth: bool, with_reconstruction: bool) -> None:
    image, masks = halves(scenes=5)
    true = torch.zeros(5, 8, 8, dtype=torch.int64) if with_truth else None
    reconstruction = image if with_reconstruction else None
    picture = segmentation_grid(image, masks, true=true, rows=2, reconstruction=reconstruction, scale=3)
    columns = 3 + with_truth + with_reconstruction + 3
    assert picture.mode == "RGB"
    assert picture.width == 2 * _MARGIN + columns * 24 + (columns - 1) * _GAP
    assert picture.height == 2 * _MARGIN + _HEADER + 2 * 24 + _GAP


def test_more_pictures_stand_last_in_their_order() -> None:
    image, masks = halves(scenes=2)
    more = {"first": torch.full((2, 3, 8, 8), 1.0), "second": torch.full((2, 3, 8, 8), 0.2)}
    picture = segmentation_grid(image, masks, more=more, rows=1, scale=2)
    assert (tile(picture, 0, 6, 16) == 255).all()
    assert (tile(picture, 0, 7, 16) == 51).all()
    assert picture.width == 2 * _MARGIN + 8 * 16 + 7 * _GAP
    with pytest.raises(ValueError, match="second must have shape"):
        segmentation_grid(image, masks, more={**more, "second": image[:1]})


def test_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    for size, side in ((32, 96), (64, 128), (128, 128)):
        picture = segmentation_grid(*halves(scenes=1, size=size))
        assert picture.height == 2 * _MARGIN + _HEADER + side


def test_pixels_wear_the_colour_of_their_slot() -> None:
    image, masks = halves()
    picture = segmentation_grid(image, masks, scale=2)
    np.testing.assert_array_equal(tile(picture, 1, 0, 16), np.broadcast_to([255, 0, 0], (16, 16, 3)))
    found = tile(picture, 1, 1, 16)
    assert (found[:, :8] == slot_colours(3)[2]).all()
    assert (found[:, 8:] == slot_colours(3)[0]).all()


def test_a_slot_shows_its_own_picture_where_its_mask_is_and_pale_checks_elsewhere() -> None:
    image, masks = halves(scenes=1)
    own = torch.zeros(1, 3, 3, 8, 8)
    own[:, 2, 2] = 7.0  # slot 2 paints blue, brighter than there is
    picture = segmentation_grid(image, masks, slot_reconstructions=own, scale=1)
    slot = tile(picture, 0, 3 + 2, 8)
    assert (slot[:, :4] == [0, 0, 255]).all()
    assert slot[:, 4:].min() >= 230


def test_without_slot_pictures_a_slot_shows_its_part_of_the_image() -> None:
    slot = tile(segmentation_grid(*halves(scenes=1), scale=1), 0, 3, 8)
    assert (slot[:, 4:] == [255, 0, 0]).all()
    assert slot[:, :4].min() >= 230


def test_uint8_images_come_out_as_they_are_and_nan_as_black() -> None:
    _, masks = halves(scenes=1)
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    broken = torch.full((1, 3, 8, 8), torch.nan)
    picture = segmentation_grid(image, masks, reconstruction=broken, scale=1)
    np.testing.assert_array_equal(tile(picture, 0, 0, 8), image[0].permute(1, 2, 0).numpy())
    assert (tile(picture, 0, 3, 8) == 0).all()


def test_truth_wears_the_colours_of_the_slots_that_found_it() -> None:
    image, masks = halves(scenes=1)
    true = torch.ones(1, 8, 8, dtype=torch.int64)
    true[:, :, 4:] = 40
    true[:, 0, 0] = -1
    truth = tile(segmentation_grid(image, masks, true=true, scale=1), 0, 1, 8)
    assert (truth[1:, :4] == slot_colours(3)[2]).all()
    assert (truth[:, 4:] == slot_colours(3)[0]).all()
    assert truth[0, 0].tolist() == [128, 128, 128]


def test_a_missed_object_gets_a_colour_of_its_own() -> None:
    found = np.array([[0, 0, 0, 1]])
    renamed = match_to_slots(np.array([[5, 5, 9, 7]]), found)
    assert renamed[0, :2].tolist() == [0, 0]
    assert renamed[0, 3] == 1
    assert renamed[0, 2] > 1


@given(seed=st.integers(0, 2**32 - 1), objects=st.integers(1, 6), slots=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_renaming_keeps_the_segmentation(seed: int, objects: int, slots: int) -> None:
    generator = np.random.default_rng(seed)
    true = generator.integers(-1, objects, (6, 6))
    renamed = match_to_slots(true, generator.integers(0, slots, (6, 6)))
    np.testing.assert_array_equal(renamed < 0, true < 0)
    pairs = {pair for pair in zip(true.ravel(), renamed.ravel(), strict=True) if pair[0] >= 0}
    assert len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})


def test_inputs_are_left_alone() -> None:
    image, masks = halves()
    before = image.clone(), masks.clone()
    segmentation_grid(image, masks)
    assert torch.equal(image, before[0])
    assert torch.equal(masks, before[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": torch.zeros(2, 3, 8, 8)}, "masks"),
        ({"masks": torch.zeros(2, 3, 1, 8, 9)}, "masks must have shape"),
        ({"true": torch.zeros(2, 9, 8, dtype=torch.int64)}, "true must have shape"),
        ({"slot_reconstructions": torch.zeros(2, 2, 3, 8, 8)}, "slot_reconstructions must have shape"),
        ({"reconstruction": torch.zeros(1, 3, 8, 8)}, "reconstruction must have shape"),
        ({"rows": 0}, "at least 1"),
        ({"scale": 0}, "at least 1"),
    ],
)
def test_refuses_shapes_that_do_not_belong_together(change: dict[str, Any], message: str) -> None:
    image, masks = halves()
    with pytest.raises(ValueError, match=message):
        segmentation_grid(**{"image": image, "masks": masks, **change})
