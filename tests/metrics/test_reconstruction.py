from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.metrics import MeanSquaredError, mse, mse_per_image, mse_published

CONVENTIONS = {"mse": mse, "mse_per_image": mse_per_image, "mse_published": mse_published}


def pair(batch: int = 3, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, channels, 4, 5)
    return torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_convention_equals_its_definition(channels: int) -> None:
    reconstruction, image = pair(channels=channels)
    r, i = reconstruction.double().numpy(), image.double().numpy()
    published = ((2 * r - 1) - (2 * i - 1)) ** 2
    expected = {
        "mse": np.mean((r - i) ** 2, axis=(1, 2, 3)),
        "mse_per_image": np.sum((r - i) ** 2, axis=(1, 2, 3)),
        "mse_published": published.mean(axis=(1, 2, 3)) * 4 * 5,
    }
    for name, function in CONVENTIONS.items():
        found = function(reconstruction, image)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected[name], rtol=1e-12)


def test_published_is_four_thirds_of_per_image_in_colour() -> None:
    torch.testing.assert_close(mse_published(*pair()), 4 / 3 * mse_per_image(*pair()), rtol=1e-12, atol=0)


def test_hand_case() -> None:
    image = torch.zeros(1, 3, 2, 2)
    reconstruction = torch.full((1, 3, 2, 2), 0.5)
    assert mse(reconstruction, image).tolist() == [0.25]
    assert mse_per_image(reconstruction, image).tolist() == [3.0]
    assert mse_published(reconstruction, image).tolist() == [4.0]


def test_uint8_images_are_read_as_0_to_1() -> None:
    bytes_image = torch.randint(0, 256, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    reconstruction, _ = pair(batch=2)
    torch.testing.assert_close(
        mse(reconstruction, bytes_image), mse(reconstruction, bytes_image.double() / 255), rtol=0, atol=0
    )
    assert mse(bytes_image, bytes_image).tolist() == [0, 0]


def test_half_precision_is_summed_in_float64() -> None:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.float16)
    assert mse_per_image(torch.full_like(image, 4.0), image).tolist() == [16.0 * 3 * 64 * 64]  # above float16


@pytest.mark.parametrize("function", CONVENTIONS.values())
def test_bad_images_are_refused(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    reconstruction, image = pair()
    with pytest.raises(ValueError, match=r"reconstruction has shape \(2, 3, 4, 5\) and image has shape \(3,"):
        function(reconstruction[:2], image)
    with pytest.raises(ValueError, match=r"expected equal shapes \(batch, channels, height, width\)"):
        function(reconstruction[0], image[0])
    with pytest.raises(ValueError, match=r"image has values from -1 to .*; expected \[0, 1\]"):
        function(reconstruction, torch.cat([image[:2], -torch.ones(1, 3, 4, 5)]))
    with pytest.raises(TypeError, match=r"image has dtype torch\.int64; expected floating point"):
        function(reconstruction, image.long())
    with pytest.raises(ValueError, match="move both to one device"):
        function(reconstruction.to("meta"), image)


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_class_averages_the_function(convention: str) -> None:
    reconstruction, image = pair(batch=7)
    metric = MeanSquaredError(convention)
    for batch in torch.arange(7).split(3):
        metric.update(reconstruction[batch], image[batch])
    expected = CONVENTIONS[convention](reconstruction, image).mean().item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)
    assert (metric.scored, metric.left_out) == (7, 0)


def test_a_broken_reconstruction_shows_in_the_mean() -> None:
    reconstruction, image = pair()
    reconstruction[1, 0, 0, 0] = torch.nan
    assert mse(reconstruction, image).isnan().tolist() == [False, True, False]
    metric = MeanSquaredError()
    metric.update(reconstruction, image)
    assert metric.compute().isnan()
    assert (metric.scored, metric.left_out) == (3, 0)


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="convention is 'sum'; expected one of mse, mse_per_image, mse_published"):
        MeanSquaredError("sum")
