"""Slot attention in which the first slot is the background's (uorf 3, 12): its own start, query map, GRU and MLP.

All slots compete for the same tokens in one softmax. The refinement is the package's: `boqsa.slots.refine` runs the
step, so the four combinations of sampled or learned starts and unrolled or bi-level gradients are arguments, not
models.

Notable choice: the early steps, the residual MLP and epsilon are those of the published 3D code, which has neither
drop-path nor the 2D code's epsilon of 1 (uorf 12.4).

Shapes: B batch, N tokens, D slot size, K slots of which slot 0 is the background, M hidden size of the MLPs.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boqsa.slots import Gradient, LearnedQueries, SharedGaussian, refine
from boqsa.slots.attention import KeysValues
from boqsa.slots.queries import Perturbation

Starts = Literal["learned", "shared_gaussian"]

_EPSILON = 1e-8
_INITIAL_STD = 0.02


class BackgroundSlotEncoder(nn.Module):
    """From tokens to K slots, the background's first.

    Args:
        num_slots: K, at least 2.
        slot_size: D.
        iterations: Slot-attention steps, all counted.
        queries: "learned": one vector a slot, the first of them the background's. "shared_gaussian": samples of one
            Gaussian for all objects, and of another for the background.
        gradient: How the backward pass sees the refinement.
        perturbation: How noise enters learned queries.

    Raises:
        ValueError: if there is no slot beside the background's.
    """

    def __init__(
        self,
        num_slots: int,
        slot_size: int,
        *,
        iterations: int = 3,
        queries: Starts = "learned",
        gradient: Gradient = "bilevel",
        perturbation: Perturbation = "multiplicative",
    ) -> None:
        super().__init__()
        if num_slots < 2:
            raise ValueError(f"num_slots is {num_slots}; one slot is the background's, so give 2 or more.")
        self.iterations = iterations
        self.gradient: Gradient = gradient
        self.num_slots, self.slot_size = num_slots, slot_size
        self.norm_tokens = nn.LayerNorm(slot_size)
        self.to_keys = _linear(slot_size, slot_size)
        self.to_values = _linear(slot_size, slot_size)
        self.queries: nn.Module
        if queries == "learned":
            self.queries = LearnedQueries(num_slots, slot_size, perturbation=perturbation)
        else:
            self.queries = _BackgroundAndObjects(num_slots, slot_size)
        self.background = _Update(slot_size)
        self.objects = _Update(slot_size)

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of the random numbers of one pass; there is no drop-path."""
        return {"queries": (self.num_slots, self.slot_size), "drop_path": (0,)}

    def initial_slots(
        self, batch_size: int, *, sigma: float = 0.0, noise: Float[Tensor, "B K D"] | None = None
    ) -> Float[Tensor, "B K D"]:
        """Where slots start; arguments as for `LearnedQueries`."""
        initial: Tensor = self.queries(batch_size, sigma=sigma, noise=noise)
        return initial

    def prepare(self, tokens: Float[Tensor, "B N D"]) -> KeysValues:
        """Keys and values, shared by background and objects, computed once."""
        normed = self.norm_tokens(tokens)
        return KeysValues(self.to_keys(normed), self.to_values(normed))

    def step(
        self, prepared: KeysValues, slots: Float[Tensor, "B K D"]
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """Let background and objects compete for the tokens once.

        Returns:
            The new slots, and the attention: softmax over slots plus 1e-8 on every entry.
        """
        queries = torch.cat([self.background.query(slots[:, :1]), self.objects.query(slots[:, 1:])], dim=1)
        logits = queries @ prepared.keys.mT / math.sqrt(self.slot_size)  # (B, K, N)
        attention = logits.softmax(dim=1) + _EPSILON
        updates = attention / attention.sum(dim=-1, keepdim=True) @ prepared.values  # (B, K, D)
        moved = [
            self.background(updates[:, :1], slots[:, :1]),
            self.objects(updates[:, 1:], slots[:, 1:]),
        ]
        return torch.cat(moved, dim=1), attention

    def forward(
        self, prepared: KeysValues, initial: Float[Tensor, "B K D"], *, iterations: int | None = None
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """The final slots, and the attention of the last step."""
        count = self.iterations if iterations is None else iterations
        return refine(lambda slots: self.step(prepared, slots), initial, iterations=count, gradient=self.gradient)


class _BackgroundAndObjects(nn.Module):
    """Initial slots that are samples, of one Gaussian for the background and of another for all objects (uorf 3.3)."""

    def __init__(self, num_slots: int, slot_size: int) -> None:
        super().__init__()
        self.background = SharedGaussian(1, slot_size)
        self.objects = SharedGaussian(num_slots - 1, slot_size)
        for gaussian in (self.background, self.objects):
            nn.init.normal_(gaussian.mu)

    def forward(
        self, batch_size: int, *, sigma: float = 0.0, noise: Float[Tensor, "B K D"] | None = None
    ) -> Float[Tensor, "B K D"]:
        """`noise` is the sample; `sigma` plays no part."""
        first, others = (None, None) if noise is None else (noise[:, :1], noise[:, 1:])
        return torch.cat([self.background(batch_size, noise=first), self.objects(batch_size, noise=others)], dim=1)


class _Update(nn.Module):
    """What a kind of slot has of its own: the map to its query, the GRU and the residual MLP."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.to_query = nn.Sequential(nn.LayerNorm(size), _linear(size, size))
        self.gru = nn.GRUCell(size, size)
        hidden = max(size, 128)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size), _linear(size, hidden, bias=True), nn.ReLU(), _linear(hidden, size, bias=True)
        )

    def query(self, slots: Float[Tensor, "B k D"]) -> Float[Tensor, "B k D"]:
        query: Tensor = self.to_query(slots)
        return query

    def forward(self, update: Float[Tensor, "B k D"], slots: Float[Tensor, "B k D"]) -> Float[Tensor, "B k D"]:
        hidden = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        moved: Tensor = hidden + self.mlp(hidden)
        return moved


def _linear(size: int, width: int, *, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(size, width, bias=bias)
    nn.init.normal_(layer.weight, std=_INITIAL_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
