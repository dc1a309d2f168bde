"""Which slots a picture needs: hand-made pictures whose answer is known."""

import pytest
import torch
from torch import Tensor

from boqsa.models import Output
from boqsa.models.adaptive import needed_slots

SIZE = 16


def scene(*objects: tuple[int, int, float]) -> tuple[Tensor, Tensor]:
    """A black picture (3, H, W) with squares of 5 pixels at (row, column) of a grey, and labels, 0 for none."""
    image, labels = torch.zeros(3, SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=torch.long)
    for number, (row, column, grey) in enumerate(objects, start=1):
        image[:, row : row + 5, column : column + 5] = grey
        labels[row : row + 5, column : column + 5] = number
    return image, labels


def output(image: Tensor, owners: Tensor, painted: Tensor, heirs: Tensor | None = None) -> Output:
    """A batch of one: who owns each pixel (H, W), who would own it next (slot 0, or slot 1 where that owns it), and
    what each slot paints everywhere (K,)."""
    slots = len(painted)
    heirs = (owners == 0).long() if heirs is None else heirs
    shares = [0.98 * torch.nn.functional.one_hot(owners, slots), 0.02 * torch.nn.functional.one_hot(heirs, slots)]
    masks = sum(shares, start=torch.zeros(SIZE, SIZE, slots)).permute(2, 0, 1)[None, :, None]
    images = painted.view(1, slots, 1, 1, 1).expand(1, slots, 3, SIZE, SIZE).clone()
    zeros = torch.zeros(1, slots, 4)
    return Output(image[None], images, masks, zeros, zeros, torch.zeros(1, slots, 4), {})


def test_slots_that_paint_what_nobody_else_can_are_needed() -> None:
    image, owners = scene((3, 3, 0.5), (9, 9, 1.0))
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.5, 1.0])), image[None])
    assert found.is_needed.tolist() == [[True, True, True]]
    torch.testing.assert_close(found.segmentation()[0], owners)
    assert found.objects().tolist() == [2]


def test_an_empty_slot_is_left_out() -> None:
    image, owners = scene((3, 3, 0.5))
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.5, 0.3, 0.9])), image[None])
    assert found.is_needed.tolist() == [[True, True, False, False]]
    assert found.objects().tolist() == [1]
    assert (found.masks[:, 2:] == 0).all()
    torch.testing.assert_close(found.masks.sum(dim=1), torch.ones(1, 1, SIZE, SIZE))


def test_of_two_slots_on_one_object_one_stays_and_takes_all_of_it() -> None:
    image, owners = scene((3, 3, 0.5))
    halves = owners.clone()
    halves[6:, :][owners[6:, :] == 1] = 2
    heirs = torch.where(owners == 1, 3 - halves, 1)  # each half is the other's
    found = needed_slots(output(image, halves, torch.tensor([0.0, 0.5, 0.5]), heirs), image[None])
    assert found.is_needed.sum() == 2
    labels = found.segmentation()[0]
    assert len(labels[owners == 1].unique()) == 1
    assert found.objects().tolist() == [1]


def test_two_objects_of_one_colour_stay_two_where_the_slots_differ() -> None:
    """What a slot paints elsewhere decides: one that paints the background there cannot take over."""
    image, owners = scene((2, 2, 0.5), (9, 9, 0.5))
    made = output(image, owners, torch.tensor([0.0, 0.5, 0.5]))
    painted = made.slot_reconstructions
    assert painted is not None
    painted[0, 1][:, owners == 2] = 0.0
    painted[0, 2][:, owners == 1] = 0.0
    assert needed_slots(made, image[None]).objects().tolist() == [2]


def test_a_room_that_two_slots_share_is_no_object() -> None:
    image, owners = scene((6, 6, 1.0))
    image[:, 8:][:, owners[8:] == 0] = 0.4
    owners = owners * 2
    owners[8:][owners[8:] == 0] = 1
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.4, 1.0])), image[None])
    assert found.is_needed.tolist() == [[True, True, True]]
    assert found.objects().tolist() == [1]


def test_pictures_of_a_batch_are_told_apart_and_one_slot_always_stays() -> None:
    (one, of_one), (none, of_none) = scene((3, 3, 0.5)), scene()
    made = [output(image, owners, torch.tensor([0.0, 0.5, 0.9])) for image, owners in ((one, of_one), (none, of_none))]
    both = Output(*(torch.cat(pair) if isinstance(pair[0], Tensor) else {} for pair in zip(*made, strict=True)))
    found = needed_slots(both, torch.stack([one, none]))
    assert found.is_needed.tolist() == [[True, True, False], [True, False, False]]
    assert found.objects().tolist() == [1, 0]
    assert needed_slots(both, torch.stack([one, none]), least_rise=1e9).is_needed.sum(dim=1).tolist() == [1, 1]


def test_what_does_not_fit_is_refused() -> None:
    image, owners = scene()
    made = output(image, owners, torch.tensor([0.0, 0.5]))
    with pytest.raises(ValueError, match="least_rise is -1"):
        needed_slots(made, image[None], least_rise=-1.0)
    with pytest.raises(ValueError, match="a transformer model has none"):
        needed_slots(made._replace(slot_reconstructions=None), image[None])
