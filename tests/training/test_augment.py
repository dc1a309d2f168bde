"""Random crops: what they keep, and that the draws decide alone."""

import torch

from boqsa.training.augment import augment
from boqsa.training.draws import draw_crops


def picture() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_whole_image_comes_back_as_it_was() -> None:
    image = picture()
    same = augment(image, torch.rand(3, 4), flip=False, least_crop=1.0)
    torch.testing.assert_close(same, image / 255, rtol=0, atol=1e-5)


def test_mirrors_where_the_first_number_says_so() -> None:
    image = picture()
    draws = torch.tensor([[0.2, 0, 0, 0], [0.7, 0, 0, 0], [0.49, 0, 0, 0]])
    found = augment(image, draws, flip=True, least_crop=1.0)
    wanted = torch.stack([image[0].flip(-1), image[1], image[2].flip(-1)]) / 255
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_cuts_out_the_square_that_the_draws_name() -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    image[:, 0, :8, 8:] = 255  # red above right
    right_above = torch.tensor([[0.9, 0.0, 0.9999, 0.0]])  # smallest side, far right, at the top
    found = augment(image, right_above, flip=False, least_crop=0.5)
    assert float(found[0, 0, :-1, 1:].min()) > 0.9
    assert not found[0, 1:].any()
    left_below = torch.tensor([[0.9, 0.0, 0.0, 0.9999]])
    assert float(augment(image, left_below, flip=False, least_crop=0.5)[0, 0, 1:, :-1].max()) < 0.1


def test_draws_are_a_function_of_seed_step_and_position() -> None:
    one = draw_crops(seed=1, step=2, positions=[3, 4])
    assert torch.equal(one[1:], draw_crops(seed=1, step=2, positions=[4]))
    for other in (draw_crops(seed=2, step=2, positions=[3]), draw_crops(seed=1, step=3, positions=[3])):
        assert not torch.equal(one[:1], other)
    assert bool(((one >= 0) & (one < 1)).all())
