"""Mask files: what one file cannot say is decided over all of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.data.readers.label_picture import read_labels, survey_masks
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
