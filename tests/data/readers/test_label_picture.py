"""Mask files: what one file cannot say is decided over all of them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data.readers.label_picture import read_foreground, read_labels, survey_masks
from boqsa.errors import InputError


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_palette_index_is_the_label(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 7]], np.uint8))
    image.putpalette([255, 255, 255] * 256)  # the colours say nothing
    image.save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", "labels").tolist() == [[0, 1, 7]]


def test_grey_stored_as_rgb_is_a_label(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((1, 2, 3), 5, np.uint8))
    survey = survey_masks([path])
    assert (survey.kind, survey.highest) == ("labels", 5)
    assert read_labels(path, survey.kind).tolist() == [[5, 5]]


def test_one_coloured_file_makes_all_of_them_colours(tmp_path: Path) -> None:
    coloured = save(tmp_path / "a.png", np.array([[[0, 0, 0], [9, 0, 0]]], np.uint8))
    grey = save(tmp_path / "b.png", np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    survey = survey_masks([coloured, grey])
    assert survey.kind == "colours"
    assert read_labels(grey, survey.kind).tolist() == [[0, 1]]


def test_sixteen_bits_are_labels_if_they_are_small(tmp_path: Path) -> None:
    assert read_labels(save(tmp_path / "a.png", np.array([[3, 0]], np.uint16)), "labels").tolist() == [[3, 0]]
    with pytest.raises(InputError, match="labels from 0 to 300"):
        read_labels(save(tmp_path / "a.png", np.array([[300, 0]], np.uint16)), "labels")


def test_a_photograph_is_no_label_map(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    survey = survey_masks([save(tmp_path / "a.png", noise)])
    assert "colours; a label map has one" in survey.broken[tmp_path / "a.png"]


def test_no_masks() -> None:
    assert survey_masks([]).highest == 0


def test_survey_tells_its_progress_and_keeps_no_picture(tmp_path: Path) -> None:
    pixels = np.zeros((1000, 1000), np.uint8)
    pixels[0, 0] = 9
    paths = [save(tmp_path / f"{index}.png", pixels) for index in range(12)]
    told: list[tuple[int, int]] = []
    survey_masks(paths[:1])
    tracemalloc.start()
    survey = survey_masks(paths, None, lambda done, total: told.append((done, total)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert survey.highest == 9
    assert told == [(done, 12) for done in range(1, 13)]
    assert peak < 6 * pixels.nbytes


def test_foreground_is_a_bright_first_channel(tmp_path: Path) -> None:
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    expected = [[0, 0, 1, 1]]
    assert read_foreground(save(tmp_path / "grey.png", grey)).tolist() == expected
    assert read_foreground(save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)).tolist() == expected
    colours = np.stack([grey, 255 - grey, grey * 0, grey * 0], axis=2)  # only the first channel counts, nor does alpha
    assert read_foreground(save(tmp_path / "alpha.png", colours)).tolist() == expected
    assert read_foreground(save(tmp_path / "two.png", np.stack([grey, 255 - grey], axis=2))).tolist() == expected
    assert read_foreground(save(tmp_path / "bits.png", grey > 127)).tolist() == expected
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([200, 0, 0, 0, 255, 255])
    palette.save(tmp_path / "palette.png")
    assert read_foreground(tmp_path / "palette.png").tolist() == [[1, 0]]


def test_dithering_makes_dots_of_grey(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((64, 64), 64, np.uint8))
    assert read_foreground(path).max() == 0
    assert 0.2 < read_foreground(path, dithered=True).mean() < 0.3
    black_and_white = np.zeros((8, 8), np.uint8)
    black_and_white[2:5, 1:7] = 255
    path = save(tmp_path / "b.png", black_and_white)
    np.testing.assert_array_equal(read_foreground(path, dithered=True), read_foreground(path))
