"""Where slots start: learned queries (the paper), or samples of one or of several learned Gaussians (spec 1.7).

All three are called alike: `queries(batch_size, sigma=..., noise=...)` gives (batch, slots, slot size).
Random numbers are passed in as `noise`, standard normal, of the shape of the result.

Learned queries belong to their slot: fewer slots means choosing which (`which`), more is not possible (spec 1.9,
paper appendix C). A shared Gaussian gives any number.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Perturbation = Literal["multiplicative", "additive"]


class LearnedQueries(nn.Module):
    """One learned vector a slot, the same for every image; perturbed by annealed noise in training.

    Args:
        num_slots: K.
        slot_size: D.
        perturbation: "multiplicative": q + sigma z sg(q) (published). "additive": q + sqrt(sigma) z, the paper's
            words (a zero-mean perturbation with variance sigma, section A.3.1).
    """

    def __init__(self, num_slots: int, slot_size: int, *, perturbation: Perturbation = "multiplicative") -> None:
        super().__init__()
        if perturbation not in get_args(Perturbation):
            raise ValueError(f"perturbation is {perturbation!r}; pass 'multiplicative' or 'additive'.")
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.perturbation = perturbation
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_slots, slot_size)))

    def forward(
        self,
        batch_size: int,
        *,
        sigma: float = 0.0,
        noise: Float[Tensor, "B K D"] | None = None,
        num_slots: int | None = None,
        which: Sequence[int] | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Initial slots for a batch.

        Args:
            batch_size: B.
            sigma: Strength of the perturbation, >= 0; it follows the schedule of spec 1.8 in training, else 0.
            noise: z, standard normal. None, or sigma = 0, means no perturbation.
            num_slots: Only the trained number is possible; there to give a clear error.
            which: Indices of the queries to use, for fewer slots.

        Raises:
            ValueError: if another number of slots is asked for without saying which.
        """
        weight = _choose(self.weight, num_slots, which, "learned queries")
        queries = weight.expand(batch_size, *weight.shape)  # (B, K, D)
        if noise is None or sigma == 0:
            return queries
        noise = noise.to(queries)
        if self.perturbation == "additive":
            return queries + math.sqrt(sigma) * noise
        return queries + sigma * noise * queries.detach()


class IndependentGaussians(nn.Module):
    """One learned Gaussian a slot: the authors' re-run of original Slot Attention (spec 1.7).

    `sigma` plays no part; without `noise` the samples come from torch's own random stream.
    """

    def __init__(self, num_slots: int, slot_size: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.mu = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, num_slots, slot_size)))
        self.log_sigma = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, num_slots, slot_size)))

    def forward(
        self,
        batch_size: int,
        *,
        sigma: float = 0.0,
        noise: Float[Tensor, "B K D"] | None = None,
        num_slots: int | None = None,
        which: Sequence[int] | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Sample initial slots for a batch; arguments as for `LearnedQueries`."""
        mu = _choose(self.mu[0], num_slots, which, "independent Gaussians")
        log_sigma = _choose(self.log_sigma[0], num_slots, which, "independent Gaussians")
        if noise is None:
            noise = torch.randn(batch_size, *mu.shape, dtype=mu.dtype, device=mu.device)
        return mu + log_sigma.exp() * noise.to(mu)


class SharedGaussian(nn.Module):
    """One learned Gaussian for all slots (Slot Attention, I-SA, BO-SA): any number of slots can be drawn.

    `sigma` plays no part; without `noise` the samples come from torch's own random stream.
    """

    def __init__(self, num_slots: int, slot_size: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.mu = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, slot_size)))
        self.log_sigma = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, slot_size)))

    def forward(
        self,
        batch_size: int,
        *,
        sigma: float = 0.0,
        noise: Float[Tensor, "B K D"] | None = None,
        num_slots: int | None = None,
        which: Sequence[int] | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Sample initial slots for a batch; `num_slots` may be any positive number.

        Raises:
            ValueError: if `which` is given: samples of one Gaussian have no identity to choose by.
        """
        if which is not None:
            raise ValueError("slots of a shared Gaussian have no identity; pass num_slots instead of which.")
        if noise is None:
            count = self.num_slots if num_slots is None else num_slots
            noise = torch.randn(batch_size, count, self.slot_size, dtype=self.mu.dtype, device=self.mu.device)
        return self.mu + self.log_sigma.exp() * noise.to(self.mu)


def _choose(
    weight: Float[Tensor, "K D"], num_slots: int | None, which: Sequence[int] | None, name: str
) -> Float[Tensor, "k D"]:
    available = weight.shape[0]
    if which is not None:
        if not which or min(which) < 0 or max(which) >= available:
            raise ValueError(
                f"which is {list(which)}; choose among the {available} trained slots, 0 to {available - 1}."
            )
        return weight[list(which)]
    if num_slots not in (None, available):
        raise ValueError(
            f"num_slots is {num_slots}, but {name} were trained for {available} slots, one each; "
            f"pass which=(0, 1, ...) to use fewer. More is not possible."
        )
    return weight
