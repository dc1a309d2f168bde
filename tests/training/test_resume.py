"""Going on: from the newest whole checkpoint, with the same recipe and data, or with others on purpose."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boqsa.commands.evaluate import show_scores
from boqsa.data import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.errors import RunError
from boqsa.inference.load import load
from boqsa.inference.run import checkpoint_names, read_manifest, read_recipe, sha256
from boqsa.recipes import Recipe
from boqsa.training import loop
from boqsa.training import step as training_step
from boqsa.training.log import read_log
from boqsa.training.loop import state_of, train
from boqsa.training.results import evaluate_run
from boqsa.training.resume import kept

Change = Callable[..., Recipe]
TIMES = ("images_per_second", "seconds")


class Killed(BaseException):
    """Stands for the end of the process."""


def train_until(stop: int, *arguments: Any, **options: Any) -> None:
    """Train, and die at the beginning of step `stop`."""
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == stop:
            raise Killed
        return real(seed, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(Killed):
            train(*arguments, **options)


def rows(run: Path, *events: str) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] in events
    ]


def identical(one: Path, other: Path, name: str = "last") -> bool:
    first, second = (load(run, checkpoint=name).state_dict() for run in (one, other))
    return all(torch.equal(first[key], second[key]) for key in first)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x20
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def both(train_data: PackedDataset, validation_data: PackedDataset) -> dict[str, PackedDataset]:
    return {"train_data": train_data, "validation_data": validation_data}


@pytest.fixture
def broken(tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset]) -> Path:
    """A run that died at step 9, with checkpoints of steps 8 and 4."""
    train_until(9, recipe, tmp_path / "broken", **both)
    return tmp_path / "broken"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "trainer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
def test_of_a_damaged_checkpoint_the_one_before_is_used_and_that_is_said(
    *,
    name: str,
    damage: Callable[[Path], None],
    recipe: Recipe,
    both: dict[str, PackedDataset],
    broken: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(broken / "checkpoints" / "last" / name)
    assert state_of(broken) == (4, 12)
    assert train(recipe, broken, **both)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "broken/checkpoints/last is " in said
    assert "going on from the checkpoint before it" in said
    assert "at step 4 of 12" in said
    assert [row["step"] for row in rows(broken, "resumed")] == [4]
    assert "last" in rows(broken, "resumed")[0]["damaged"][0]
    assert [row["step"] for row in rows(broken, "step")] == [3, 6, 9, 12]
    assert (broken / "checkpoints" / ".damaged-last").is_dir()
    assert checkpoint_names(broken) == ["best_ari_fg", "best_loss", "last"]


def test_after_a_fall_back_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], broken: Path
) -> None:
    train(recipe, tmp_path / "whole", **both)
    flip(broken / "checkpoints" / "last" / "model.safetensors")
    train_until(7, recipe, broken, **both)
    assert train(recipe, broken, **both)
    for name in ("last", "last-1", "best_loss", "best_ari_fg"):
        assert identical(tmp_path / "whole", broken, name), name
    events = ("started", "step", "evaluation", "diagnostics", "finished")
    assert rows(broken, *events) == rows(tmp_path / "whole", *events)


def everything(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_where_all_are_damaged_the_run_is_refused_and_left_as_it_is(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path
) -> None:
    for name in ("last", "last-1"):
        flip(broken / "checkpoints" / name / "trainer.pt")
    before = everything(broken)
    with pytest.raises(
        RunError,
        match=r"checkpoints/last is damaged: the sha256 of trainer\.pt .*checkpoints/last-1 is damaged.*, too; .*"
        r"weights of step 6, with --train\.init-from \S+/checkpoints/best_loss and another --out\.$",
    ) as caught:
        train(recipe, broken, **both)
    assert everything(broken) == before
    named = str(caught.value).split("--train.init-from ")[1].split()[0]
    assert train(changed(recipe, train={"init_from": named}), broken.parent / "anew", **both)
    flip(broken / "checkpoints" / "best_loss" / "model.safetensors")
    with pytest.raises(RunError, match=r"--train\.init-from \S+/checkpoints/best_ari_fg "):
        train(recipe, broken, **both)
    shutil.rmtree(broken / "checkpoints" / "best_ari_fg")
    with pytest.raises(RunError, match=r"Train again, into another --out\.$"):
        state_of(broken)


@pytest.mark.parametrize("fall_back", [False, True])
def test_best_checkpoints_of_steps_that_are_not_reached_do_not_stay(
    *, fall_back: bool, tmp_path: Path, recipe: Recipe, changed: Change, both: dict[str, PackedDataset]
) -> None:
    """Evaluations at 3, 6 and 9, each the best so far, checkpoints at 4 and 8, death in step 11."""
    recipe = changed(recipe, train={"evaluate_every": 3})
    train(recipe, tmp_path / "whole", **both)
    broken, checkpoints = tmp_path / "broken", tmp_path / "broken" / "checkpoints"
    train_until(10, recipe, broken, **both)
    names = ("best_loss", "best_ari_fg")
    best = {name: read_manifest(checkpoints / name)["step"] for name in names}
    assert best["best_loss"] == 9
    if fall_back:
        flip(checkpoints / "last" / "model.safetensors")
    start = 4 if fall_back else 8
    train_until(start, recipe, broken, **both)  # goes on from there, and dies before the next step
    for name in names:
        if best[name] > start:
            assert not (checkpoints / name).exists()
        else:
            assert read_manifest(checkpoints / name)["step"] == best[name]
    assert train(recipe, broken, **both)
    for name in ("last", "last-1", *names):
        assert identical(tmp_path / "whole", broken, name), name
        steps = [read_manifest(run / "checkpoints" / name)["step"] for run in (tmp_path / "whole", broken)]
        assert steps[0] == steps[1], name
    events = ("started", "step", "evaluation", "diagnostics", "finished")
    assert rows(broken, *events) == rows(tmp_path / "whole", *events)


def test_before_the_first_checkpoint_nothing_is_best(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], tmp_path: Path
) -> None:
    recipe = changed(recipe, train={"evaluate_every": 2})
    run = tmp_path / "run"
    train_until(3, recipe, run, **both)
    assert (run / "checkpoints" / "best_loss").exists()
    train_until(0, recipe, run, **both)
    assert checkpoint_names(run, older=True) == []


def test_what_is_best_is_found_again_where_the_best_weights_had_to_go(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best weights at step 4 were replaced by those of step 6, which the run that goes on at 4 never finds."""
    recipe = changed(recipe, train={"evaluate_every": 2})
    run = tmp_path / "run"
    train_until(7, recipe, run, **both)
    assert read_manifest(run / "checkpoints" / "best_loss")["step"] == 6
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *args, **options: {**real(*args, **options), "loss": 9.0})
    train_until(7, recipe, run, **both)
    assert read_manifest(run / "checkpoints" / "best_loss")["step"] == 6
    assert rows(run, "evaluation")[-1]["loss"] == 9.0


def test_a_file_in_the_place_of_the_checkpoints_is_refused_and_nothing_is_lost(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path
) -> None:
    shutil.rmtree(broken / "checkpoints")
    (broken / "checkpoints").write_text("mine")
    before = everything(broken)
    with pytest.raises(RunError, match=r"checkpoints is a file.*move it away\.$"):
        train(changed(recipe, train={"steps": 16}), broken, **both, allow_changes=True)
    assert everything(broken) == before


@pytest.mark.parametrize("empty", [False, True])
def test_a_finished_run_without_its_checkpoints_is_not_trained_again(
    empty: bool, recipe: Recipe, both: dict[str, PackedDataset], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(recipe, run, **both)
    shutil.rmtree(run / "checkpoints")
    if empty:
        (run / "checkpoints").mkdir()
    before = everything(run)
    with pytest.raises(RunError, match=r"finished by its log, but its checkpoints are gone; put .* another --out\.$"):
        train(recipe, run, **both)
    assert everything(run) == before


def test_a_death_before_the_only_checkpoint_of_a_short_run_is_no_finished_run(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    short = changed(recipe, train={"steps": 4, "evaluate_every": 9})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", die)
        with pytest.raises(Killed):
            train(short, tmp_path / "run", train_data=both["train_data"])
    assert rows(tmp_path / "run", "finished")
    assert train(short, tmp_path / "run", **both)


def test_looking_at_a_run_unpickles_nothing(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the state of training was read"))
    assert state_of(broken) == (8, 12)
    assert kept(broken).endswith("checkpoints/last holds the last good state, of step 8")


def test_the_state_that_was_read_is_let_go(recipe: Recipe, both: dict[str, PackedDataset], broken: Path) -> None:
    seen: list[Any] = []
    real = loop._Training.run_steps

    def looking(training: Any, *arguments: Any) -> bool:
        seen.append(training.saved.trainer)
        return real(training, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Training, "run_steps", looking)
        assert train(recipe, broken, **both)
    assert seen == [{}]


def test_a_death_between_the_renames_is_mended(recipe: Recipe, both: dict[str, PackedDataset], broken: Path) -> None:
    """`last` is `last-1` already and the new one has no name yet."""
    checkpoints = broken / "checkpoints"
    (checkpoints / "last-1").rename(checkpoints / ".previous-last-1")
    (checkpoints / "last").rename(checkpoints / "last-1")
    assert state_of(broken) == (8, 12)
    assert train(recipe, broken, **both)
    assert [row["step"] for row in rows(broken, "resumed")] == [8]


@pytest.mark.parametrize(("keep", "steps"), [(1, [12]), (2, [12, 8]), (5, [12, 8, 4])])
def test_so_many_are_kept(
    keep: int, steps: list[int], tmp_path: Path, recipe: Recipe, changed: Change, both: dict[str, PackedDataset]
) -> None:
    train(changed(recipe, train={"keep_last": keep}), tmp_path / "run", **both)
    names = ["last", *(f"last-{place}" for place in range(1, 5))]
    folders = [tmp_path / "run" / "checkpoints" / name for name in names]
    assert [read_manifest(folder)["step"] for folder in folders if folder.exists()] == steps
    assert "last-1" not in checkpoint_names(tmp_path / "run")


def test_fewer_from_now_on(recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path) -> None:
    train(changed(recipe, train={"keep_last": 1}), broken, **both, allow_changes=True)
    assert checkpoint_names(broken, older=True) == ["best_ari_fg", "best_loss", "last"]


def test_damaged_best_checkpoints_do_not_hinder(recipe: Recipe, both: dict[str, PackedDataset], broken: Path) -> None:
    for name in ("best_loss", "best_ari_fg"):
        flip(broken / "checkpoints" / name / "model.safetensors")
    scores = evaluate_run(broken)
    assert list(scores["scores"]) == ["last"]
    assert set(scores["damaged"]) == {"best_loss", "best_ari_fg"}
    assert "sha256 of model.safetensors" in scores["damaged"]["best_loss"]
    assert train(recipe, broken, **both)


def test_evaluation_scores_the_one_before_in_place_of_a_damaged_last(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_run(broken)["scores"]["last"]["step"] == 8
    truncate(broken / "checkpoints" / "last" / "model.safetensors")
    scores = evaluate_run(broken)
    assert set(scores["scores"]) == {"last", "best_loss", "best_ari_fg"}
    assert scores["scores"]["last"]["step"] == 4
    assert "last-1, of step 4, is scored in its place" in scores["damaged"]["last"]
    capsys.readouterr()
    show_scores(scores)
    assert "last-1, of step 4, is scored in its place" in capsys.readouterr().out
    truncate(broken / "checkpoints" / "last-1" / "model.safetensors")
    with pytest.raises(RunError, match="checkpoints/last"):
        evaluate_run(broken)


def test_a_changed_recipe_is_refused_with_the_difference_and_taken_if_it_is_meant(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = changed(recipe, train={"steps": 16, "learning_rate": 5e-4})
    with pytest.raises(RunError, match=r"train.steps: 12 -> 16; .*--allow-changes"):
        train(longer, broken, **both)
    assert read_recipe(broken) == recipe
    train_until(10, longer, broken, **both, allow_changes=True)  # dies before its next checkpoint
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"the recipe's hash was {recipe.hash} and is {longer.hash} from here on" in said
    (row,) = rows(broken, "changed")
    assert row["changes"] == ["train.steps: 12 -> 16", "train.learning_rate: 0.001 -> 0.0005"]
    assert (row["step"], row["recipe_before"], row["recipe"]) == (8, recipe.hash, longer.hash)
    assert read_recipe(broken) == longer
    with pytest.raises(RunError, match=r"train\.steps: 16 -> 12"):
        train(recipe, broken, **both)
    assert train(longer, broken, **both), "it was asked for once"
    assert state_of(broken) == (16, 16)
    assert read_manifest(broken / "checkpoints" / "last")["recipe"] == longer.hash
    assert len(rows(broken, "changed")) == 1


def test_a_change_survives_a_fall_back_behind_it(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path
) -> None:
    longer = changed(recipe, train={"steps": 16})
    train_until(10, longer, broken, **both, allow_changes=True)
    flip(broken / "checkpoints" / "last" / "trainer.pt")
    train_until(7, longer, broken, **both)
    assert [row["step"] for row in rows(broken, "changed")] == [8]
    assert train(longer, broken, **both)


def test_a_finished_run_can_be_made_longer(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict[str, PackedDataset]
) -> None:
    train(recipe, tmp_path / "run", **both)
    longer = changed(recipe, train={"steps": 16})
    train(longer, tmp_path / "at once", **both)
    with pytest.raises(RunError, match=r"finished .*--allow-changes --train.steps N"):
        train(recipe, tmp_path / "run", **both)
    assert train(longer, tmp_path / "run", **both, allow_changes=True)
    assert identical(tmp_path / "at once", tmp_path / "run")


def test_what_makes_another_run_cannot_be_changed(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path
) -> None:
    other = changed(recipe, seed=9, train={"steps": 16}, model={"num_slots": 4})
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"model.num_slots: 3 -> 4; seed: 3 -> 9.*--train.init-from"):
        train(other, broken, **both, allow_changes=True)
    assert {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()} == before


def test_other_data_are_refused_with_the_difference_and_taken_if_they_are_meant(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], broken: Path, squares: Callable[..., Any]
) -> None:
    words = {"name": "arrays", "source": "", "licence": "", "task": "multi-object", "split_rule": ""}
    write_packed(tmp_path / "other", {"train": squares(50, seed=8)}, **words)
    other = PackedDataset(tmp_path / "other", "train")
    prints = [data.manifest.fingerprint[:12] for data in (both["train_data"], other)]
    with pytest.raises(RunError, match=rf"40 images with fingerprint {prints[0]} -> 50 images with .* {prints[1]}"):
        train(recipe, broken, train_data=other)
    train_until(10, recipe, broken, train_data=other, allow_changes=True)
    assert rows(broken, "changed")[0]["changes"] == [f"data: {prints[0]} -> {prints[1]}"]
    assert train(recipe, broken, train_data=other), "it was asked for once"
    assert rows(broken, "resumed")[-1]["data"] == other.manifest.fingerprint
    assert len(rows(broken, "changed")) == 1


def test_a_recipe_that_was_put_there_by_hand_is_refused(
    recipe: Recipe, changed: Change, both: dict[str, PackedDataset], broken: Path
) -> None:
    other = changed(recipe, train={"steps": 16})
    (broken / "recipe.json").write_text(other.to_json())
    with pytest.raises(RunError, match=r"is not the recipe that .*last was trained with"):
        train(other, broken, **both)


def test_a_hostile_state_of_training_is_one_line(recipe: Recipe, both: dict[str, PackedDataset], broken: Path) -> None:
    """Both checkpoints hold, with the right checksum, plain data that is no state of this training."""
    shutil.rmtree(broken / "checkpoints" / "last-1")
    folder = broken / "checkpoints" / "last"
    manifest = json.loads((folder / "manifest.json").read_text())
    for state in ({"step": 8}, {"step": 8, "optimizer": {"state": {}, "param_groups": []}, "data": "", "losses": 3}):
        torch.save(state, folder / "trainer.pt")
        manifest["sha256"]["trainer.pt"] = sha256(folder / "trainer.pt")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(RunError, match="holds no state of this training"):
            train(recipe, broken, **both)
