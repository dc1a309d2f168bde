import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.errors import InputError
from boqsa.reports import png_bytes, save_label_png, save_png, slot_colours


def test_label_map_comes_back_with_its_indices_and_colours(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (17, 23))
    labels[0, :3] = [0, 1, 255]
    save_label_png(tmp_path / "labels.png", labels)
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), slot_colours(256)[labels])
    assert [file.name for file in tmp_path.iterdir()] == ["labels.png"]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[-1]]),
        np.array([[256]]),
        np.array([[0.5]]),
        np.zeros(3, dtype=int),
        np.zeros((0, 4), dtype=int),
    ],
)
def test_refuses_what_an_indexed_png_cannot_hold(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels"):
        save_label_png(tmp_path / "labels.png", labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["picture.png", "no-suffix"])
def test_saves_arrays_and_pictures_alike(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for picture in (pixels, Image.fromarray(pixels)):
        save_png(tmp_path / name, picture)
        with Image.open(tmp_path / name) as read:
            assert read.format == "PNG"
            np.testing.assert_array_equal(np.asarray(read), pixels)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        save_png(tmp_path / "absent" / "picture.png", np.zeros((2, 2, 3), dtype=np.uint8))


def test_bytes_are_a_png_of_the_picture() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png_bytes(Image.fromarray(pixels)))) as read:
        np.testing.assert_array_equal(np.asarray(read), pixels)
