"""Resampling against the formulas of the definitions."""

import numpy as np
import pytest
from PIL import Image

from boqsa.data.resample import centre_crop, centre_square, resize_image, resize_mask

MASK = np.random.default_rng(0).integers(0, 256, (19, 28), dtype=np.uint8)


@pytest.mark.parametrize(("resample", "half"), [("pil-nearest", 0.5), ("torch-nearest", 0.0)])
@pytest.mark.parametrize("size", [(7, 9), (50, 32), (19, 28)])
def test_nearest_takes_the_defined_pixel(resample: str, half: float, size: tuple[int, int]) -> None:
    rows = np.floor((np.arange(size[0]) + half) * 19 / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + half) * 28 / size[1]).astype(int)
    np.testing.assert_array_equal(resize_mask(MASK, size, resample), MASK[np.ix_(rows, columns)])


def test_image_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    small = resize_image(stripes, (8, 8))
    assert small[1:-1].min() > 100
    assert small[1:-1].max() < 155
    np.testing.assert_array_equal(small, np.asarray(Image.fromarray(stripes).resize((8, 8), Image.Resampling.BILINEAR)))


def test_crops() -> None:
    np.testing.assert_array_equal(centre_square(MASK), MASK[:, 4:23])
    np.testing.assert_array_equal(centre_crop(MASK, (9, 8)), MASK[5:14, 10:18])
