"""What goes into a radiance model, and what comes out: posed photographs, a training step's pixels, rendered views.

Shapes: B scenes, N views of which the first is the input, K slots of which slot 0 is the background, R rays, D slot
size.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from boqsa.models.output import Output


class Views(NamedTuple):
    """Posed photographs of some scenes; the first view of each is the input."""

    image: UInt8[Tensor, "B N 3 H W"]
    camera: Float[Tensor, "B N 4 4"]
    """Camera to world."""
    azimuth: Float[Tensor, "B N 3 3"]
    """Rotation about the vertical that turns with each camera."""


class Found(NamedTuple):
    """What the input view gives."""

    slots: Float[Tensor, "B K D"]
    initial_slots: Float[Tensor, "B K D"]
    attention: Float[Tensor, "B K T"]
    """Of the last step over the T tokens, plus 1e-8; for looking at, not for scores."""


class Occupancy(NamedTuple):
    """What each object has of the box that objects are kept in, 0 to 1."""

    dense: Float[Tensor, "B K-1"]
    """Share of the box where its density is above zero. At 0 no gradient reaches its field."""
    owned: Float[Tensor, "B K-1"]
    """Its share of all that is dense there, against the other objects and the background."""


class SceneOutput(NamedTuple):
    """What a training step looks at."""

    colour: Float[Tensor, "B R 3"]
    """Rendered, in [0, 1]."""
    target: Float[Tensor, "B R 3"]
    """Photographed, in [0, 1]."""
    slots: Float[Tensor, "B K D"]
    initial_slots: Float[Tensor, "B K D"]
    attention: Float[Tensor, "B K T"]
    losses: dict[str, Tensor]
    """Scalars by name."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Sum of the losses."""
        return sum(self.losses.values(), start=self.colour.new_zeros(()))


class Seen(NamedTuple):
    """Rendered views, whole."""

    image: Float[Tensor, "B N 3 H W"]
    """In [0, 1]; what nothing covers is black."""
    depth: Float[Tensor, "B N H W"]
    """Normalised: 0 at `near`, 1 at `far`."""
    slot_masks: Float[Tensor, "B N K H W"]
    """How dense each slot is where it would be seen alone; the largest one owns the pixel. They do not sum to 1."""
    slot_images: Float[Tensor, "B N K 3 H W"]
    """Each slot alone."""

    def segmentation(self) -> Int[Tensor, "B N H W"]:
        """Index of the slot that owns each pixel; ties, as where nothing is, go to the lower index."""
        return self.slot_masks.argmax(dim=2)

    def shares(self) -> Float[Tensor, "B N K 1 H W"]:
        """The masks as the other models have them: they sum to 1 over slots; where nothing is, all are equal."""
        masks = self.slot_masks[:, :, :, None]
        total = masks.sum(dim=2, keepdim=True)
        return torch.where(total > 0, masks / total.clamp(min=1e-12), 1 / masks.shape[2])

    def of_view(self, view: int, found: Found) -> Output:
        """One view as the other models give theirs."""
        return Output(
            reconstruction=self.image[:, view],
            slot_reconstructions=self.slot_images[:, view],
            masks=self.shares()[:, view],
            slots=found.slots,
            initial_slots=found.initial_slots,
            attention=found.attention,
            losses={},
        )


def photographs(
    image: Float[Tensor, "B N 3 H W"] | UInt8[Tensor, "B N 3 H W"], size: int
) -> Float[Tensor, "B N 3 h w"]:
    """Views in [0, 1] at another size, bilinearly (uorf 2.1, 8.4)."""
    unit = image.float() / 255 if image.dtype == torch.uint8 else image
    if image.shape[-1] == size:
        return unit
    resized = nn.functional.interpolate(unit.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
    return resized.view(*image.shape[:3], size, size)


def colours_at(image: Float[Tensor, "B N 3 H W"], pixels: Int[Tensor, "B R 3"]) -> Float[Tensor, "B R 3"]:
    """The colours of some pixels, by view, row and column."""
    view, row, column = pixels.unbind(-1)
    scene = torch.arange(len(image), device=image.device)[:, None]
    chosen: Tensor = image[scene, view, :, row, column]
    return chosen
