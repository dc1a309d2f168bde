"""From raw densities and colours of all slots to pixels: composition and volume rendering (uorf 6).

Shapes: B scenes, K slots of which slot 0 is the background, R rays, S samples a ray.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-5


class Composition(NamedTuple):
    """What there is at each sample of each ray."""

    density: Float[Tensor, "B R S"]
    """The mean of the slots' densities, weighted by themselves: as published, and not their sum."""
    colour: Float[Tensor, "B R S 3"]
    """In [0, 1]."""
    slot_density: Float[Tensor, "B K R S"]
    """Each slot's share of `density`: the shares sum to it."""
    slot_colour: Float[Tensor, "B K R S 3"]
    """Each slot's share of `colour`."""


def compose(raw: Float[Tensor, "B K R S 4"], *, noise: Float[Tensor, "B K R S"] | None = None) -> Composition:
    """Let the slots share space: who is denser at a point owns more of it.

    Args:
        raw: Density and RGB, as the fields give them.
        noise: Added to densities after the shares were taken; None adds none (uorf 6.3, 6.4).
    """
    density = raw[..., 0].relu()
    share = density / (density.sum(dim=1, keepdim=True) + _EPSILON)
    slot_density = share * (density if noise is None else density + noise)
    slot_colour = share[..., None] * ((raw[..., 1:].tanh() + 1) / 2)
    return Composition(slot_density.sum(dim=1), slot_colour.sum(dim=1), slot_density, slot_colour)


def ray_weights(
    density: Float[Tensor, "*any R S"], intervals: Float[Tensor, "S"], lengths: Float[Tensor, "*#any R"]
) -> Float[Tensor, "*any R S"]:
    """How much of each sample reaches the eye, 0 to 1; a ray's weights sum to its opacity (uorf 6.5).

    Args:
        density: Of the samples, at least 0, a unit of normalised depth.
        intervals: Of the samples, in normalised depth.
        lengths: Of the rays' directions.
    """
    opaque = 1 - (-density * (intervals * lengths[..., None])).exp()
    seen = (1 - opaque + 1e-10).cumprod(dim=-1)
    return opaque * torch.cat([torch.ones_like(seen[..., :1]), seen[..., :-1]], dim=-1)


class Pixels(NamedTuple):
    """What the rays of some pixels show."""

    colour: Float[Tensor, "B R 3"]
    """In [0, 1]; what nothing covers is black."""
    depth: Float[Tensor, "B R"]
    """Normalised: 0 at `near`, 1 at `far`."""
    slot_masks: Float[Tensor, "B K R"]
    """How dense each slot is where it would be seen alone: the largest one owns the pixel (uorf 6.6). They do not
    sum to 1."""
    slot_colours: Float[Tensor, "B K R 3"]
    """Each slot alone, with its share of densities and colours, in [0, 1]."""


def joined(parts: Sequence[Pixels]) -> Pixels:
    """The pixels of several lots of rays, one after the other."""
    return Pixels(
        colour=torch.cat([part.colour for part in parts], dim=1),
        depth=torch.cat([part.depth for part in parts], dim=1),
        slot_masks=torch.cat([part.slot_masks for part in parts], dim=2),
        slot_colours=torch.cat([part.slot_colours for part in parts], dim=2),
    )


def see(found: Composition, intervals: Float[Tensor, "S"], lengths: Float[Tensor, "B R"]) -> Float[Tensor, "B R 3"]:
    """The colour of each ray alone: all that training needs."""
    weights = ray_weights(found.density, intervals, lengths)
    return (weights[..., None] * found.colour).sum(dim=-2)


def see_all(found: Composition, intervals: Float[Tensor, "S"], lengths: Float[Tensor, "B R"]) -> Pixels:
    """Colour, depth, and every slot alone."""
    weights = ray_weights(found.density, intervals, lengths)  # (B, R, S)
    lifted = weights + _EPSILON
    at = torch.linspace(0, 1, len(intervals), dtype=weights.dtype, device=weights.device)
    alone = ray_weights(found.slot_density, intervals, lengths[:, None])  # (B, K, R, S)
    return Pixels(
        colour=(weights[..., None] * found.colour).sum(dim=-2),
        depth=(lifted * at).sum(dim=-1) / lifted.sum(dim=-1),
        slot_masks=(alone * found.slot_density).sum(dim=-1),
        slot_colours=(alone[..., None] * found.slot_colour).sum(dim=-2),
    )
