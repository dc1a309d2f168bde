"""Other ways to move learned queries than the gradient, and a loss that ties them to the final slots.

Paper section B.3, Table 17 (spec 6): two updates that take the place of the gradient after each training step, and the
constraint of a VQ-VAE. All three do worse than bi-level gradients there; they are here so that this can be seen.

Notable choices:
- `KMeans` matches its centres to the queries one to one, as the paper words it; the published code does not match, and
  a query then takes whichever centre comes out at its place.
- The matching comes from outside: this package needs torch alone.
- Clusters are computed in float64 on the CPU. What is decided there (a nearest centre, the end of the search) so
  depends neither on the device nor on the order in which a GPU adds.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

Match = Callable[[Float64[Tensor, "K K"]], Int64[Tensor, " K"]]
"""From the cost of each pair to the column of each row, one to one, so that the sum of costs is least."""


class QueryUpdate(Protocol):
    """What moves the queries after a training step."""

    def __call__(
        self, queries: Float[Tensor, "K D"], final_slots: Float[Tensor, "B K D"], *, seed: int
    ) -> Float[Tensor, "K D"]:
        """The new queries, without a graph, in dtype and place of the old ones."""


class RunningMean:
    """The mean of each final slot over the batch (spec 6.1).

    Args:
        momentum: Share of the new value in (0, 1]: 1 forgets the old one, 0.1 is the paper's "-M".

    Raises:
        ValueError: if `momentum` is out of its range.
    """

    def __init__(self, momentum: float = 1.0) -> None:
        self.momentum = _checked(momentum)

    @torch.no_grad()
    def __call__(
        self, queries: Float[Tensor, "K D"], final_slots: Float[Tensor, "B K D"], *, seed: int = 0
    ) -> Float[Tensor, "K D"]:
        """momentum * mean + (1 - momentum) * queries; `seed` plays no part."""
        return queries.lerp(final_slots.mean(dim=0).to(queries), self.momentum)


class KMeans:
    """The centres of K clusters of all final slots of the batch, each given to one query (spec 6.2).

    Centres start by k-means++ and move by Lloyd's algorithm until no slot changes its cluster. A cluster that lost all
    its slots takes the slot that is farthest from its centre. Centres are matched to the queries by squared distance.

    Args:
        momentum: Share of the new value in (0, 1]: 1 forgets the old one, 0.1 is the paper's "-M".
        match: `match(costs)` gives each query its centre; costs are (queries, centres), float64 and on the CPU.
            The Hungarian method in `boqsa.metrics.matching.cheapest_matching`.
        most_rounds: Rounds of Lloyd's algorithm after which it ends anyway.

    Raises:
        ValueError: if `momentum` or `most_rounds` is out of its range.
    """

    def __init__(self, momentum: float = 1.0, *, match: Match, most_rounds: int = 100) -> None:
        if most_rounds < 1:
            raise ValueError(f"most_rounds is {most_rounds}; it must be at least 1.")
        self.momentum, self.match, self.most_rounds = _checked(momentum), match, most_rounds

    @torch.no_grad()
    def __call__(
        self, queries: Float[Tensor, "K D"], final_slots: Float[Tensor, "B K D"], *, seed: int
    ) -> Float[Tensor, "K D"]:
        """momentum * centres + (1 - momentum) * queries. The same `seed` gives the same centres."""
        points = final_slots.detach().flatten(0, 1).cpu().double()  # (B K, D)
        generator = torch.Generator().manual_seed(seed)
        centres = cluster_centres(points, len(queries), generator=generator, most_rounds=self.most_rounds)
        centres = centres[self.match(_squared_distances(queries.detach().cpu().double(), centres))]
        return queries.lerp(centres.to(queries), self.momentum)


def cluster_centres(
    points: Float64[Tensor, "N D"], count: int, *, generator: torch.Generator, most_rounds: int = 100
) -> Float64[Tensor, "K D"]:
    """k-means: `count` centres, at most N, in no particular order; `generator` draws where they start."""
    centres = _spread_out(points, count, generator)
    labels = torch.full(points.shape[:1], -1)
    for _ in range(most_rounds):
        nearest = _squared_distances(points, centres).argmin(dim=1)  # (N,)
        if torch.equal(nearest, labels):
            break
        labels = nearest
        sizes = torch.bincount(labels, minlength=count)  # (K,)
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        centres = sums / sizes.clamp(min=1)[:, None]
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):
            # Where even that one lies on its centre, there are too few different points, and the cluster stays empty.
            farthest = (points - centres[labels]).square().sum(dim=1).topk(len(empty)).indices
            centres[empty] = points[farthest]
    return centres


def _spread_out(points: Float64[Tensor, "N D"], count: int, generator: torch.Generator) -> Float64[Tensor, "K D"]:
    """k-means++: each centre is a point, drawn by its squared distance to the nearest centre before it."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    for _ in range(count - 1):
        weights = _squared_distances(points, centres).amin(dim=1)  # (N,)
        if not weights.any():  # fewer different points than centres: any will do
            weights = torch.ones_like(weights)
        centres = torch.cat([centres, points[torch.multinomial(weights, 1, generator=generator)]])
    return centres


def _squared_distances(one: Float64[Tensor, "N D"], other: Float64[Tensor, "K D"]) -> Float64[Tensor, "N K"]:
    # By differences: the faster form through a matrix product finds distances between equal points.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square()


def consistency_loss(final_slots: Float[Tensor, "B K D"], initial_slots: Float[Tensor, "B K D"]) -> Float[Tensor, ""]:
    """||sg(final) - initial||^2, the constraint of a VQ-VAE on the queries (spec 6.4).

    Squares are summed over D, and these squared lengths averaged over slots and batch. The gradient reaches the initial
    slots alone, directly: whatever the scheme of `refine`, it pulls each query towards the mean of its final slots.
    """
    return (final_slots.detach() - initial_slots).square().sum(dim=-1).mean()


def _checked(momentum: float) -> float:
    if not 0 < momentum <= 1:
        raise ValueError(f"momentum is {momentum}; it must be above 0 and at most 1.")
    return momentum
