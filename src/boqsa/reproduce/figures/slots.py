"""Figure 6: what each slot paints, down the images: does a slot index keep its meaning?

For models with a mixture decoder: a transformer's slots paint nothing alone.
"""

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from boqsa.models import Output
from boqsa.reports.grid import Column, draw_columns, enlarge, on_checks, pixels_of, whole_factor
from boqsa.reports.palette import slot_colours


def slots_figure(image: UInt8[Tensor, "B 3 H W"], output: Output) -> UInt8[np.ndarray, "H W 3"]:
    """Draw each image, its reconstruction, and each slot's picture as far as its mask goes, in query order.

    Args:
        image: What the model saw.
        output: Of a mixture model, for these images.

    Raises:
        ValueError: if the model has no pictures of single slots, or `output` is of other images.
    """
    if output.slot_reconstructions is None or output.reconstruction is None:
        raise ValueError("the model paints no picture a slot; pass the output of a mixture model.")
    if len(image) != len(output.masks) or not len(image):
        raise ValueError(f"got {len(image)} images and an output of {len(output.masks)}; pass those it was made of.")
    scale = whole_factor(image.shape[-2:])
    shares = output.masks[:, :, 0].detach().float().cpu().numpy()  # (B, K, H, W)
    columns = [
        Column("image", enlarge(pixels_of(image), scale)),
        Column("reconstruction", enlarge(pixels_of(output.reconstruction), scale)),
    ]
    for slot, colour in enumerate(slot_colours(shares.shape[1])):
        painted = enlarge(pixels_of(output.slot_reconstructions[:, slot]), scale)
        tiles = on_checks(painted, enlarge(shares[:, slot], scale))
        columns.append(Column(f"slot {slot + 1}", tiles, tuple(colour.tolist())))
    return np.asarray(draw_columns(columns))
