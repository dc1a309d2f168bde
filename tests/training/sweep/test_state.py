"""How far a planned run is, and that one process at a time has it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boqsa.atomic import one_process
from boqsa.errors import BusyError, RunError
from boqsa.training.resume import LOCK
from boqsa.training.sweep import PlannedRun, state_of_planned
from boqsa.training.sweep.state import claimed, is_done, is_held
from boqsa.training.sweep.worker import work_on


def test_states_from_nothing_to_evaluated(sweep: Path, runs: list[PlannedRun]) -> None:
    run = runs[0]
    state = state_of_planned(sweep, run)
    assert (state.step, state.total, state.finished) == (0, 12, False)
    work_on(sweep, run)
    state = state_of_planned(sweep, run)
    assert (state.step, state.finished, state.evaluated) == (12, True, False)
    assert is_done(state, evaluate=False)
    assert not is_done(state, evaluate=True)
    work_on(sweep, run, evaluate=True)
    assert is_done(state_of_planned(sweep, run), evaluate=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics: metrics["scores"]["last"].update(step=8),
        lambda metrics: metrics.update(recipe_hash="0" * 12),
        lambda metrics: metrics.pop("scores"),
    ],
    ids=["of an earlier step", "of another recipe", "without scores"],
)
def test_scores_of_something_else_do_not_count(sweep: Path, runs: list[PlannedRun], change: Any) -> None:
    work_on(sweep, runs[0], evaluate=True)
    path = runs[0].folder(sweep) / "metrics.json"
    whole = path.read_text()
    metrics = json.loads(whole)
    change(metrics)
    for text in (json.dumps(metrics), whole[:-9], "[]"):
        path.write_text(text)
        assert not state_of_planned(sweep, runs[0]).evaluated
    assert work_on(sweep, runs[0], evaluate=True)
    assert is_done(state_of_planned(sweep, runs[0]), evaluate=True)
    assert json.loads(path.read_text())["scores"]["last"]["step"] == 12


def test_a_folder_of_another_recipe_is_refused(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0])
    other = replace(runs[0], recipe=replace(runs[0].recipe, seed=99))
    with pytest.raises(RunError, match="seed: 0 -> 99"):
        state_of_planned(sweep, other)
    stranger = runs[1].folder(sweep)
    stranger.mkdir()
    (stranger / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="is not a run folder"):
        state_of_planned(sweep, runs[1])


def test_a_damaged_checkpoint_is_not_finished(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0])
    for model in runs[0].folder(sweep).rglob("model.safetensors"):
        model.write_bytes(model.read_bytes()[:-1])
    state = state_of_planned(sweep, runs[0])
    assert not state.finished
    assert "damaged" in (state.damage or "")


def test_a_claim_keeps_others_out_and_ends(sweep: Path, runs: list[PlannedRun]) -> None:
    assert not is_held(sweep, runs[0])
    with claimed(sweep, runs[0]):
        assert is_held(sweep, runs[0])
        assert not is_held(sweep, runs[1])
        with pytest.raises(BusyError), claimed(sweep, runs[0]):
            pytest.fail("the body must not run")
        assert is_held(sweep, runs[0]), "who was refused must not end the claim"
    assert not is_held(sweep, runs[0])


def test_a_training_by_hand_holds_a_run_too(sweep: Path, runs: list[PlannedRun]) -> None:
    folder = runs[0].folder(sweep)
    folder.mkdir()
    with one_process(folder / LOCK, wait=False):
        assert is_held(sweep, runs[0])
        with pytest.raises(BusyError), claimed(sweep, runs[0]):
            pytest.fail("the body must not run")
    assert not is_held(sweep, runs[0])
