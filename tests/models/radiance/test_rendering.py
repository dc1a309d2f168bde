"""Composition and volume rendering against closed forms (uorf 6, 10.7)."""

import math

import pytest
import torch
from torch import Tensor

from boqsa.models.radiance import Frustum
from boqsa.models.radiance.rendering import compose, ray_weights, see, see_all


def raw(*densities: float, samples: int = 1) -> Tensor:
    """A slot of each density, black and white in turn, along one ray."""
    values = torch.zeros(1, len(densities), 1, samples, 4, dtype=torch.float64)
    for slot, density in enumerate(densities):
        values[0, slot, ..., 0] = density
        values[0, slot, ..., 1:] = -20 if slot % 2 == 0 else 20  # after tanh: 0 or 1
    return values


def test_density_is_the_weighted_mean_and_not_the_sum() -> None:
    found = compose(raw(3.0, 3.0))
    assert found.density.item() == pytest.approx(3.0, rel=1e-5)
    assert compose(raw(1.0, 3.0)).density.item() == pytest.approx((1 + 9) / 4, rel=1e-5)


def test_a_slot_alone_owns_nearly_everything() -> None:
    found = compose(raw(0.5, 0.0))
    share = 0.5 / (0.5 + 1e-5)
    assert found.density.item() == pytest.approx(share * 0.5, rel=1e-12)
    assert found.slot_density[0, 1].item() == 0


def test_negative_densities_are_none() -> None:
    found = compose(raw(-2.0, 1.0))
    assert found.slot_density[0, 0].item() == 0
    assert found.colour.flatten().tolist() == pytest.approx([1 / (1 + 1e-5)] * 3)


def test_shares_sum_to_the_whole() -> None:
    values = torch.randn(2, 4, 5, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = compose(values)
    torch.testing.assert_close(found.slot_density.sum(1), found.density)
    torch.testing.assert_close(found.slot_colour.sum(1), found.colour)


def test_noise_moves_densities_and_leaves_shares() -> None:
    noise = torch.full((1, 2, 1, 1), 0.25, dtype=torch.float64)
    quiet, noisy = compose(raw(1.0, 3.0)), compose(raw(1.0, 3.0), noise=noise)
    torch.testing.assert_close(noisy.colour, quiet.colour)
    assert noisy.density.item() == pytest.approx((0.25 * 1.25 + 0.75 * 3.25), rel=1e-5)


def test_constant_density_has_a_closed_form() -> None:
    samples, density = 64, 2.5
    intervals = Frustum().intervals(samples, like=torch.zeros((), dtype=torch.float64))
    weights = ray_weights(torch.full((1, samples), density).double(), intervals, torch.ones(1).double())
    reached = torch.exp(-density * torch.cat([torch.zeros(1), intervals.cumsum(0)[:-1]]))
    torch.testing.assert_close(weights[0], reached * (1 - torch.exp(-density * intervals)), rtol=0, atol=1e-8)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-density * 1.01), abs=1e-8)


def test_what_lies_behind_something_opaque_is_not_seen() -> None:
    values = raw(0.0, 0.0, samples=3)
    values[0, 1, 0, 0, 0] = 1e4  # white in front
    values[0, 0, 0, 1, 0] = 1e4  # black behind it
    intervals = torch.full((3,), 0.5, dtype=torch.float64)
    seen = see_all(compose(values), intervals, torch.ones(1, 1).double())
    torch.testing.assert_close(seen.colour[0, 0], torch.ones(3).double())
    # The published mask of a slot is rendered alone: what hides it plays no part.
    assert seen.slot_masks[0, 0].item() == pytest.approx(1e4, rel=1e-6)
    assert seen.slot_masks[0, 1].item() == pytest.approx(1e4, rel=1e-6)


def test_equal_slots_look_like_each_of_them() -> None:
    one = torch.randn(1, 1, 7, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    intervals, lengths = torch.full((9,), 0.1).double(), torch.ones(1, 7).double()
    alone = see(compose(one), intervals, lengths)
    together = see(compose(one.expand(1, 4, 7, 9, 4)), intervals, lengths)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)  # 1e-5 of density in the shares


def test_depth_of_a_wall_is_where_it_stands() -> None:
    values = raw(0.0, samples=5)
    values[0, 0, 0, 3, 0] = 1e6
    seen = see_all(compose(values), torch.full((5,), 0.25).double(), torch.ones(1, 1).double())
    assert seen.depth.item() == pytest.approx(0.75, abs=1e-4)


def test_nothing_is_black_and_has_a_depth_all_the_same() -> None:
    seen = see_all(compose(raw(0.0, 0.0, samples=5)), torch.full((5,), 0.25).double(), torch.ones(1, 1).double())
    assert seen.colour.abs().max().item() == 0
    assert seen.depth.item() == pytest.approx(0.5)


def test_see_is_the_colour_of_see_all() -> None:
    values = torch.randn(2, 3, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    intervals, lengths = torch.full((6,), 0.2), torch.full((2, 5), 1.1)
    torch.testing.assert_close(
        see(compose(values), intervals, lengths), see_all(compose(values), intervals, lengths).colour
    )
