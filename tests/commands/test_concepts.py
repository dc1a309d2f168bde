"""`boqsa concepts`: names without any work, a page with it, and mistakes in a line."""

import json

import numpy as np
import pytest
import torch

from boqsa.atomic import write_text
from boqsa.commands import main
from boqsa.data import write_packed
from boqsa.inference.load import build_model, model_config
from boqsa.inference.names import NAMES
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import DataRecipe, MixtureRecipe, Recipe

TINY = MixtureRecipe(
    num_slots=3,
    slot_size=8,
    mlp_size=8,
    encoder_channels=(8,),
    encoder_strides=(1,),
    decoder_channels=(8,),
    decoder_strides=(2,),
)


@pytest.fixture
def run(tmp_path, scenes):
    recipe = Recipe(name="tiny", data=DataRecipe(name="arrays", root=str(scenes), image_size=16), model=TINY)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(recipe)
    folder = tmp_path / "run"
    write_checkpoint(folder / CHECKPOINTS / "last", model, config=model_config(recipe), step=1, recipe_hash=recipe.hash)
    write_text(folder / RECIPE, recipe.to_json())
    return folder


@pytest.fixture
def scenes(tmp_path):
    random = np.random.default_rng(0)
    images, masks = random.integers(0, 256, (6, 3, 16, 16), np.uint8), np.zeros((6, 16, 16), np.uint8)
    masks[:, 4:9, 4:9] = 1
    write_packed(
        tmp_path / "packed",
        {"test": (images, masks)},
        name="arrays",
        source="drawn",
        licence="none",
        task="multi-object",
        split_rule="drawn",
    )
    return tmp_path / "packed"


def test_names_are_stored_and_shown(run, capsys):
    assert main(["concepts", str(run), "--name", "0=background", "--name", "2=left petal"]) == 0
    said = capsys.readouterr().out
    assert "slot 0: background\nslot 2: left petal\n" in said
    assert json.loads((run / NAMES).read_text()) == {"0": "background", "2": "left petal"}
    assert not (run / "concepts.html").exists(), "naming computes nothing"
    assert main(["concepts", str(run), "--name", "0=", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"names": {"2": "left petal"}}
    assert main(["concepts", str(run)]) == 0
    said = capsys.readouterr().out
    assert "left petal" in said
    assert f"fields to name slots in: {run / 'concepts.html'}" in said
    assert "left petal" in (run / "concepts.html").read_text()


def test_a_downloaded_file_names_slots_and_typed_names_count_more(run, tmp_path, capsys):
    (tmp_path / "down.json").write_text('{"0": "floor", "1": "petal"}')
    assert main(["concepts", str(run), "--name", "2=stem"]) == 0
    assert main(["concepts", str(run), "--names", str(tmp_path / "down.json"), "--name", "1=leaf"]) == 0
    assert json.loads((run / NAMES).read_text()) == {"0": "floor", "1": "leaf", "2": "stem"}


def test_the_result_in_json(run, capsys):
    assert main(["concepts", str(run), "--images", "4", "--examples", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 4
    assert len(found["slots"]) == 3
    assert json.loads((run / "concepts.json").read_text()) == {name: found[name] for name in found if name != "page"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "background"], "expected SLOT=NAME"),
        (["--name", "7=far"], "slot 7 does not exist; slots are 0 to 2"),
        (["--name"], "--name has no value"),
        (["--names", "missing.json"], "missing.json does not exist"),
        (["--images", "-1"], "number of images is -1"),
        (["--data.root", "nowhere"], "nowhere does not exist"),
        (["--dataset", "nothing"], "there is no data set 'nothing'; `boqsa data list` has them"),
        (["--checkpoint", "best"], "no checkpoint 'best'; it has last"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run, capsys, arguments, said):
    before = sorted(run.iterdir())
    assert main(["concepts", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(run.iterdir()) == before


def test_a_folder_that_is_no_run(tmp_path, capsys):
    for arguments in (["--name", "0=floor"], []):
        assert main(["concepts", str(tmp_path), *arguments]) == 2
        assert "is not a run folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
