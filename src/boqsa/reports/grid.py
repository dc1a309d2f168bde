"""The picture of what was found: one scene a row, from the image to what each slot holds.

Columns: image, truth (if known), found, overlay, reconstruction (if any), then each slot's picture times its
mask, then more pictures of the scene (if any). A true object is shown in the colour of the slot that overlaps it
most, one colour an object; so an object that was found has one colour in "truth" and "found", and a miss shows as a
change of colour.

Shapes: B scenes, K slots, H W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boqsa.reports.overlay import overlay, paint
from boqsa.reports.palette import slot_colours

_TILE = 96  # pixels that a small picture is enlarged to, about
_GAP = 4
_MARGIN = 8
_HEADER = 26
_FONT_SIZES = (14, 13, 12, 11, 10, 9, 8)
_INK = (40, 40, 40)

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Column(NamedTuple):
    """A column of a picture: a tile a scene."""

    title: str
    tiles: NDArray[np.uint8]
    """(B, H, W, 3), enlarged."""
    colour: tuple[int, ...] | None = None
    """RGB, drawn under the title: the slot's."""


def segmentation_grid(
    image: Shaped[Tensor, "B 3 H W"],
    masks: Float[Tensor, "B K 1 H W"],
    *,
    true: Int[Tensor, "B H W"] | None = None,
    rows: int = 8,
    slot_reconstructions: Float[Tensor, "B K 3 H W"] | None = None,
    reconstruction: Float[Tensor, "B 3 H W"] | None = None,
    more: Mapping[str, Float[Tensor, "B 3 H W"]] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Draw the first scenes of a batch with what the model made of them.

    Args:
        image: uint8, or float in [0, 1].
        masks: Share of each pixel that each slot owns; the largest owns it in "found".
        true: True labels; below 0 is ignored and comes out grey.
        rows: At most so many scenes.
        slot_reconstructions: What each slot would paint, in [0, 1] units, clamped here. Without them a slot's
            column shows the part of the image it owns.
        reconstruction: The whole picture from all slots, in [0, 1] units.
        more: Further pictures of the scenes by the title of their column, as a transformer model has several
            reconstructions.
        scale: Whole factor that pictures are enlarged by, pixel by pixel; None means to about 96 pixels.

    Returns:
        RGB picture on white, with the name of each column above it.

    Raises:
        ValueError: if the shapes do not belong together, or there is nothing to draw.
    """
    more = more or {}
    _check_shapes(image, masks, true, slot_reconstructions, {"reconstruction": reconstruction, **more})
    if rows < 1 or (scale is not None and scale < 1):
        raise ValueError(f"rows and scale must be at least 1, got {rows} and {scale}.")
    scale = scale or whole_factor(image.shape[-2:])
    pixels = enlarge(pixels_of(image[:rows]), scale)
    shares = enlarge(masks[:rows, :, 0].detach().float().cpu().numpy().transpose(0, 2, 3, 1), scale)  # (B, H, W, K)
    found = shares.argmax(axis=-1)
    columns = [Column("image", pixels)]
    if true is not None:
        labels = enlarge(true[:rows].cpu().numpy(), scale)
        matched = np.stack([match_to_slots(one, other) for one, other in zip(labels, found, strict=True)])
        columns.append(Column("truth", paint(matched)))
    columns.append(Column("found", paint(found)))
    columns.append(Column("overlay", np.stack([overlay(*pair) for pair in zip(pixels, found, strict=True)])))
    if reconstruction is not None:
        columns.append(Column("reconstruction", enlarge(pixels_of(reconstruction[:rows]), scale)))
    for slot, colour in enumerate(slot_colours(masks.shape[1])):
        own = pixels
        if slot_reconstructions is not None:
            own = enlarge(pixels_of(slot_reconstructions[:rows, slot]), scale)
        columns.append(Column(f"slot {slot + 1}", on_checks(own, shares[..., slot]), tuple(colour.tolist())))
    columns += [Column(title, enlarge(pixels_of(pictures[:rows]), scale)) for title, pictures in more.items()]
    return draw_columns(columns)


def match_to_slots(true: NDArray[np.integer], found: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rename the labels of `true` (H, W) to those of `found` (H, W), one to one, to agree on most pixels.

    Labels left without a partner get numbers that `found` does not use; those below 0 become -1.
    """
    names, true_index = np.unique(true, return_inverse=True)
    slots = int(found.max()) + 1
    shared = np.zeros((len(names), max(slots, len(names))))  # columns past `slots` are spare names
    np.add.at(shared, (true_index.ravel(), found.ravel()), 1)
    shared[names < 0] = 0
    _, partner = linear_sum_assignment(shared, maximize=True)
    lonely = (shared[np.arange(len(names)), partner] == 0) & (partner < slots)
    partner[lonely] = shared.shape[1] + np.arange(int(lonely.sum()))
    renamed: NDArray[np.int64] = np.where(names < 0, -1, partner)[true_index].reshape(true.shape)
    return renamed


def _check_shapes(
    image: Tensor,
    masks: Tensor,
    true: Tensor | None,
    slot_reconstructions: Tensor | None,
    reconstructions: Mapping[str, Tensor | None],
) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape or masks.ndim != 5:
        raise ValueError(
            f"need images (B, 3, H, W) and masks (B, K, 1, H, W), got {tuple(image.shape)} and {tuple(masks.shape)}."
        )
    batch, _, height, width = image.shape
    slots = masks.shape[1]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "masks": (masks, (batch, slots, 1, height, width)),
        "true": (true, (batch, height, width)),
        "slot_reconstructions": (slot_reconstructions, (batch, slots, 3, height, width)),
        **{name: (tensor, (batch, 3, height, width)) for name, tensor in reconstructions.items()},
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape} beside these images, got {tuple(tensor.shape)}.")


def pixels_of(image: Shaped[Tensor, "B 3 H W"]) -> NDArray[np.uint8]:
    """uint8 (B, H, W, 3); what is not a number comes out black."""
    if image.dtype != torch.uint8:
        image = (image.detach().float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = image.cpu().permute(0, 2, 3, 1).numpy()
    return pixels


def enlarge(pictures: NDArray[_Scalar], scale: int) -> NDArray[_Scalar]:
    """Repeat each pixel of (B, H, W, ...) `scale` times along H and W."""
    return pictures.repeat(scale, axis=1).repeat(scale, axis=2)


def on_checks(pictures: NDArray[np.uint8], share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay pictures (B, H, W, 3) over pale checks; `share` (B, H, W) in [0, 1] is how opaque they are."""
    rows, columns = np.indices(pictures.shape[1:3])
    ground = np.where((rows // 6 + columns // 6) % 2, 255, 236)[None, :, :, None]
    opaque = np.nan_to_num(share).clip(0, 1)[..., None]
    blended: NDArray[np.uint8] = (pictures * opaque + ground * (1 - opaque)).round().astype(np.uint8)
    return blended


def whole_factor(size: Sequence[int]) -> int:
    """What to enlarge pictures of this height and width by, pixel by pixel, to come to about 96 pixels."""
    return max(1, round(_TILE / max(size)))


def draw_columns(columns: list[Column]) -> Image.Image:
    """RGB picture on white: columns side by side, each under its title, a row for each scene."""
    count, height, width = columns[0].tiles.shape[:3]
    size = (
        2 * _MARGIN + len(columns) * (width + _GAP) - _GAP,
        2 * _MARGIN + _HEADER + count * (height + _GAP) - _GAP,
    )
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = _fitting_font([column.title for column in columns], width)
    for index, column in enumerate(columns):
        left = _MARGIN + index * (width + _GAP)
        draw.text((left + width / 2, _MARGIN + 8), column.title, fill=_INK, font=font, anchor="mm")
        if column.colour is not None:
            top = _MARGIN + _HEADER - 8
            draw.rectangle((left, top, left + width - 1, top + 3), fill=column.colour)
        for row, tile in enumerate(column.tiles):
            picture.paste(Image.fromarray(tile), (left, _MARGIN + _HEADER + row * (height + _GAP)))
    return picture


def _fitting_font(titles: list[str], width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font in which every title fits its column, or else the smallest."""
    for size in _FONT_SIZES:
        font = ImageFont.load_default(size)
        if max(font.getbbox(title)[2] for title in titles) <= width + _GAP // 2:
            break
    return font
