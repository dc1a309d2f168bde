import pytest
import torch
from torch import Tensor

from boqsa.models import MixtureModel
from boqsa.reproduce.outputs import outputs


def test_batches_do_not_change_sampled_slots(sampled: MixtureModel, images: Tensor) -> None:
    whole = next(outputs(sampled, images))
    pieces = list(outputs(sampled, images, batch_size=4))
    assert [len(piece.slots) for piece in pieces] == [4, 4, 2]
    assert torch.equal(torch.cat([piece.initial_slots for piece in pieces]), whole.initial_slots)
    # float32 sums in another order; slots are of the order of 1
    torch.testing.assert_close(torch.cat([piece.slots for piece in pieces]), whole.slots, atol=1e-5, rtol=1e-5)
    assert not torch.equal(whole.initial_slots[0], whole.initial_slots[1])


def test_the_training_flag_is_left_as_it_was(sampled: MixtureModel, images: Tensor) -> None:
    sampled.train()
    try:
        list(outputs(sampled, images[:2]))
        assert sampled.training
    finally:
        sampled.eval()


def test_no_images_are_refused(learned: MixtureModel, images: Tensor) -> None:
    with pytest.raises(ValueError, match="no images"):
        next(outputs(learned, images[:0]))
