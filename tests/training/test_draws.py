"""Draws are pure functions of (seed, step, position): the ground that exact resuming stands on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.training import draws
from boqsa.training.draws import batch_indices, draw_gumbel, draw_noise, dropout_seed

SHAPES = {"queries": (3, 4), "drop_path": (2,)}


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_every_epoch_is_a_permutation_however_batches_span_it(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)  # enough for three epochs
    order = np.concatenate([batch_indices(seed, step, batch, count) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_differs_by_epoch_and_seed() -> None:
    first, second = batch_indices(1, 0, 50, 50), batch_indices(1, 1, 50, 50)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, batch_indices(2, 0, 50, 50))


def test_order_does_not_depend_on_what_was_asked_before() -> None:
    expected = batch_indices(5, 7, 16, 50)
    for step in (100, 3, 9):
        batch_indices(6, step, 16, 50)
    np.testing.assert_array_equal(batch_indices(5, 7, 16, 50), expected)


def noise(positions: list[int], *, seed: int = 0, step: int = 0, perturb: bool = True):
    return draw_noise(SHAPES, seed=seed, step=step, positions=positions, perturb_queries=perturb)


def test_noise_of_a_sample_does_not_depend_on_its_neighbours() -> None:
    whole = noise([0, 1, 2, 3])
    pieces = [noise([0]), noise([1, 2]), noise([3])]
    for name in ("queries", "drop_path"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(piece, name) for piece in pieces]))


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"positions": [1]}])
def test_noise_differs_by_seed_step_and_sample(other: dict) -> None:
    one, two = noise([0]), noise(**{"positions": [0], **other})
    assert not torch.equal(one.queries, two.queries)
    assert not torch.equal(one.drop_path, two.drop_path)


def test_drop_path_stays_when_the_perturbation_ends() -> None:
    with_queries, without = noise([4, 5]), noise([4, 5], perturb=False)
    assert without.queries is None
    assert torch.equal(with_queries.drop_path, without.drop_path)


def test_noise_has_the_distribution_it_says() -> None:
    drawn = noise(list(range(4000)))
    assert drawn.queries.mean().abs() < 0.02
    assert abs(drawn.queries.std() - 1) < 0.02
    assert drawn.drop_path.min() >= 0
    assert drawn.drop_path.max() < 1
    assert abs(drawn.drop_path.mean() - 0.5) < 0.02
    assert drawn.queries.dtype == drawn.drop_path.dtype == torch.float32


def test_draws_are_pinned() -> None:
    """The same in every process, on every machine, in every version: a run resumes under a newer one too."""
    drawn = noise([2], seed=9, step=3)
    assert batch_indices(9, 3, 8, 20).tolist() == [8, 19, 15, 1, 3, 14, 18, 11]
    np.testing.assert_allclose(drawn.queries[0, 0], [-2.2924111, 0.020104, -0.6752306, -0.815103], rtol=1e-5)
    np.testing.assert_allclose(drawn.drop_path[0], [0.0773555, 0.2643197], rtol=1e-5)


@pytest.fixture(params=["philox", "generator"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator's generator draws is tried with torch's own on the CPU."""
    if request.param == "generator":
        monkeypatch.setattr(draws, "_fill_by_philox", draws._fill_by_generator)


def gumbel(positions: list[int], *, seed: int = 0, step: int = 0, shape: tuple[int, ...] = (5, 4, 4)):
    return draw_gumbel(shape, seed=seed, step=step, positions=positions)


@pytest.mark.usefixtures("_both_ways")
def test_gumbel_noise_of_a_sample_does_not_depend_on_its_neighbours() -> None:
    whole = gumbel([0, 1, 2, 3])
    pieces = [gumbel([0]), gumbel([1, 2]), gumbel([3])]
    for index in range(2):
        assert torch.equal(whole[index], torch.cat([piece[index] for piece in pieces]))


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"positions": [1]}])
def test_gumbel_noise_differs_by_seed_step_and_sample(other: dict) -> None:
    one, two = gumbel([0]), gumbel(**{"positions": [0], **other})
    assert all(not torch.equal(first, second) for first, second in zip(one, two, strict=True))


@pytest.mark.usefixtures("_both_ways")
def test_gumbel_noise_has_the_distribution_it_says() -> None:
    soft, hard = gumbel([0, 1], shape=(1024, 16, 16))
    for drawn in (soft, hard):
        assert drawn.dtype == torch.float32
        assert drawn.isfinite().all()
        assert abs(drawn.mean() - 0.5772) < 0.01  # Euler's constant
        assert abs(drawn.var() - torch.pi**2 / 6) < 0.02
        assert abs((drawn < 0).float().mean() - np.exp(-1)) < 0.01  # P(G < 0) = exp(-exp(0))
    correlation = torch.corrcoef(torch.stack([soft.flatten(), hard.flatten()]))[0, 1]
    assert abs(correlation) < 0.01


@pytest.mark.usefixtures("_both_ways")
def test_gumbel_arg_max_samples_the_categorical() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    soft, hard = gumbel([0], shape=(4, 200, 200))
    for drawn in (soft, hard):
        chosen = (probabilities.log()[None, :, None, None] + drawn).argmax(dim=1)
        torch.testing.assert_close(chosen.flatten().bincount() / 40_000, probabilities, atol=0.01, rtol=0)


def test_gumbel_noise_is_pinned() -> None:
    soft, hard = draw_gumbel((2, 1, 2), seed=9, step=3, positions=[2])
    np.testing.assert_allclose(soft.flatten(), [1.3244244, 0.2921964, 0.9348948, 0.2899957], rtol=1e-5)
    np.testing.assert_allclose(hard.flatten(), [0.419623, 1.1117237, 1.6884673, -0.2856207], rtol=1e-5)


def test_seeds_of_dropout_differ_and_fit() -> None:
    seeds = {dropout_seed(seed, step, first) for seed in range(5) for step in range(20) for first in range(20)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert dropout_seed(1, 23, 4) != dropout_seed(12, 3, 4)
    assert dropout_seed(42, 7, 3) == 636843223617982100


def test_dropout_and_gumbel_noise_do_not_share_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_fill_by_philox", draws._fill_by_generator)
    soft, _ = draw_gumbel((2, 3, 3), seed=1, step=2, positions=[0])
    same = torch.empty(2, 2, 3, 3).exponential_(generator=torch.Generator().manual_seed(dropout_seed(1, 2, 0)))
    assert not torch.allclose(soft[0], -same[0].log())
