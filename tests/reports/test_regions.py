"""Pictures of regions: what is cut out, what is dimmed, and in whose colour."""

import numpy as np
import pytest

from boqsa.reports.palette import slot_colours
from boqsa.reports.regions import TILE, mean_mask_picture, region_cut_out, region_in_place

RED = (200, 10, 10)


def scene(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A red square of 8 on black near the lower right corner, and a stray pixel of the region in the other corner."""
    image = np.zeros((size, size, 3), np.uint8)
    owned = np.zeros((size, size), bool)
    owned[20:28, 22:30] = True
    image[owned] = RED
    owned[0, 0] = True
    return image, owned


def test_the_whole_image_keeps_its_pixels_but_for_the_line() -> None:
    image, owned = scene()
    found = np.asarray(region_in_place(image, owned, 2))
    assert found.shape == (TILE, TILE, 3)
    scale = TILE // 32
    np.testing.assert_array_equal(found[21 * scale : 27 * scale, 23 * scale : 29 * scale].reshape(-1, 3)[0], RED)
    enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
    differs = (found != enlarged).any(axis=2)
    assert 0 < differs.mean() < 0.1
    line = found[differs]
    assert {tuple(colour) for colour in line.tolist()} == {tuple(slot_colours(3)[2].tolist()), (255, 255, 255)}
    inside = owned.repeat(scale, axis=0).repeat(scale, axis=1)
    assert not (differs & inside).any(), "the line lies outside the region"


def test_the_cut_out_is_around_the_largest_piece_and_dims_the_rest() -> None:
    image, owned = scene()
    found = np.asarray(region_cut_out(image, owned, 0)).astype(int)
    is_red = (found == RED).all(axis=2)
    # 8 pixels with a margin of a fifth on both sides: 11, of which 8 x 8 are the region.
    assert is_red.mean() == pytest.approx((8 / 11) ** 2, abs=0.02)
    rest = found[~is_red]
    assert rest.min(axis=0).max() >= 0
    faded = rest[(rest[:, 0] == rest[:, 1]) & (rest[:, 1] == rest[:, 2])]
    assert (faded > 150).all(), "black is paled"


def test_regions_without_pixels_at_the_edge_and_everywhere_are_drawn() -> None:
    image, _ = scene()
    for owned in (np.zeros((32, 32), bool), np.ones((32, 32), bool), np.eye(32, dtype=bool)):
        for draw in (region_cut_out, region_in_place):
            assert max(draw(image, owned, 300 % 7).size) == TILE
    wide, owned = np.zeros((20, 50, 3), np.uint8), np.zeros((20, 50), bool)
    owned[5:9, 40:50] = True
    assert region_in_place(wide, owned, 0).size == (TILE, round(TILE * 20 / 50))
    assert region_cut_out(wide, owned, 0).size == (TILE, TILE)


def test_large_images_are_made_smaller() -> None:
    image, owned = scene(300)
    assert region_in_place(image, owned, 0).size == (TILE, TILE)


def test_a_mean_mask_goes_from_paper_to_the_slot_s_colour() -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[:, 2] = 0.2
    mask[:, 3] = 0.4
    found = np.asarray(mean_mask_picture(mask, 4)).astype(float)
    assert found.shape == (TILE, TILE, 3)
    colour = slot_colours(5)[4].astype(float)
    np.testing.assert_allclose(found[64, 4], 246)
    np.testing.assert_allclose(found[64, 79:81].mean(axis=0), colour, atol=2)  # a quarter pixel from the middle of 2
    np.testing.assert_allclose(found[64, 124], colour * 0.55, atol=1)
    assert (np.asarray(mean_mask_picture(np.zeros((4, 4), np.float32), 0)) == 246).all()
