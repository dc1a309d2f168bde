"""From slots to a picture again: what a scene looks like with an object taken away, or with one from another picture.

A slot holds all that the decoder knows of its object, so editing slots edits the picture. Slots compete for the pixels
anew each time: what stood behind an object that is taken away is painted by whoever claims it now.

Shapes: B batch, K slots, D slot size, H W pixels of the model.
"""

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from boqsa.errors import InputError
from boqsa.models import MixtureModel, TransformerModel
from boqsa.models.published import Model
from boqsa.reports.grid import pixels_of


def paints_slots(model: Model) -> bool:
    """Whether a model can paint a picture from slots alone. A radiance model can too, and `boqsa render` shows it."""
    return isinstance(model, MixtureModel | TransformerModel)


def decode_slots(
    model: Model, slots: Float[Tensor, "B K D"], *, temperature: float = 0.5, seed: int = 0
) -> UInt8[np.ndarray, "B H W 3"]:
    """The pictures that slots stand for, and nothing but the slots: a transformer model writes its tokens one by one.

    Args:
        model: A mixture or transformer model.
        slots: At least one, of this model; their number may be another one than in training.
        temperature: Of the tokens' draws, for transformer models. 0 takes the most probable token each time, which on
            photographs often paints one colour everywhere.
        seed: Of these draws; the same slots give the same picture.

    Raises:
        InputError: if the model paints no pictures from slots, or there is no slot.
    """
    if slots.shape[1] == 0:
        raise InputError("no slot is left to paint with; keep at least one.")
    weight = next(model.parameters())
    slots = slots.to(weight.device, weight.dtype)
    if isinstance(model, MixtureModel):
        with torch.inference_mode():
            painted, masks = model.decode(slots)
            image = ((painted * masks).sum(dim=1) + 1) / 2  # (B, 3, H, W)
    elif isinstance(model, TransformerModel):
        image = model.generate(
            slots, temperature=temperature, generator=torch.Generator(slots.device).manual_seed(seed)
        ).image
    else:
        raise InputError("this model does not paint a picture from slots; take a mixture or a transformer model.")
    return pixels_of(image)


def without_slots(slots: Float[Tensor, "K D"], removed: Collection[int]) -> Float[Tensor, "_ D"]:
    """The slots that stay.

    Raises:
        InputError: if one does not exist.
    """
    for slot in removed:
        _require_slot(slots, slot)
    return slots[[slot for slot in range(len(slots)) if slot not in removed]]


def with_slot_of(
    slots: Float[Tensor, "K D"], slot: int, other: Float[Tensor, "L D"], other_slot: int
) -> Float[Tensor, "K D"]:
    """The slots with one exchanged for one of another picture.

    Raises:
        InputError: if one of the two does not exist.
    """
    _require_slot(slots, slot)
    _require_slot(other, other_slot)
    changed = slots.clone()
    changed[slot] = other[other_slot]
    return changed


def _require_slot(slots: Float[Tensor, "K D"], slot: int) -> None:
    if not 0 <= slot < len(slots):
        raise InputError(f"slot {slot} does not exist; slots are 0 to {len(slots) - 1}.")
