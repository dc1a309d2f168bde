"""Which slots a picture needs: empty ones are left out, and of several that explain one object one stays. No labels.

A model has a fixed number of slots, however many objects are in a picture (paper, appendix C). A slot is *needed* if
the others cannot paint its part: if without it, with its pixels shared out among the rest by their own masks, the
squared error rises. The slot that is missed least goes first, and the question is asked again, until every slot that is
left is missed. An empty slot is not missed; of two slots on one object either is not, as the other takes over.

It takes a decoder that paints every slot everywhere, so mixture models have it and transformer models have not.

Shapes: B batch, K slots, H W image pixels.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boqsa.models.output import Output

LEAST_RISE = 7.5e-4
"""Of the mean squared error of a picture in [0, 1]: an object on a hundredth of the picture, off by a quarter of the
range. Chosen by the labels of other scenes of one to six objects (docs/adaptive.md)."""
BORDER_SHARE = 0.25
"""A slot with so much of the border is background and no object."""
LEAST_AREA = 1 / 128
"""Share of the picture below which a slot is no object, eight pixels of 32x32."""


class NeededSlots(NamedTuple):
    """What is left of the slots of some pictures."""

    is_needed: Bool[Tensor, "B K"]
    masks: Float[Tensor, "B K 1 H W"]
    """Shares of the needed slots, which sum to 1; the others have 0."""

    def segmentation(self) -> Int[Tensor, "B H W"]:
        """Index of the needed slot that owns each pixel."""
        return self.masks.squeeze(2).argmax(dim=1)

    def objects(self) -> Int[Tensor, "B"]:
        """How many objects there are: needed slots with more than a few pixels that do not hold the border."""
        labels = self.segmentation()
        owned = torch.nn.functional.one_hot(labels, self.masks.shape[1])  # (B, H, W, K)
        share = owned.double().mean(dim=(1, 2))  # (B, K)
        is_object = (share >= LEAST_AREA) & (_border(owned).double().mean(dim=1) < BORDER_SHARE)
        return (is_object & self.is_needed).sum(dim=1)


def needed_slots(output: Output, image: Float[Tensor, "B 3 H W"], *, least_rise: float = LEAST_RISE) -> NeededSlots:
    """Leave out, one by one, the slots of each picture that the others can do without.

    Args:
        output: Of a mixture model.
        image: What it was given, in [0, 1].
        least_rise: Rise of the mean squared error from which a slot is needed; 0 keeps all that help at all.

    Raises:
        ValueError: if the slots of the model do not paint pictures of their own, or `least_rise` is negative.
    """
    if output.slot_reconstructions is None:
        raise ValueError("adaptive slots need a decoder that paints each slot; a transformer model has none.")
    if not least_rise >= 0:
        raise ValueError(f"least_rise is {least_rise}; give 0 or more.")
    painted, masks = output.slot_reconstructions.float(), output.masks.float()
    batch, slots = masks.shape[:2]
    is_needed = torch.ones(batch, slots, dtype=torch.bool, device=masks.device)
    for _ in range(slots - 1):
        error = _error(painted, _shared(masks, is_needed), image)  # (B,)
        rises = torch.full((batch, slots), torch.inf, device=masks.device)
        for slot in range(slots):
            without = is_needed.clone()
            without[:, slot] = False
            rises[:, slot] = _error(painted, _shared(masks, without), image) - error
        rises = rises.masked_fill(~is_needed | (is_needed.sum(dim=1, keepdim=True) == 1), torch.inf)
        rise, least = rises.min(dim=1)
        goes = rise < least_rise
        if not goes.any():
            break
        is_needed[goes, least[goes]] = False
    return NeededSlots(is_needed, _shared(masks, is_needed))


def _shared(masks: Float[Tensor, "B K 1 H W"], kept: Bool[Tensor, "B K"]) -> Float[Tensor, "B K 1 H W"]:
    """The masks of the slots that are kept, scaled to sum to 1: what the softmax over these alone would give."""
    some = masks.clamp(min=1e-12) * kept[:, :, None, None, None]
    return some / some.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _error(
    painted: Float[Tensor, "B K 3 H W"], masks: Float[Tensor, "B K 1 H W"], image: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B"]:
    return ((painted * masks).sum(dim=1) - image).square().mean(dim=(1, 2, 3))


def _border(owned: Int[Tensor, "B H W K"]) -> Int[Tensor, "B P K"]:
    """The pixels of a frame as wide as a sixteenth of the shorter side."""
    height, width = owned.shape[1:3]
    inner = torch.zeros(height, width, dtype=torch.bool, device=owned.device)
    edge = max(1, min(height, width) // 16)
    inner[edge : height - edge, edge : width - edge] = True
    return owned[:, ~inner]
