"""Moving queries without a gradient (spec 6), against NumPy and scikit-learn, and every order of the centres."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import cluster
from torch import Tensor

from boqsa.metrics.matching import cheapest_matching
from boqsa.slots import KMeans, LearnedQueries, RunningMean, consistency_loss, refine
from boqsa.slots.updates import cluster_centres

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
"""Of float32 slots of size 1."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_seed(points: Tensor, count: int, seed: int) -> Tensor:
    return cluster_centres(points, count, generator=torch.Generator().manual_seed(seed))


def cost(points: Tensor, centres: Tensor) -> float:
    """What k-means makes small: squared distances to the nearest centre, summed."""
    return float((points[:, None] - centres).square().sum(dim=-1).amin(dim=1).sum())


def blobs(count: int, each: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points (each, count, 5) around centres far apart, slot k around centre k; and the centres."""
    centres = 100 * normal(count, 5, seed=seed)
    return centres + 0.01 * normal(each, count, 5, seed=seed + 1), centres


@pytest.mark.parametrize("momentum", [1.0, 0.1])
def test_the_running_mean_of_each_slot(momentum: float) -> None:
    queries, slots = normal(3, 4), normal(6, 3, 4, seed=1)
    found = RunningMean(momentum)(queries, slots, seed=5)
    expected = np.zeros((3, 4))
    for k in range(3):
        mean = sum(slots[b, k].numpy().astype(float) for b in range(6)) / 6
        expected[k] = momentum * mean + (1 - momentum) * queries[k].numpy()
    np.testing.assert_allclose(found.numpy(), expected, **ROUNDING)


@pytest.mark.parametrize("momentum", [1.0, 0.1])
def test_each_query_takes_its_centre_in_whatever_order_they_come(momentum: float) -> None:
    """The blob of slot k is nearest to some query; the start of the search decides the order of the centres."""
    slots, _ = blobs(4, 7)
    means = slots.mean(dim=0)
    update = KMeans(momentum, match=cheapest_matching)
    for seed, order in enumerate(permutations(range(4))):
        queries = means[list(order)] + normal(4, 5, seed=9)
        expected = momentum * means[list(order)] + (1 - momentum) * queries
        torch.testing.assert_close(update(queries, slots, seed=seed), expected, rtol=1e-5, atol=1e-4)


def test_the_matching_is_the_cheapest_of_all() -> None:
    """Not the nearest centre of each query, which two of them may share."""
    slots, queries = normal(10, 4, 5), normal(4, 5, seed=1)
    found = KMeans(match=cheapest_matching)(queries, slots, seed=3)
    centres = by_seed(slots.flatten(0, 1).double(), 4, seed=3).float()
    best = min(permutations(range(4)), key=lambda order: float((queries - centres[list(order)]).square().sum()))
    assert torch.equal(found, centres[list(best)])


def test_slots_may_have_changed_places() -> None:
    """Clusters are of all slots together, so that it does not count which slot found what."""
    slots, centres = blobs(4, 7)
    shuffled = torch.stack([slots[b, torch.randperm(4, generator=torch.Generator().manual_seed(b))] for b in range(7)])
    update = KMeans(match=cheapest_matching)
    torch.testing.assert_close(update(centres, shuffled, seed=0), update(centres, slots, seed=1), rtol=1e-5, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_is_found_cannot_be_moved(seed: int) -> None:
    points = normal(60, 3, seed=seed).double()
    centres = by_seed(points, 4, seed=seed).numpy()
    labels = np.array([np.argmin([np.sum((point - centre) ** 2) for centre in centres]) for point in points.numpy()])
    means = [points.numpy()[labels == k].mean(axis=0) for k in range(4)]
    np.testing.assert_allclose(centres, means, rtol=0, atol=1e-12)
    theirs = cluster.KMeans(4, init=centres, n_init=1, tol=0).fit(points.numpy())
    np.testing.assert_allclose(theirs.cluster_centers_, centres, rtol=0, atol=1e-12)


def test_the_start_is_spread_out() -> None:
    """Lloyd's algorithm never leaves two centres of one blob; a uniform start has them in nine of ten."""
    points = blobs(4, 7)[0].flatten(0, 1).double()
    best = cluster.KMeans(4, n_init=20, random_state=0).fit(points.numpy()).inertia_
    for seed in range(20):
        assert cost(points, by_seed(points, 4, seed)) == pytest.approx(best, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=14), seed=st.integers(0, 99)
)
def test_no_cluster_stays_empty_while_there_are_points_for_it(points: list[tuple[int, int]], seed: int) -> None:
    tensor = torch.tensor(points, dtype=torch.float64)
    centres = by_seed(tensor, 6, seed)
    assert bool(centres.isfinite().all())
    served = torch.cdist(tensor, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1).unique()
    assert len(served) == min(6, len(set(points)))


def test_a_cluster_that_lost_all_takes_the_farthest_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a start that nothing is near to: the third centre."""
    from boqsa.slots import updates

    start = torch.tensor([[0.0], [10.0], [1e6]], dtype=torch.float64)
    monkeypatch.setattr(updates, "_spread_out", lambda points, count, generator: start)
    points = torch.tensor([[0.0], [0.0], [1.0], [10.0], [10.0], [13.0]], dtype=torch.float64)
    assert by_seed(points, 3, seed=0).flatten().tolist() == pytest.approx([1 / 3, 10, 13])


def test_slots_that_are_all_alike() -> None:
    update = KMeans(match=cheapest_matching)
    assert torch.equal(update(normal(3, 4), torch.ones(5, 3, 4), seed=0), torch.ones(3, 4))


def test_the_seed_decides_and_no_other_stream() -> None:
    slots, queries = normal(40, 6, 5), normal(6, 5, seed=1)
    update = KMeans(match=cheapest_matching)
    torch.manual_seed(1)
    one = update(queries, slots, seed=0)
    after = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(after, torch.random.get_rng_state()), "torch's own stream was drawn from"
    torch.manual_seed(2)
    assert torch.equal(update(queries, slots, seed=0), one)
    assert any(not torch.equal(update(queries, slots, seed=seed), one) for seed in range(1, 6))


def test_rounds_are_bounded() -> None:
    points = normal(300, 4).double()
    short, long = (
        cluster_centres(points, 8, generator=torch.Generator().manual_seed(0), most_rounds=rounds)
        for rounds in (1, 100)
    )
    assert cost(points, long) < 0.99 * cost(points, short)


@pytest.mark.parametrize("update", [RunningMean(0.5), KMeans(0.5, match=cheapest_matching)])
def test_new_queries_have_no_graph_and_the_dtype_of_the_old(update: RunningMean | KMeans) -> None:
    queries, slots = normal(3, 4).requires_grad_(), normal(5, 3, 4, seed=1).requires_grad_()
    before = queries.detach().clone()
    found = update(queries, slots.bfloat16(), seed=0)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert torch.equal(queries, before), "the old ones are left alone"
    torch.testing.assert_close(found, update(queries, slots, seed=0), rtol=0, atol=0.05)  # slots of 8 bits


@pytest.mark.parametrize("momentum", [0.0, -0.1, 1.1, float("nan")])
def test_momentum_out_of_range(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum is .*; it must be above 0 and at most 1"):
        RunningMean(momentum)
    with pytest.raises(ValueError, match=r"momentum is .*; it must be above 0 and at most 1"):
        KMeans(momentum, match=cheapest_matching)
    with pytest.raises(ValueError, match="most_rounds is 0"):
        KMeans(match=cheapest_matching, most_rounds=0)


def test_the_consistency_loss_by_hand() -> None:
    final = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]], requires_grad=True)  # (1, 2, 2)
    initial = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]], requires_grad=True)
    loss = consistency_loss(final, initial)
    assert float(loss.detach()) == ((1 + 4) + 9) / 2
    loss.backward()
    assert final.grad is None
    assert initial.grad.tolist() == [[[-1.0, -2.0], [3.0, 0.0]]]  # 2 (initial - final) / (B K)


@pytest.mark.parametrize("gradient", ["bilevel", "implicit", "unrolled"])
def test_it_pulls_queries_to_their_final_slots_and_moves_nothing_else(gradient: str) -> None:
    queries, inner = LearnedQueries(3, 4), torch.nn.Linear(4, 4)
    initial = queries(5)
    final, _ = refine(lambda slots: (inner(slots), slots), initial, iterations=3, gradient=gradient)
    consistency_loss(final, initial).backward()
    expected = 2 * (queries.weight - final.detach().mean(dim=0)) / 3  # summed over the batch, divided by B K
    torch.testing.assert_close(queries.weight.grad, expected.detach())
    assert inner.weight.grad is None
