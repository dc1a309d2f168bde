"""Figure 4: where each slot looks, on images of the data set a model was trained on and of another one.

Each slot's column shows the image as far as the slot attends to it, over pale checks. A slot that takes the same
concept everywhere shows it down its whole column, on both sides.

Shapes: B images, K slots, N tokens of the square feature grid, H W pixels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from boqsa.reports.grid import Column, draw_columns, enlarge, on_checks, pixels_of, whole_factor
from boqsa.reports.palette import slot_colours
from boqsa.training.evaluation import attention_masks

_HEADING = 26
_INK = (40, 40, 40)


class AttentionSet(NamedTuple):
    """Some images of a data set, and the attention of a model on them."""

    title: str
    """Stands above: the data set."""
    image: UInt8[Tensor, "B 3 H W"]
    attention: Float[Tensor, "B K N"]
    """`Output.attention`, of the last iteration that was run."""


def attention_figure(source: AttentionSet, target: AttentionSet | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the attention of each slot: a row an image; the image, then the slots in the order of their index.

    Args:
        source: The data set trained on.
        target: Another one; it stands to the right.

    Raises:
        ValueError: if images and attention do not belong together.
    """
    sides = [_side(attended) for attended in (source, target) if attended is not None]
    picture = Image.new("RGB", (sum(side.width for side in sides), max(side.height for side in sides)), "white")
    left = 0
    for side in sides:
        picture.paste(side, (left, 0))
        left += side.width
    return np.asarray(picture)


def _side(attended: AttentionSet) -> Image.Image:
    title, image, attention = attended
    if image.ndim != 4 or attention.ndim != 3 or len(image) != len(attention) or not len(image):
        raise ValueError(
            f"need images (B, 3, H, W) and attention (B, K, N), got {tuple(image.shape)} and {tuple(attention.shape)}."
        )
    scale = whole_factor(image.shape[-2:])
    pixels = enlarge(pixels_of(image), scale)
    shares = attention_masks(attention.detach().float().cpu(), tuple(image.shape[-2:]))[:, :, 0].numpy()
    columns = [Column("image", pixels)]
    for slot, colour in enumerate(slot_colours(attention.shape[1])):
        tiles = on_checks(pixels, enlarge(shares[:, slot], scale))
        columns.append(Column(f"slot {slot + 1}", tiles, tuple(colour.tolist())))
    body = draw_columns(columns)
    side = Image.new("RGB", (body.width, body.height + _HEADING), "white")
    side.paste(body, (0, _HEADING))
    middle = (body.width / 2, _HEADING / 2 + 4)
    ImageDraw.Draw(side).text(middle, title, fill=_INK, font=ImageFont.load_default(16), anchor="mm")
    return side
