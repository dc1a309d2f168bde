"""The two decoders to features: against slow ones written out, and what an order may and may not change."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from boqsa.models.feature_decoders import ORDERS, AutoregressiveFeatureDecoder, MLPFeatureDecoder, patch_orders


@pytest.fixture
def slots() -> Tensor:
    return torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mlp() -> MLPFeatureDecoder:
    torch.manual_seed(0)
    return MLPFeatureDecoder(16, 6, 8, hidden_size=10, layers=3).double()


def autoregressive(*, random_orders: bool = True) -> AutoregressiveFeatureDecoder:
    torch.manual_seed(0)
    decoder = AutoregressiveFeatureDecoder(4, 6, 8, blocks=2, heads=2, random_orders=random_orders)
    return decoder.double()


def test_the_mlp_mixes_what_each_slot_says(slots: Tensor) -> None:
    """Slot by slot and patch by patch, with all features of each slot made before they are mixed."""
    decoder = mlp()
    said = torch.zeros(2, 3, 16, 8, dtype=torch.float64)
    claims = torch.zeros(2, 3, 16, dtype=torch.float64)
    for slot in range(3):
        for patch in range(16):
            hidden = decoder.hidden(slots[:, slot] + decoder.positions[patch])
            said[:, slot, patch], claims[:, slot, patch] = decoder.to_features(hidden), decoder.to_claim(hidden)[:, 0]
    shares = claims.softmax(dim=1)
    found, found_shares = decoder(slots)
    torch.testing.assert_close(found_shares, shares)
    torch.testing.assert_close(found, (said * shares[..., None]).sum(dim=1))


def test_the_mlp_has_three_hidden_layers_and_positions_of_the_published_spread() -> None:
    """Baselines 7.1: 2048 x 3 to F + 1; N(0, 0.02)."""
    decoder = MLPFeatureDecoder(196, 256, 768, hidden_size=2048, layers=3)
    sizes = [256, 2048, 2048, 2048]
    expected = sum((one + 1) * two for one, two in pairwise(sizes)) + 2049 * 769 + 196 * 256
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected
    assert float(decoder.positions.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_orders_are_nine_different_walks_over_all_patches() -> None:
    orders = patch_orders(4)
    assert orders.shape == (ORDERS, 16)
    assert len({tuple(order) for order in orders.tolist()}) == ORDERS
    assert (orders.sort(dim=1).values == torch.arange(16)).all()
    assert orders[0].tolist() == list(range(16))
    corners = {order[0] for order in orders[:8].tolist()}
    assert corners == {0, 3, 12, 15}
    steps = orders[8].diff()  # the spiral goes from a patch to one beside it, from the middle to a corner
    assert {abs(step) for step in steps.tolist()} <= {1, 4}
    assert orders[8, 0] in (5, 6, 9, 10)
    assert orders[8, -1] == 0


@pytest.mark.parametrize("draw", [None, 0.0, 0.4, 0.999999])
def test_each_patch_is_foretold_from_those_before_it_alone(slots: Tensor, features: Tensor, draw: float | None) -> None:
    decoder = autoregressive()
    which = 0 if draw is None else int(draw * ORDERS)
    draws = None if draw is None else torch.full((2,), draw)
    before, _ = decoder(slots, features, draws)
    order = decoder.orders[which].tolist()
    changed = features.clone()
    changed[:, order[5]] += 1
    after, _ = decoder(slots, changed, draws)
    assert torch.equal(before[:, order[:6]], after[:, order[:6]]), "itself and those before it"
    assert not torch.isclose(before[:, order[6:]], after[:, order[6:]]).all(dim=-1).any()


def test_the_first_patch_of_an_order_knows_its_begin_token_and_the_slots(slots: Tensor, features: Tensor) -> None:
    decoder = autoregressive()
    draws = torch.tensor([0.0, 0.95])  # rows from the first corner; the spiral
    found, _ = decoder(slots, features, draws)
    other, _ = decoder(slots, torch.zeros_like(features), draws)
    for image, first in ((0, 0), (1, int(decoder.orders[8, 0]))):
        assert torch.equal(found[image, first], other[image, first])
    with torch.no_grad():
        decoder.begin[8] += torch.randn(8, dtype=torch.float64)
    moved, _ = decoder(slots, features, draws)
    assert torch.equal(moved[0], found[0])
    assert not torch.isclose(moved[1], found[1]).all(dim=-1).any()


def test_shares_are_what_the_last_block_asked_the_slots(slots: Tensor, features: Tensor) -> None:
    decoder = autoregressive()
    _, shares = decoder(slots, features, torch.tensor([0.2, 0.95]))
    assert shares.shape == (2, 3, 16)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, 16, dtype=torch.float64))
    permuted = decoder(slots[:, [2, 0, 1]], features, torch.tensor([0.2, 0.95]))
    torch.testing.assert_close(permuted[1], shares[:, [2, 0, 1]])


def test_without_random_orders_there_is_one_begin_token(slots: Tensor, features: Tensor) -> None:
    decoder = autoregressive(random_orders=False)
    assert decoder.begin.shape == (1, 8)
    assert torch.equal(decoder(slots, features)[0], decoder(slots, features, torch.tensor([0.99, 0.5]))[0])
    assert "orders" not in decoder.state_dict()
