"""How like a photograph a rendered view is: PSNR and SSIM, one value an image (uorf 10.5). Higher is better in both.

LPIPS, which needs weights that users bring, is `boqsa.models.radiance.pretrained.LPIPS`.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from boqsa.metrics.accumulate import MeanOverImages
from boqsa.metrics.reconstruction import mse

_EPSILON = 1e-8
_WINDOW = 11


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
        ValueError: if the shapes differ, or an image is smaller than the window.
    """
    if rendered.shape != image.shape or min(image.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"rendered has shape {tuple(rendered.shape)} and image has shape {tuple(image.shape)}; expected equal "
            f"shapes (batch, channels, height, width) of at least {_WINDOW} pixels."
        )
    found = structural_similarity_index_measure(
        rendered.double(), image.double(), sigma=1.5, data_range=1.0, k1=0.01, k2=0.03, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found.view(-1)


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
