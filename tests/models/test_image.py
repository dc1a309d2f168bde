"""What models take as an image: bytes and unit floats, to either range, and the refusals."""

import pytest
import torch

from boqsa.models.image import scaled_image


@pytest.mark.parametrize(("low", "wanted"), [(0.0, [0.0, 0.2, 1.0]), (-1.0, [-1.0, -0.6, 1.0])])
@pytest.mark.parametrize("values", [torch.tensor([0, 51, 255], dtype=torch.uint8), torch.tensor([0.0, 0.2, 1.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_and_unit_floats_are_scaled_to_the_range(
    values: torch.Tensor, low: float, wanted: list[float], dtype: torch.dtype
) -> None:
    image = values.view(3, 1, 1, 1).expand(3, 3, 4, 4)
    scaled = scaled_image(image, size=4, low=low, dtype=dtype)
    assert scaled.dtype == dtype
    expected = torch.tensor(wanted, dtype=dtype).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-7)
    assert float(scaled.min()) == low
    assert float(scaled.max()) == 1.0


def test_the_memory_layout_is_kept() -> None:
    """The loop hands over channels-last images; a copy to the other layout would be made at the first convolution."""
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    scaled = scaled_image(image, size=8, low=0.0, dtype=torch.float32)
    assert scaled.is_contiguous(memory_format=torch.channels_last)


def test_the_image_that_came_in_is_not_changed() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    scaled_image(image, size=4, low=-1.0, dtype=torch.float32)
    assert torch.equal(image, torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 5, 4), (1, 3, 8, 8)])
def test_another_size_is_refused_with_both_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image has shape \(1, 3, \d, \d\); expected \(batch, 3, 4, 4\)"):
        scaled_image(torch.zeros(shape), size=4, low=0.0, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(Exception, match=r"uint8|UInt8"):
        scaled_image(torch.zeros(1, 3, 4, 4, dtype=dtype), size=4, low=0.0, dtype=torch.float32)
