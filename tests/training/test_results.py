"""Scoring a run: every checkpoint by name, files in the run folder, other data apart, k-means beside it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.commands import main
from boqsa.commands.evaluate import score_table
from boqsa.data import PackedDataset, builtin, write_packed
from boqsa.errors import BoqsaError, RunError
from boqsa.inference.load import build_model, load, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import DataRecipe, EvaluateRecipe, Recipe, get_recipe
from boqsa.training.evaluation import evaluate
from boqsa.training.results import evaluate_run


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """24 pictures of one or two flat squares, with masks, in three splits."""
    random = np.random.default_rng(0)
    images = np.zeros((24, 3, 16, 16), dtype=np.uint8)
    masks = np.zeros((24, 16, 16), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for label in range(1, random.integers(2, 4)):
            row, column = random.integers(0, 11, size=2)
            image[:, row : row + 5, column : column + 5] = random.integers(100, 256, size=(3, 1, 1))
            mask[row : row + 5, column : column + 5] = label
    pieces = {"train": slice(0, 8), "val": slice(8, 12), "test": slice(12, 24)}
    write_packed(
        tmp_path / "packed",
        {split: (images[piece], masks[piece]) for split, piece in pieces.items()},
        name="arrays",
        source="made by this test",
        licence="none",
        task="multi-object",
        split_rule="in order",
    )
    return tmp_path / "packed"


@pytest.fixture
def run(tmp_path: Path, packed: Path) -> Path:
    """A run folder with two checkpoints of untrained weights."""
    recipe = recipe_for(packed)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RECIPE).write_text(recipe.to_json())
    for seed, name in enumerate(("last", "best_loss")):
        torch.manual_seed(seed)
        write_checkpoint(
            folder / CHECKPOINTS / name,
            build_model(recipe),
            config=model_config(recipe),
            step=7 + seed,
            recipe_hash=recipe.hash,
        )
    return folder


@pytest.fixture
def transformer_run(tmp_path: Path, packed: Path, transformer_recipe: Recipe) -> Path:
    """The same with a transformer model on photographs, and one checkpoint."""
    recipe = replace(
        transformer_recipe,
        data=DataRecipe(name="arrays", root=str(packed), image_size=16),
        evaluate=EvaluateRecipe(task="foreground", select_by="iou"),
    )
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / RECIPE).write_text(recipe.to_json())
    torch.manual_seed(0)
    write_checkpoint(
        folder / CHECKPOINTS / "last",
        build_model(recipe),
        config=model_config(recipe),
        step=5,
        recipe_hash=recipe.hash,
    )
    return folder


def recipe_for(packed: Path) -> Recipe:
    recipe = get_recipe("demo")
    return replace(
        recipe,
        data=DataRecipe(name="arrays", root=str(packed), image_size=16),
        model=replace(
            recipe.model, encoder_channels=(6,), encoder_strides=(1,), decoder_channels=(6,), decoder_strides=(2,)
        ),
    )


@pytest.mark.parametrize(
    ("options", "wrong"), [({"iterations": 0}, "iterations is 0"), ({"device": "gpu"}, "device 'gpu' cannot be used")]
)
def test_wrong_options_are_refused(run: Path, options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(BoqsaError, match=wrong):
        evaluate_run(run, **options)


def test_rows_without_their_numbers_do_not_end_an_evaluation(run: Path) -> None:
    rows = [{"event": "step", "step": 1}, {"event": "step", "step": 2, "images_per_second": "fast"}]
    rows += [{"event": "step", "step": 3, "images_per_second": 5.0}, {"event": "finished", "step": 4}]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = evaluate_run(run)["training"]
    assert training == {"steps": 3, "seconds": None, "images_per_second": 5.0, "started_on": None}


def test_a_command_with_a_path_that_is_no_utf_8_gets_its_report(run: Path) -> None:
    evaluate_run(run, command="boqsa evaluate run --root data\udcff")
    assert "--root data\\udcff" in (run / "report.html").read_text(encoding="utf-8")


def test_every_checkpoint_is_scored_and_last_is_the_headline(run: Path, packed: Path) -> None:
    metrics = evaluate_run(run)
    written = json.loads((run / "metrics.json").read_text())
    assert list(written["scores"]) == ["last", "best_loss"]
    direct = evaluate(load(run), PackedDataset(packed, "test"), recipe_for(packed).evaluate)
    assert written["ari_fg"] == metrics["ari_fg"] == direct["decoder_masks"]["ari_fg"]
    assert written["scores"]["last"]["step"] == 7
    assert written["scores"]["best_loss"]["step"] == 8
    assert written["dataset"]["images"] == 12
    assert (run / "report.html").is_file()
    assert (run / "pictures" / "segmentation.png").is_file()


def test_k_means_stands_beside_the_scores(run: Path) -> None:
    baseline = evaluate_run(run)["baselines"]["k_means"]
    assert baseline["ari_fg"] > 0.5  # flat squares are easy for colours
    assert "best of three position weights" in baseline["what"]


def test_other_split_and_other_iterations_do_not_replace_the_runs_own_scores(run: Path) -> None:
    evaluate_run(run)
    own = (run / "metrics.json").read_text()
    evaluate_run(run, split="val")
    evaluate_run(run, iterations=1)
    assert (run / "metrics.json").read_text() == own
    assert json.loads((run / "metrics_arrays_val.json").read_text())["dataset"]["images"] == 4
    assert json.loads((run / "metrics_iterations1.json").read_text())["iterations"] == 1
    pictures = run / "pictures"
    own_picture = (pictures / "segmentation.png").read_bytes()
    assert (pictures / "segmentation_iterations1.png").read_bytes() != own_picture  # it shows what was scored


def test_moved_data_is_still_the_runs_own(run: Path, packed: Path) -> None:
    moved = packed.rename(packed.with_name("moved"))
    recipe = recipe_for(packed)
    evaluate_run(run, data=replace(recipe.data, root=str(moved)))
    assert (run / "metrics.json").is_file()


def test_command_prints_json_alone_on_stdout(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["scores"]["last"]["reconstruction"]["mse"] > 0


def test_command_prints_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "ARI-FG" in shown
    assert "k-means" in shown


def test_the_best_overlap_of_classes_has_a_column_where_classes_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"ap": 0.5, "mbo": 0.4}
    score_table(
        "instances", "scores", ["checkpoint"], [(["last"], {**scores, "mbo_class": 0.375}), (["other"], scores)]
    )
    assert "mBO of" in (shown := capsys.readouterr().out)
    assert "0.375" in shown
    score_table("multi_object", "scores", ["checkpoint"], [(["last"], {"ari": 0.5, "mbo_class": 0.375})])
    assert "0.375" in capsys.readouterr().out
    score_table("instances", "scores", ["checkpoint"], [(["last"], scores)])
    assert "mBO of" not in capsys.readouterr().out


def test_needed_slots_are_scored_and_their_counting_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--adaptive"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "last, adaptive" in shown
    assert "objects counted wrong by (mean absolute error): adaptive" in shown
    assert "Needed slots alone" in (run / "report.html").read_text(encoding="utf-8")


def test_scenes_of_another_number_of_objects_have_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOQSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "TEST_SCENES", 6)
    recipe = replace(recipe_for(tmp_path), data=DataRecipe(name="scenes", image_size=16))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RECIPE).write_text(recipe.to_json())
    model, config = build_model(recipe), model_config(recipe)
    write_checkpoint(folder / CHECKPOINTS / "last", model, config=config, step=7, recipe_hash=recipe.hash)
    assert main(["evaluate", str(folder), "--scene-objects", "1", "1", "--adaptive"]) == 0
    metrics = json.loads((folder / "metrics_scenes-1-1_test.json").read_text())
    assert metrics["scores"]["last"]["object_count"]["best_constant"] == 0  # one object each
    assert not (folder / "metrics.json").exists()


def test_needed_slots_of_a_transformer_are_scored(transformer_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(transformer_run), "--adaptive", "--generate", "0"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "last, adaptive" in shown
    assert "objects counted wrong by (mean absolute error): adaptive" in shown


def test_a_transformer_is_scored_and_shown(transformer_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(transformer_run), "--generate", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        *("oracle slot", "off-border slot", "fixed slot", "half splits:", "centre prior:", "k-means:"),
        *("untrained model:", "dVAE (last): mse", "teacher-forced (last): mse", "(last, first 3 images): mse"),
        *("tokens: ", "of 12 used", "state of the slots: "),
    ):
        assert words in shown
    metrics = json.loads((transformer_run / "metrics.json").read_text())
    masks = metrics["scores"]["last"]["attention_masks"]
    for name in ("iou", "dice", "border_iou", "border_dice", "fixed_iou", "fixed_dice"):
        assert metrics[name] == masks[name]
    assert metrics["task"] == "foreground"
    assert metrics["scores"]["last"]["reconstruction_generated"]["images"] == 3
    assert list(metrics["baselines"]) == ["half_splits", "centre_prior", "k_means", "untrained"]
    assert metrics["scores"]["last"]["diagnostics"]["verdict"]
    page = (transformer_run / "report.html").read_text()
    expected = ("Off-border slot: IoU", "half splits", "Teacher-forced", "if asked for, is what", "token by token")
    for words in expected:
        assert words in page


def test_the_pictures_of_a_transformer_have_a_column_for_each_reconstruction(transformer_run: Path) -> None:
    widths = []
    for generated in (0, 1):
        evaluate_run(transformer_run, generated=generated)
        with Image.open(transformer_run / "pictures" / "segmentation.png") as picture:
            widths.append(picture.width)
    assert widths[1] - widths[0] == 96 + 4  # one more column
    scores = json.loads((transformer_run / "metrics.json").read_text())["scores"]["last"]
    assert scores["reconstruction_generated"]["images"] == 1
    with pytest.raises(BoqsaError, match="must be at least 0"):
        evaluate_run(transformer_run, generated=-1)


def test_other_pictures_under_the_same_name_are_not_the_runs_own(run: Path, packed: Path, tmp_path: Path) -> None:
    (run / "log.jsonl").write_text(
        json.dumps({"event": "started", "step": 0, "data": PackedDataset(packed, "test").manifest.fingerprint})
    )
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    write_packed(
        tmp_path / "other",
        {"test": (images, np.ones((4, 16, 16), dtype=np.uint8))},
        name="arrays",
        source="made by this test",
        licence="none",
        task="multi-object",
        split_rule="all",
    )
    data = recipe_for(packed).data
    evaluate_run(run)
    evaluate_run(run, data=replace(data, root=str(tmp_path / "other")))
    assert json.loads((run / "metrics.json").read_text())["dataset"]["images"] == 12
    assert json.loads((run / "metrics_arrays_test.json").read_text())["dataset"]["images"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["RUN", "--split", "dev"], "has no split 'dev'"),
        (["RUN", "--data.root", "nowhere"], "nowhere"),
        (["RUN", "--dataset", "objectsroom"], "data.root is missing"),
        (
            ["RUN", "--dataset", "objectroom"],
            "did you mean objectsroom? `boqsa data list` has them. For one of your own",
        ),
        (["RUN", "--scene-objects", "1", "2"], "--scene-objects is for the built-in scenes"),
        (["RUN", "--dataset", "scenes", "--scene-objects", "5", "1"], "6, as in --scene-objects 2 4."),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *(str(run) if word == "RUN" else word for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_file_where_pictures_go_is_told_before_scoring(run: Path) -> None:
    (run / "pictures").write_text("mine")
    with pytest.raises(RunError, match=r"pictures is a file, .* move it away"):
        evaluate_run(run)
    assert not (run / "metrics.json").exists()
    assert (run / "pictures").read_text() == "mine"


def test_run_without_a_checkpoint_says_how_to_get_one(run: Path) -> None:
    for folder in (run / CHECKPOINTS).iterdir():
        for file in folder.iterdir():
            file.unlink()
    with pytest.raises(BoqsaError, match="no checkpoint"):
        evaluate_run(run)
