"""Two fields of space that slots condition: one for all objects, another for the background (uorf 5).

A field maps a point and a slot to a density and a colour, both raw. It does not know from where it is looked at.

Notable choice: a layer that sees [encoding of the point, slot, ...] is kept as one linear map for each of these. The
slot's part is then computed once a slot, not once a point, and the point's part once for all slots that share the
point: exactly the same sums, a fifth less work. Weights are drawn as for the whole layer.

Shapes: B scenes, P points, K slots, D slot size, E numbers of an encoded point.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

FREQUENCIES = 5
ENCODED = 3 * (1 + 2 * FREQUENCIES)
"""E: a point, and sine and cosine of its multiples."""


def encode(points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points E"]:
    """[p, sin p, cos p, sin 2p, cos 2p, ..., sin 16p, cos 16p] (uorf 5.1)."""
    parts = [points]
    for octave in range(FREQUENCIES):
        parts += [(2**octave * points).sin(), (2**octave * points).cos()]
    return torch.cat(parts, dim=-1)


class Field(nn.Module):
    """`raw = Field(40, colour_head=True)(encoded, slots)`: density first, then RGB, for every point and slot.

    Args:
        size: D, the slot size and the width of all layers.
        colour_head: Objects: density and colour have heads of their own. Background: one linear map gives all four.
    """

    def __init__(self, size: int, *, colour_head: bool) -> None:
        super().__init__()
        self.first = _Conditioned(size)
        self.before = _layers(size, 2)
        self.again = _Conditioned(size, hidden=True)
        self.after = _layers(size, 2)
        self.density: nn.Module | None = None
        if colour_head:
            self.density = _linear(size, 1)
            self.colour = nn.Sequential(_linear(size, size), _linear(size, size // 4), nn.ReLU(), _linear(size // 4, 3))
        else:
            self.colour = nn.Sequential(_linear(size, 4))

    def forward(self, encoded: Float[Tensor, "B P E"], slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B K P 4"]:
        """Raw density and raw colour of each slot at each point."""
        hidden = self.before(self.first(encoded, slots).relu())  # (B, K, P, D)
        hidden = self.after(self.again(encoded, slots, hidden).relu())
        if self.density is None:
            raw: Tensor = self.colour(hidden)
            return raw
        return torch.cat([self.density(hidden), self.colour(hidden)], dim=-1)


class _Conditioned(nn.Module):
    """A linear layer on [encoded point, slot], or on [encoded point, slot, hidden], in parts."""

    def __init__(self, size: int, *, hidden: bool = False) -> None:
        super().__init__()
        inputs = ENCODED + size + (size if hidden else 0)
        std = math.sqrt(2 / (inputs + size))  # Xavier-normal of the whole layer
        self.from_point = _linear(ENCODED, size, std=std)
        self.from_slot = _linear(size, size, bias=False, std=std)
        self.from_hidden = _linear(size, size, bias=False, std=std) if hidden else None

    def forward(
        self,
        encoded: Float[Tensor, "B P E"],
        slots: Float[Tensor, "B K D"],
        hidden: Float[Tensor, "B K P D"] | None = None,
    ) -> Float[Tensor, "B K P D"]:
        given: Tensor = self.from_point(encoded)[:, None] + self.from_slot(slots)[:, :, None]
        if self.from_hidden is None:
            return given
        conditioned: Tensor = given + self.from_hidden(hidden)
        return conditioned


def _layers(size: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(layer for _ in range(count) for layer in (_linear(size, size), nn.ReLU())))


def _linear(size: int, width: int, *, bias: bool = True, std: float | None = None) -> nn.Linear:
    """Xavier-normal weights unless told otherwise, and no bias to begin with (uorf 5.5)."""
    layer = nn.Linear(size, width, bias=bias)
    if std is None:
        nn.init.xavier_normal_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
