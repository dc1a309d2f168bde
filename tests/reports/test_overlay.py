import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.reports import overlay, paint, slot_colours


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    slots=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_keeps_shape_and_covers_only_labelled_pixels(height: int, width: int, slots: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    covered = overlay(image, generator.integers(0, slots, (height, width)))
    assert covered.shape == image.shape
    assert covered.dtype == np.uint8
    np.testing.assert_array_equal(overlay(image, np.full((height, width), -1)), image)


def test_inside_is_between_image_and_colour_and_the_boundary_is_white() -> None:
    image = np.full((4, 6, 3), 100, dtype=np.uint8)
    labels = np.zeros((4, 6), dtype=np.int64)
    labels[:, 3:] = 1
    covered = overlay(image, labels)
    assert (covered[:, 3] == 255).all()
    colours = slot_colours(2).astype(float)
    for column, slot in ((0, 0), (5, 1)):
        expected = 100 + (colours[slot] - 100) * 115 / 256
        np.testing.assert_allclose(covered[0, column], expected, atol=1)


def test_boundary_grows_with_the_picture() -> None:
    labels = np.zeros((900, 900), dtype=np.uint8)
    labels[450:] = 1
    covered = overlay(np.zeros((900, 900, 3), dtype=np.uint8), labels)
    assert (covered[:, 0] == 255).all(axis=-1).sum() == 3


def test_paint_gives_each_label_its_colour_and_ignored_pixels_grey() -> None:
    painted = paint(np.array([[2, -1], [0, -7]]))
    grey = [128, 128, 128]
    assert painted.tolist() == [[slot_colours(3)[2].tolist(), grey], [slot_colours(1)[0].tolist(), grey]]


def test_refuses_what_does_not_belong_together() -> None:
    labels = np.zeros((4, 5), dtype=np.int64)
    with pytest.raises(ValueError, match=r"\(height, width\)"):
        overlay(np.zeros((5, 4, 3), dtype=np.uint8), labels)
    with pytest.raises(ValueError, match="uint8"):
        overlay(np.zeros((4, 5, 3), dtype=np.float32), labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="256"):
        paint(np.array([256]))
