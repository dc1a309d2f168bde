"""Contact sheets: right pixels in the right places, and always the same."""

from pathlib import Path

import numpy as np
import pytest

from boqsa.data import contact_sheet, write_packed
from boqsa.data.sheet import colour_labels
from boqsa.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 100, 100), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(-1, 4, (10, 100, 100))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    splits = {"train": (IMAGES, MASKS), "val": (IMAGES[:2, :, :20, :20].repeat(5, 2).repeat(5, 3), None)}
    fields = {"name": "arrays", "source": "s", "licence": "l", "split_rule": "r"}
    write_packed(tmp_path / "packed", splits, task="multi-object", **fields)
    return tmp_path / "packed"


def test_samples_are_evenly_spaced_image_overlay_and_mask(packed: Path) -> None:
    sheet = np.asarray(contact_sheet(packed, "train", rows=2, columns=2))
    assert sheet.shape == (4 + 2 * 104, 4 + 2 * 304, 3)
    np.testing.assert_array_equal(sheet[4:104, 4:104], IMAGES[0].transpose(1, 2, 0))
    colours = colour_labels(MASKS[:1])[0]
    np.testing.assert_array_equal(sheet[4:104, 204:304], colours)
    image, overlaid = IMAGES[0].transpose(1, 2, 0).astype(int), sheet[4:104, 104:204]
    background = MASKS[0] == 0
    np.testing.assert_array_equal(overlaid[background], image[background])
    np.testing.assert_array_equal(overlaid[~background], (image[~background] + colours[~background]) // 2)
    np.testing.assert_array_equal(sheet[108:208, 308:408], IMAGES[9].transpose(1, 2, 0))
    np.testing.assert_array_equal(sheet, np.asarray(contact_sheet(packed, "train", rows=2, columns=2)))


def test_fewer_images_than_places_and_no_masks(packed: Path) -> None:
    assert contact_sheet(packed, "val", rows=3, columns=3).size == (4 + 3 * 104, 4 + 104)


def test_colours_differ_and_ignore_is_grey() -> None:
    colours = colour_labels(np.arange(-1, 12).reshape(1, 1, -1))[0, 0]
    assert len(np.unique(colours, axis=0)) == 13
    assert colours[0].tolist() == [128, 128, 128]
    assert colours[1].tolist() == [0, 0, 0]
    assert (colour_labels(np.array([[[254]]])) > 0).any()


def test_wrong_numbers_and_names(packed: Path) -> None:
    with pytest.raises(InputError, match="positive"):
        contact_sheet(packed, "train", rows=0)
    with pytest.raises(InputError, match="it has train, val"):
        contact_sheet(packed, "dev")
