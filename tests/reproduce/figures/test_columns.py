"""The pictures in columns: attention, slots, grid."""

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.models import Output
from boqsa.reports import slot_colours
from boqsa.reports.grid import _GAP, _HEADER, _MARGIN
from boqsa.reproduce.figures import AttentionSet, attention_figure, background_slot, grid_figure, slots_figure

SIZE, SIDE = 8, 96
RED = (200, 0, 0)


def tile(picture: np.ndarray, row: int, column: int, *, above: int = 0, left: int = 0) -> np.ndarray:
    top = above + _MARGIN + _HEADER + row * (SIDE + _GAP)
    start = left + _MARGIN + column * (SIDE + _GAP)
    return picture[top : top + SIDE, start : start + SIDE]


def red(count: int) -> Tensor:
    image = torch.zeros(count, 3, SIZE, SIZE, dtype=torch.uint8)
    image[:, 0] = 200
    return image


def output(*, with_pictures: bool = True) -> Output:
    """Two images; slot 0 owns the left half and paints green, slot 1 the right half and paints blue."""
    masks = torch.zeros(2, 2, 1, SIZE, SIZE)
    masks[:, 0, :, :, : SIZE // 2] = 1
    masks[:, 1, :, :, SIZE // 2 :] = 1
    painted = torch.zeros(2, 2, 3, SIZE, SIZE)
    painted[:, 0, 1] = 1
    painted[:, 1, 2] = 1
    return Output(
        reconstruction=(painted * masks).sum(dim=1),
        slot_reconstructions=painted if with_pictures else None,
        masks=masks,
        slots=torch.zeros(2, 2, 4),
        initial_slots=torch.zeros(2, 2, 4),
        attention=torch.full((2, 2, 16), 0.5),
        losses={},
    )


def test_slots_show_what_they_paint_in_the_order_of_queries() -> None:
    picture = slots_figure(red(2), output())
    assert (tile(picture, 1, 0) == RED).all()
    assert (tile(picture, 1, 1)[:, : SIDE // 2] == (0, 255, 0)).all()
    first, second = tile(picture, 0, 2), tile(picture, 0, 3)
    assert (first[:, : SIDE // 2] == (0, 255, 0)).all()
    assert first[:, SIDE // 2 :].min() > 230
    assert (second[:, SIDE // 2 :] == (0, 0, 255)).all()


def test_slots_of_a_transformer_or_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="pass the output of a mixture model"):
        slots_figure(red(2), output(with_pictures=False))
    with pytest.raises(ValueError, match="got 3 images and an output of 2"):
        slots_figure(red(3), output())


def test_attention_shows_the_image_where_a_slot_looks() -> None:
    attention = torch.zeros(2, 2, 16)  # a 4x4 grid
    attention[:, 0, :8], attention[:, 1, 8:] = 1, 1  # slot 0 looks at the upper half
    picture = attention_figure(AttentionSet("source", red(2), attention))
    heading = picture.shape[0] - (2 * _MARGIN + _HEADER + 2 * SIDE + _GAP)
    assert heading > 0
    upper, lower = (tile(picture, 1, column, above=heading) for column in (1, 2))
    assert (upper[:24] == RED).all()  # beyond the blend of bilinear resizing
    assert upper[-24:].min() > 230
    assert (lower[-24:] == RED).all()
    assert lower[:24].min() > 230


def test_source_and_target_stand_side_by_side() -> None:
    attention = torch.full((3, 2, 16), 0.5)
    source, target = AttentionSet("a", red(3), attention), AttentionSet("b", 255 - red(2), attention[:2])
    alone, other, both = attention_figure(source), attention_figure(target), attention_figure(source, target)
    assert both.shape[:2] == (alone.shape[0], alone.shape[1] + other.shape[1])
    assert (both[:, : alone.shape[1]] == alone).all()
    assert (both[: other.shape[0], alone.shape[1] :] == other).all()
    assert (both[other.shape[0] :, alone.shape[1] :] == 255).all()
    with pytest.raises(ValueError, match=r"got \(3, 3, 8, 8\) and \(2, 2, 16\)"):
        attention_figure(AttentionSet("a", red(3), attention[:2]))


def squares() -> tuple[Tensor, Tensor]:
    """Truth: objects 5 and 2 on background and an ignored column. Found: 5 is slot 2, and slot 1 swallowed the rest."""
    true = torch.zeros(1, SIZE, SIZE, dtype=torch.int64)
    true[:, 2:4, 2:4], true[:, 5:7, 5:7], true[:, :, 7] = 5, 2, -1
    found = torch.ones_like(true)
    found[:, 2:4, 2:4] = 2
    return true, found


def test_the_background_is_black_in_truth_and_prediction() -> None:
    true, found = squares()
    picture = grid_figure(red(1), found, true=true, reconstruction=torch.ones(1, 3, SIZE, SIZE))
    cell = SIDE // SIZE
    image, reconstruction, truth, prediction = (tile(picture, 0, column)[cell // 2 :: cell, cell // 2 :: cell]
                                                for column in range(4))  # fmt: skip
    assert (image == RED).all()
    assert (reconstruction == 255).all()
    colours = slot_colours(256).tolist()
    assert prediction[2, 2].tolist() == truth[2, 2].tolist() == colours[2]
    assert (prediction[found[0].numpy() == 1] == 0).all()
    assert (truth[true[0].numpy() == 0] == 0).all()
    assert (truth[:, 7] == 128).all()
    missed = truth[5, 5].tolist()
    assert missed in colours
    assert missed not in (colours[1], colours[2])  # neither of the background slot nor of the object found


def test_without_truth_and_reconstruction_two_columns_are_left() -> None:
    picture = grid_figure(red(1), squares()[1])
    assert picture.shape[1] == 2 * _MARGIN + 2 * SIDE + _GAP


def test_the_background_slot_owns_most_of_the_border() -> None:
    labels = np.zeros((32, 32), dtype=np.int64)
    labels[2:-2, 2:-2] = 3  # larger, but off the frame of 32 / 16 = 2 pixels
    assert background_slot(labels) == 0
    labels[:, :20] = 4
    assert background_slot(labels) == 4
    assert background_slot(np.array([[7]])) == 7


def test_maps_of_another_size_are_refused() -> None:
    true, found = squares()
    with pytest.raises(ValueError, match=r"label maps \[\(1, 8, 8\), \(1, 4, 8\)\]; need \(1, 8, 8\)"):
        grid_figure(red(1), found, true=true[:, :4])
