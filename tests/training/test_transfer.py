"""Scoring a run on sets it never saw: which folder, which protocol, what is written, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boqsa.commands import main
from boqsa.data import PackedDataset, write_packed
from boqsa.errors import BoqsaError
from boqsa.inference.load import build_model, load, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import EvaluateRecipe, Recipe
from boqsa.training.evaluation import evaluate
from boqsa.training.results import evaluate_run
from boqsa.training.transfer import transfer

FOREGROUND = EvaluateRecipe(task="foreground", select_by="iou", batch_size=5)


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> Path:
    """A run on many objects with fresh weights, whose data is the packed squares."""
    return make_run(tmp_path / "run", recipe)


def make_run(folder: Path, recipe: Recipe) -> Path:
    torch.manual_seed(0)
    write_checkpoint(
        folder / CHECKPOINTS / "last", build_model(recipe), config=model_config(recipe), step=3, recipe_hash=recipe.hash
    )
    (folder / RECIPE).write_text(recipe.to_json())
    return folder


@pytest.fixture
def root(tmp_path: Path, squares: Callable[..., Any]) -> Path:
    """Packed folders: shapestacks (many objects), dogs (one object), large (32 pixels), bare (no masks), views."""

    def write(name: str, images: Any, masks: Any, task: str = "multi-object") -> None:
        write_packed(
            tmp_path / "sets" / name,
            {"test": (images, masks), "val": (images[:2], None if masks is None else masks[:2])},
            name=name if name in ("shapestacks", "dogs") else "folder",
            source="drawn",
            licence="none",
            task=task,  # type: ignore[arg-type]
            split_rule="drawn",
        )

    images, masks = squares(6, seed=7)
    write("shapestacks", images, masks)
    write("dogs", images[:5], masks[:5].clip(max=1), "foreground")
    write("large", np.zeros((2, 3, 32, 32), np.uint8), np.ones((2, 32, 32), np.uint8))
    write("bare", images, None)
    write("views", images, masks, "views")
    return tmp_path / "sets"


def test_every_set_is_a_row_and_the_runs_own_comes_first(run: Path, root: Path, packed: Path, recipe: Recipe) -> None:
    found = transfer(run, ["shapestacks", "dogs"], root=root)
    written = json.loads((run / "transfer.json").read_text())
    assert written == found
    assert [(row["dataset"], row["own"], row["images"]) for row in found["rows"]] == [
        ("arrays", True, 8),
        ("shapestacks", False, 6),
        ("dogs", False, 5),
    ]
    own, many, one = found["rows"]
    model = load(run)
    for row, folder, protocol in (
        (own, packed, recipe.evaluate),
        (many, root / "shapestacks", recipe.evaluate),
        (one, root / "dogs", FOREGROUND),
    ):
        direct = evaluate(model, PackedDataset(folder, "test"), protocol)["decoder_masks"]
        del direct["left_out"]
        assert row["scores"] == direct
        assert (run / row["metrics"]).is_file()
        assert row["task"] == protocol.task
        assert row["own_protocol"] == (protocol == recipe.evaluate)
    assert own["metrics"] == "metrics.json"
    assert one["metrics"] == "metrics_dogs_test.json"
    assert found["own_left_out"] is None


def test_the_runs_own_data_keep_the_runs_own_protocol(tmp_path: Path, root: Path, packed: Path, recipe: Recipe) -> None:
    """Also where the manifest names another task, and where the set is itself among those asked for."""
    (root / "mine").symlink_to(packed, target_is_directory=True)
    own = make_run(tmp_path / "own", replace(recipe, evaluate=FOREGROUND))
    evaluate_run(own)
    found = transfer(own, ["dogs", "mine"], root=root)
    assert [(row["dataset"], row["own"], row["task"]) for row in found["rows"]] == [
        ("arrays", True, "foreground"),
        ("dogs", False, "foreground"),
    ]
    assert json.loads((own / "metrics.json").read_text())["task"] == "foreground"


def test_instances_are_scored_as_such_on_sets_of_many_objects(
    tmp_path: Path, recipe: Recipe, changed: Callable[..., Recipe], root: Path
) -> None:
    run = make_run(tmp_path / "instances", changed(recipe, evaluate=EvaluateRecipe(task="instances", select_by="ap")))
    rows = transfer(run, ["shapestacks", "dogs"], root=root)["rows"]
    assert [row["task"] for row in rows] == ["instances", "instances", "foreground"]


def test_the_folder_itself_will_do_for_one_name(run: Path, root: Path) -> None:
    rows = transfer(run, ["shapestacks"], root=root / "shapestacks", split="val")["rows"]
    assert [(row["dataset"], row["split"], row["images"]) for row in rows] == [
        ("arrays", "val", 12),
        ("shapestacks", "val", 2),
    ]


def test_what_is_not_at_hand_of_the_runs_own_is_said(
    tmp_path: Path, recipe: Recipe, changed: Callable[..., Recipe], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "alone", changed(recipe, data={"root": str(tmp_path / "gone")}))
    assert main(["transfer", str(run), "--to", "dogs", "--data.root", str(root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the run's own data was left out: " in shown
    assert "gone" in shown
    assert "scored as foreground, which is the task of the data and not of the run" in shown
    assert "dogs, test" in shown


def test_command_prints_a_table_or_json(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", str(run), "--to", "shapestacks", "--data.root", str(root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "arrays, test (own)" in shown
    assert "shapestacks, test" in shown
    assert "scored as multi_object" in shown
    assert "not of the run" not in shown
    assert main(["transfer", str(run), "--to", "shapestacks", "--data.root", str(root), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2


@pytest.mark.parametrize(
    ("names", "with_root", "said"),
    [
        (["shapestacks"], False, "pass --data.root"),
        (["shapestack"], False, "there is no data set 'shapestack'; did you mean shapestacks?"),
        (["absent"], True, "boqsa data list"),
        (["birds"], True, "boqsa data prepare birds"),
        (["shapestacks", "absent"], True, "there is no folder"),
        (["../sets/dogs"], True, "is not the name of a data set"),
        (["large"], True, "32x32 images, the recipe wants 16x16"),
        (["shapestacks", "bare"], True, "has no masks"),
        (["views"], True, "'views'"),
        ([], True, "no data set is named"),
    ],
)
def test_refusals_come_before_anything_is_scored(
    run: Path, root: Path, names: list[str], with_root: bool, said: str
) -> None:
    with pytest.raises(BoqsaError) as caught:
        transfer(run, names, root=root if with_root else None)
    assert said in str(caught.value).replace("Pass", "pass")
    assert "\n" not in str(caught.value)
    assert not list(run.glob("metrics*"))
    assert not (run / "transfer.json").exists()


def test_a_split_that_a_set_lacks_is_refused(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", str(run), "--to", "dogs", "--data.root", str(root), "--split", "dev"]) == 2
    assert "has no split 'dev'" in capsys.readouterr().err
