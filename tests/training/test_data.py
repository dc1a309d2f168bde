"""Splits of a recipe: found, refused with a reason, or rendered."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from boqsa.data import PackedDataset
from boqsa.data.builtin import RENDERER
from boqsa.data.manifest import shard_file
from boqsa.data.packing import write_packed
from boqsa.errors import InputError, RecipeError
from boqsa.recipes import DataRecipe, Recipe
from boqsa.training import data
from boqsa.training.data import StepImages, logged_identity, open_split, open_validation


def test_opens_the_splits_of_the_recipe(recipe: Recipe) -> None:
    assert len(open_split(recipe.data, "train")) == 40
    validation = open_validation(recipe.data)
    assert validation is not None
    assert len(validation) == 12


def test_the_identity_of_old_data_is_what_the_log_says(recipe: Recipe, changed: Callable[..., Recipe]) -> None:
    scenes = changed(recipe, data={"name": "scenes", "root": None}).data
    row = {"event": "started", "step": 0, "data": "f"}
    then = [{"event": "step", "step": 1}, {**row, "identity": "renderer 0"}]
    assert logged_identity(scenes, then) == "renderer 0"
    for old in ([row], [{**row, "identity": 7}], []):
        assert logged_identity(scenes, old) == f"renderer {RENDERER}"
    assert logged_identity(recipe.data, [row]) == "f"


def test_a_misspelt_data_set_is_noticed_where_no_folder_is_given(
    recipe: Recipe, changed: Callable[..., Recipe]
) -> None:
    misspelt = changed(recipe, data={"name": "flowrs", "root": None}).data
    with pytest.raises(RecipeError, match=r"no data set 'flowrs'; did you mean flowers\? `boqsa data list` has them"):
        open_split(misspelt, "train")
    mine = changed(recipe, data={"name": "my_own"}).data  # squares, packed by a reader of people's own files
    assert len(open_split(mine, "train")) == 40


def test_missing_root_says_what_to_type(recipe: Recipe, changed: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="boqsa data prepare arrays SOURCE DIR --size 16"):
        open_split(changed(recipe, data={"root": None}).data, "train")


def test_scenes_take_no_root() -> None:
    with pytest.raises(RecipeError, match="leave it out"):
        open_split(DataRecipe(name="scenes", image_size=16, root="somewhere"), "train")


def test_another_data_set_is_refused_but_own_arrays_stand_in(
    tmp_path: Path, squares: Callable, recipe: Recipe, changed: Callable[..., Recipe]
) -> None:
    words = {"source": "", "licence": "", "task": "multi-object", "split_rule": ""}
    write_packed(tmp_path / "other", {"train": squares(2, seed=0)}, name="shapestacks", **words)
    with pytest.raises(InputError, match=r"--data\.name shapestacks"):
        open_split(changed(recipe, data={"name": "objectsroom", "root": str(tmp_path / "other")}).data, "train")
    assert len(open_split(changed(recipe, data={"name": "objectsroom"}).data, "train")) == 40


def test_no_validation_split_is_no_error(
    tmp_path: Path, squares: Callable, recipe: Recipe, changed: Callable[..., Recipe]
) -> None:
    words = {"name": "arrays", "source": "", "licence": "", "task": "multi-object", "split_rule": ""}
    write_packed(tmp_path / "packed", {"train": squares(2, seed=0)}, **words)
    assert open_validation(changed(recipe, data={"root": str(tmp_path / "packed")}).data) is None


def test_a_damaged_validation_split_is_an_error(
    tmp_path: Path, packed: Path, recipe: Recipe, changed: Callable[..., Recipe]
) -> None:
    shutil.copytree(packed, tmp_path / "packed")
    (tmp_path / "packed" / shard_file("val", "image", 0)).write_bytes(b"not an array")
    with pytest.raises(InputError, match="val"):
        open_validation(changed(recipe, data={"root": str(tmp_path / "packed")}).data)


@pytest.mark.parametrize("resident", [False, True])
def test_the_images_of_a_step(resident: bool, train_data: PackedDataset) -> None:
    images = StepImages(train_data, torch.device("cpu"), resident=resident)
    chosen = np.array([5, 0, 39, 5])
    assert torch.equal(images.batch(chosen), train_data.batch(chosen)["image"])
    assert len(images) == 40
    assert ("all on cpu" in str(images)) == resident


def test_a_cpu_reads_through_the_map_and_an_accelerator_what_fits(
    train_data: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not StepImages(train_data, torch.device("cpu")).resident
    for free, fits in ((2 * train_data.column_bytes("image"), True), (2 * train_data.column_bytes("image") - 2, False)):
        monkeypatch.setattr(data, "_free_bytes", lambda _, free=free: free)
        assert StepImages(train_data, torch.device("meta")).resident == fits
