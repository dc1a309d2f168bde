"""How like a photograph a rendered view is: PSNR and SSIM, one value an image (uorf 10.5). Higher is better in both.

SSIM is the mean over places where the whole window lies in the image, as in its definition; torchmetrics pads the image
and counts its border too.

LPIPS, which needs weights that users bring, is `boqsa.models.radiance.pretrained.LPIPS`.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.reconstruction import mse, unit_range_pair

_EPSILON = 1e-8
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(rendered: Float[Tensor, "B C H W"], image: Float[Tensor, "B C H W"]) -> Float64[Tensor, " B"]:
    """10 log10(1 / (mse + 1e-8)), in dB, at most 80.

    Args:
        rendered: In [0, 1] units.
        image: In [0, 1].

    Raises:
        TypeError, ValueError: as `boqsa.metrics.mse`.
    """
    return -10 * (mse(rendered, image) + _EPSILON).log10()


def ssim(rendered: Float[Tensor, "B C H W"], image: Float[Tensor, "B C H W"]) -> Float64[Tensor, " B"]:
    """Structural similarity with a Gaussian window of 11x11 pixels and sigma 1.5, each channel for itself, at most 1.

    Args:
        rendered: In [0, 1] units.
        image: In [0, 1], not smaller than the window.

    Raises:
        TypeError, ValueError: as `boqsa.metrics.mse`, and if an image is smaller than the window.
    """
    one, other = unit_range_pair(rendered, image)
    if min(image.shape[-2:]) < _WINDOW:
        raise ValueError(f"images have {tuple(image.shape[-2:])} pixels; expected sides of at least {_WINDOW} pixels.")
    window = _bell(one)
    mean_one, mean_other = _averaged(one, window), _averaged(other, window)
    spread_one = _averaged(one * one, window) - mean_one**2
    spread_other = _averaged(other * other, window) - mean_other**2
    together = _averaged(one * other, window) - mean_one * mean_other
    light = (2 * mean_one * mean_other + _C1) / (mean_one**2 + mean_other**2 + _C1)
    structure = (2 * together + _C2) / (spread_one + spread_other + _C2)
    return (light * structure).mean(dim=(1, 2, 3))


def _bell(like: Tensor) -> Float64[Tensor, "11"]:
    """One side of the window, which is the product of two; sums to 1."""
    along = torch.arange(_WINDOW, dtype=like.dtype, device=like.device) - _WINDOW // 2
    bell = (-(along**2) / (2 * _SIGMA**2)).exp()
    return bell / bell.sum()


def _averaged(image: Float64[Tensor, "B C H W"], window: Float64[Tensor, "11"]) -> Float64[Tensor, "B C h w"]:
    """Under the window, wherever all of it lies in the image."""
    flat = image.flatten(0, 1)[:, None]
    rows = nn.functional.conv2d(flat, window[None, None, :, None])
    averaged = nn.functional.conv2d(rows, window[None, None, None])
    return averaged.view(*image.shape[:2], *averaged.shape[-2:])


class PeakSignalToNoise(MeanOverImages):
    """Mean of `psnr` over the images of a set."""

    higher_is_better = True

    def update(self, rendered: Tensor, image: Tensor) -> None:
        """Take in a batch; arguments as for `psnr`."""
        values = psnr(rendered, image)
        self.add(values, torch.ones_like(values, dtype=torch.bool))


class StructuralSimilarity(MeanOverImages):
    """Mean of `ssim` over the images of a set."""

    higher_is_better = True

    def update(self, rendered: Tensor, image: Tensor) -> None:
        """Take in a batch; arguments as for `ssim`."""
        values = ssim(rendered, image)
        self.add(values, torch.ones_like(values, dtype=torch.bool))
