"""What models take as an image, checked and scaled to the range that they were published with."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def scaled_image(
    image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"], *, size: int, low: float, dtype: torch.dtype
) -> Float[Tensor, "B 3 H W"]:
    """The image in [low, 1].

    Args:
        image: uint8, or float in [0, 1].
        size: Height and width that the model was made for.
        low: 0, or -1.
        dtype: Of the model's parameters.

    Raises:
        ValueError: if the image has another size.
        TypeError: if it is neither uint8 nor floating point.
    """
    if tuple(image.shape[1:]) != (3, size, size):
        raise ValueError(f"image has shape {tuple(image.shape)}; expected (batch, 3, {size}, {size}).")
    span = 1 - low
    if image.dtype == torch.uint8:
        return image.to(dtype) / (255 / span) + low
    if not image.is_floating_point():
        raise TypeError(f"image has dtype {image.dtype}; pass uint8, or float in [0, 1].")
    return image.to(dtype) * span + low
