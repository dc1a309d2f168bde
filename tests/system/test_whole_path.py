"""From the files of a data set to pictures of what was found: prepare, check, train, evaluate, segment, by command.

On small sets in the original formats and on re-creations as arrays and as a folder; a few steps, so nothing is learned.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boqsa.commands import main
from boqsa.data.mimic import mimic
from boqsa.recipes import RECIPES

Run = Callable[..., dict]

SOURCES = {
    "objectsroom_layout": ("objectsroom", "objectsroom_layout", [], "objectsroom_mixture_small"),
    "shapestacks_layout": ("shapestacks", "shapestacks_layout", [], "shapestacks_mixture_small"),
    "objectsroom_like": ("arrays", "objectsroom_like/data.npz", [], "objectsroom_mixture_small"),
    "shapestacks_like": (
        "folder",
        "shapestacks_like/images",
        ["--masks", "shapestacks_like/masks"],
        "shapestacks_mixture_small",
    ),
    "flowers17": ("folder", "flowers17/images", ["--masks", "flowers17/masks"], "photographs_transformer_small"),
}
"""Name of the reader, what it reads, what else it is told, and a recipe; paths inside the data folder."""

FEW_STEPS = {
    "train.steps": 4,
    "train.batch-size": 4,
    "train.evaluate-every": 4,
    "train.threads": 1,
    "evaluate.validation-limit": 8,
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(arguments)` runs a command with --json, expects exit 0, and gives what it printed."""

    def command(*arguments: str | Path) -> dict:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return command


@pytest.mark.parametrize("source", SOURCES)
def test_from_files_to_pictures(source: str, shared: Path, tmp_path: Path, run: Run) -> None:
    reader, path, more, recipe = SOURCES[source]
    size = RECIPES[recipe]().data.image_size
    options = [part if part.startswith("--") else shared / "data" / part for part in more]
    packed, trained, found = tmp_path / "packed", tmp_path / "run", tmp_path / "found"
    run("data", "prepare", reader, shared / "data" / path, packed, "--size", size, "--limit", 60, *options)
    assert run("data", "check", packed)["ok"]

    fields = [part for name, value in FEW_STEPS.items() for part in (f"--{name}", value)]
    assert run("train", recipe, "--data.root", packed, "--out", trained, *fields)["finished"]
    scores = run("evaluate", trained)
    names = ("iou", "dice") if source == "flowers17" else ("ari", "ari_fg", "msc_fg")
    assert np.isfinite([scores[name] for name in names]).all()

    picture = Image.fromarray(np.load(packed / "test.image.000.npy")[0].transpose(1, 2, 0)).resize((50, 40))
    picture.save(tmp_path / "picture.png")
    run("segment", trained, tmp_path / "picture.png", "--out", found)
    labels = Image.open(next(path for path in found.iterdir() if "label" in path.name))
    assert labels.mode == "P"
    assert labels.size == (50, 40)
    assert set(np.unique(np.asarray(labels))) <= set(range(7))


IN_EVERY_RUN = ("birds_mixture", "birds_transformer_small", "coco_transformer_small", "objectsroom_slate_small")
DOWNLOADED = [name for name, make in RECIPES.items() if make().data.name != "scenes"]


@pytest.mark.parametrize(
    "name",
    [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.full) for name in DOWNLOADED],
)
def test_every_recipe_can_be_tried_without_a_download(
    name: str, tmp_path: Path, run: Run, make_encoder: Callable[..., Path]
) -> None:
    recipe = RECIPES[name]()
    stand_in = mimic(recipe.data.name, tmp_path / "stand-in")
    packed, trained = tmp_path / "packed", tmp_path / "run"
    needed = [part for option, value in stand_in.options.items() for part in (f"--{option}", value)]
    run("data", "prepare", recipe.data.name, stand_in.path, packed, "--size", recipe.data.image_size, *needed)
    assert run("data", "check", packed)["ok"]
    fields = FEW_STEPS | {"train.steps": 1, "train.evaluate-every": 1, "train.batch-size": 2}
    options = [part for field, value in fields.items() for part in (f"--{field}", value)]
    if recipe.model.kind == "features":
        encoder = make_encoder(image_size=224, patch_size=16)
        run("data", "features", packed, encoder, tmp_path / "features")
        packed = tmp_path / "features"
        options += ["--model.feature-size", 16]
    assert run("train", name, "--data.root", packed, "--out", trained, "--train.device", "cpu", *options)["finished"]
    scores = run("evaluate", trained)
    assert scores["dataset"]["partial"]
    assert np.isfinite(scores["iou" if recipe.evaluate.task == "foreground" else "ari_fg"])
