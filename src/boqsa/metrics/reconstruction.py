"""Reconstruction error in the three conventions that papers report under one name. Spec 4.2.

    mse             mean over channels and pixels, images in [0, 1]
    mse_per_image   sum over channels and pixels, images in [0, 1] (also CLEVRTEX's own benchmark)
    mse_published   mean over channels and pixels of images in [-1, 1], times height x width (what the
                    authors' test printed); for 3 channels it is 4/3 of `mse_per_image`

Always state the convention with the number. Lower is better in all three.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from boqsa.metrics.accumulate import MeanOverImages


def mse(reconstruction: Shaped[Tensor, "B C H W"], image: Shaped[Tensor, "B C H W"]) -> Float64[Tensor, " B"]:
    """Squared error, mean over channels and pixels, of images in [0, 1].

    Args:
        reconstruction: Float in [0, 1] units, not necessarily clamped; or uint8.
        image: Float in [0, 1], or uint8.

    Returns:
        One value an image. A NaN of the reconstruction stays NaN: it is an error, not an absent score.

    Raises:
        TypeError: if a tensor is neither floating point nor uint8.
        ValueError: if the shapes differ or are not (batch, channels, height, width), a size is 0, the devices
            differ, or `image` leaves [0, 1].
    """
    return _squared_error(reconstruction, image).mean(dim=(1, 2, 3))


def mse_per_image(reconstruction: Shaped[Tensor, "B C H W"], image: Shaped[Tensor, "B C H W"]) -> Float64[Tensor, " B"]:
    """Squared error, summed over channels and pixels, of images in [0, 1]; otherwise as `mse`."""
    return _squared_error(reconstruction, image).sum(dim=(1, 2, 3))


def mse_published(reconstruction: Shaped[Tensor, "B C H W"], image: Shaped[Tensor, "B C H W"]) -> Float64[Tensor, " B"]:
    """Squared error as the authors' mixture test reported it.

    Mean over channels and pixels of images scaled to [-1, 1], times height x width. Arguments as `mse`, in
    [0, 1]: the scaling, which makes every squared error 4 times as large, is done here.
    """
    error = _squared_error(reconstruction, image)
    height, width = error.shape[-2:]
    return 4 * error.mean(dim=(1, 2, 3)) * (height * width)


def _squared_error(reconstruction: Tensor, image: Tensor) -> Float64[Tensor, "B C H W"]:
    rebuilt, true = unit_range_pair(reconstruction, image)
    return (rebuilt - true).square()


def unit_range_pair(
    reconstruction: Tensor, image: Tensor
) -> tuple[Float64[Tensor, "B C H W"], Float64[Tensor, "B C H W"]]:
    """Both as numbers in [0, 1], checked; arguments and errors as of `mse`."""
    if reconstruction.shape != image.shape or image.ndim != 4 or 0 in image.shape[1:]:
        raise ValueError(
            f"reconstruction has shape {tuple(reconstruction.shape)} and image has shape {tuple(image.shape)}"
            "; expected equal shapes (batch, channels, height, width), none of them empty."
        )
    if reconstruction.device != image.device:
        raise ValueError(
            f"reconstruction is on {reconstruction.device} and image is on {image.device}; move both to one device."
        )
    if image.is_floating_point() and ((image < 0) | (image > 1)).any():
        raise ValueError(
            f"image has values from {image.min().item():.3g} to {image.max().item():.3g}; expected [0, 1]. "
            "Pass the image before it is scaled for the model."
        )
    return _unit_range(reconstruction, "reconstruction"), _unit_range(image, "image")


def _unit_range(image: Tensor, name: str) -> Float64[Tensor, "B C H W"]:
    if image.dtype == torch.uint8:
        return image.double() / 255
    if image.is_floating_point():
        return image.double()
    raise TypeError(f"{name} has dtype {image.dtype}; expected floating point in [0, 1] or uint8.")


Convention = Literal["mse", "mse_per_image", "mse_published"]
_CONVENTIONS = {"mse": mse, "mse_per_image": mse_per_image, "mse_published": mse_published}


class MeanSquaredError(MeanOverImages):
    """Mean over the images of a set of one of `mse`, `mse_per_image` and `mse_published`.

    Every image counts: an image whose reconstruction holds NaN makes the mean NaN, and `left_out` stays 0.
    """

    higher_is_better = False

    def __init__(self, convention: Convention = "mse", **metric_options: Any) -> None:
        super().__init__(**metric_options)
        if convention not in _CONVENTIONS:
            raise ValueError(f"convention is {convention!r}; expected one of {', '.join(_CONVENTIONS)}.")
        self.convention = convention

    def update(self, reconstruction: Tensor, image: Tensor) -> None:
        """Take in a batch of reconstructions and images, (batch, channels, height, width), as for `mse`."""
        error = _CONVENTIONS[self.convention](reconstruction, image)
        self.add(error, is_scored=torch.ones_like(error, dtype=torch.bool))
