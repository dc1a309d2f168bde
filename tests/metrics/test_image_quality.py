"""PSNR and SSIM by their formulas (uorf 10.5)."""

import pytest
import torch
from torch import Tensor

from boqsa.metrics import PeakSignalToNoise, StructuralSimilarity, psnr, ssim


def images(count: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator), torch.rand(count, 3, size, size, generator=generator)


def test_psnr_by_hand_and_its_ceiling() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    assert psnr(image + 0.1, image).item() == pytest.approx(20, abs=1e-4)
    assert psnr(image, image).item() == pytest.approx(80)


def test_ssim_by_hand() -> None:
    one, other = (image.double() for image in images())
    along = torch.arange(11, dtype=torch.float64) - 5
    bell = torch.exp(-(along**2) / (2 * 1.5**2))
    window = torch.outer(bell, bell) / bell.sum() ** 2

    def mean(values: Tensor) -> Tensor:
        flat = torch.nn.functional.conv2d(values.flatten(0, 1)[:, None], window[None, None])
        return flat.view(2, 3, 6, 6)

    m1, m2 = mean(one), mean(other)
    v1, v2 = mean(one * one) - m1**2, mean(other * other) - m2**2
    both = mean(one * other) - m1 * m2
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * m1 * m2 + c1) * (2 * both + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))).mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(one, other), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ssim(one, one), torch.ones(2, dtype=torch.float64))


def test_means_are_over_images() -> None:
    one, other = images(3)
    for metric, function in ((PeakSignalToNoise(), psnr), (StructuralSimilarity(), ssim)):
        metric.update(one[:1], other[:1])
        metric.update(one[1:], other[1:])
        torch.testing.assert_close(metric.compute(), function(one, other).mean())


def test_small_and_unequal_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(*images(size=10))
    with pytest.raises(ValueError, match="equal"):
        ssim(images()[0], images(size=20)[0])


def test_images_of_another_range_or_kind_are_refused() -> None:
    one, other = images()
    for function in (psnr, ssim):
        with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
            function(one, 2 * other - 1)
        with pytest.raises(TypeError, match="int64"):
            function(one, other.long())
