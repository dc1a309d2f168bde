"""Reading a run folder: whole or refused, and a checkpoint that is the old one or the new one."""

import json

import pytest
import torch

from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import model_config
from boqsa.inference.run import (
    CHECKPOINTS,
    MANIFEST,
    MODEL,
    RECIPE,
    checkpoint_folder,
    load_weights,
    misfit,
    read_manifest,
    read_recipe,
    write_checkpoint,
)


def test_what_was_written_comes_back(run, recipe, model):
    assert read_recipe(run) == recipe
    folder = checkpoint_folder(run)
    manifest = read_manifest(folder)
    assert (manifest["step"], manifest["recipe"]) == (7, recipe.hash)
    assert json.loads((folder / "config.json").read_text()) == json.loads(json.dumps(model_config(recipe)))
    weights = load_weights(folder)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_further_files_are_in_the_manifest(tmp_path, model):
    def write_more(partial):
        (partial / "notes.txt").write_text("more", encoding="utf-8")
        return ["notes.txt"]

    write_checkpoint(tmp_path / "c", model, config={}, step=1, recipe_hash="", write_more=write_more)
    assert set(read_manifest(tmp_path / "c")["sha256"]) == {MODEL, "config.json", "notes.txt"}


def test_a_failed_write_leaves_the_old_checkpoint(run, model):
    def fail(partial):
        raise OSError("disk full")

    folder = checkpoint_folder(run)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(folder, model, config={}, step=8, recipe_hash="", write_more=fail)
    assert read_manifest(folder)["step"] == 7
    assert [path.name for path in folder.parent.iterdir()] == ["last"]


@pytest.mark.parametrize("name", [MODEL, "config.json"])
def test_one_changed_byte_is_found(run, name):
    path = checkpoint_folder(run) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"sha256 of {name}"):
        read_manifest(path.parent)


def test_a_missing_file_or_a_strange_manifest_is_not_a_checkpoint(run):
    folder = checkpoint_folder(run)
    for text in ("{", "[]", "{}", '{"sha256": {"gone.bin": "00"}}'):
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match="not a whole checkpoint"):
            read_manifest(folder)


def test_the_checkpoints_there_are_are_named(run):
    with pytest.raises(RunError, match="no checkpoint 'best_loss'; it has last"):
        checkpoint_folder(run, "best_loss")
    (run / CHECKPOINTS / "last" / MANIFEST).unlink()
    with pytest.raises(RunError, match="it has none yet"):
        checkpoint_folder(run)


@pytest.mark.parametrize("name", ["", "..", "../checkpoints/last", "/"])
def test_a_checkpoint_is_a_name_and_not_a_path(run, name):
    with pytest.raises(RunError, match="no checkpoint"):
        checkpoint_folder(run, name)


def test_what_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(RunError, match="there is no run folder"):
        read_recipe(tmp_path / "gone")
    with pytest.raises(RunError, match="not a run folder"):
        read_recipe(run / CHECKPOINTS)
    (run / RECIPE).write_bytes(b"\xff\xfe broken")
    with pytest.raises(RunError, match=r"recipe\.json is damaged"):
        read_recipe(run)
    for text in ('{"name": ', '{"name": 7}', '{"name": "a", "data": {"name": "b", "image_size": 1000000}}'):
        (run / RECIPE).write_text(text)
        with pytest.raises(RecipeError) as caught:
            read_recipe(run)
        assert str(caught.value).startswith(f"{run / RECIPE}: ")


def test_what_of_weights_does_not_fit_is_one_line() -> None:
    model = torch.nn.Linear(3, 2)
    good = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    assert misfit(model, good) is None
    assert misfit(model, {**good, "weight": torch.zeros(2, 4)}) == "weight has shape (2, 4), expected (2, 3)"
    assert misfit(model, {"bias": good["bias"]}) == "weight is missing, expected (2, 3)"
    assert misfit(model, {}) == "weight is missing, expected (2, 3); 1 more do not fit"
    strange = {**good, "\x1b[2J": torch.zeros(1)}
    assert misfit(model, strange) == r"'\x1b[2J' has shape (1,), expected no tensor of this name"
