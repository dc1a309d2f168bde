"""Means and spreads over seeds, on logs made by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boqsa.recipes import Recipe
from boqsa.training.sweep import PlannedRun, RunResult, make_plan, over_seeds, read_results
from boqsa.training.sweep.summary import Spread, last_evaluation
from boqsa.training.sweep.worker import work_on

Row = Callable[..., RunResult]


@pytest.fixture
def row() -> Row:
    """`row("setting", seed, loss=1.0)` is a finished run with these held-out scores."""

    def make(setting: str, seed: int, *, finished: bool = True, **scores: float) -> RunResult:
        return RunResult(
            name=f"{setting}-{seed}",
            setting=setting,
            seed=seed,
            recipe_hash="0",
            step=12 if finished else 3,
            steps=12,
            finished=finished,
            held_out=scores,
        )

    return make


def test_mean_and_sample_standard_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])
    assert (spread.n, spread.mean) == (3, 3.0)
    assert spread.std == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert spread.text() == "3.000 ± 2.646"
    assert spread.text(5) == "3.00000 ± 2.64575"


def test_one_run_has_no_spread() -> None:
    assert Spread.of([0.5]) == Spread(1, 0.5, None)
    assert Spread.of([0.5]).text() == "0.500"


def test_settings_keep_their_order_and_unfinished_runs_do_not_count(row: Row) -> None:
    results = [
        row("b", 0, loss=1.0, ari=0.2),
        row("a", 0, loss=5.0),
        row("b", 1, loss=3.0, ari=0.4),
        row("b", 2, finished=False, loss=100.0),
        row("c", 0, finished=False),
    ]
    b, a, c = over_seeds(results)
    assert (b.setting, b.seeds, b.runs) == ("b", (0, 1), 3)
    assert b.held_out["loss"] == Spread(2, 2.0, pytest.approx(2**0.5))
    assert a.held_out["loss"] == Spread(1, 5.0, None)
    assert (c.setting, c.seeds, c.runs, c.held_out) == ("c", (), 1, {})


def test_a_score_that_is_missing_lowers_n(row: Row) -> None:
    (summary,) = over_seeds([row("a", 0, loss=1.0, ari=0.5), row("a", 1, loss=2.0)])
    assert summary.held_out["ari"] == Spread(1, 0.5, None)
    assert summary.held_out["loss"].n == 2


def test_the_last_evaluation_counts_and_null_is_no_score() -> None:
    rows: list[dict[str, Any]] = [
        {"event": "evaluation", "step": 6, "loss": 2.0, "ari": 0.1},
        {"event": "evaluation", "step": 12, "loss": 1.0, "ari": None},
        {"event": "finished", "step": 12, "seconds": 3.0},
    ]
    assert last_evaluation(rows) == {"loss": 1.0}
    assert last_evaluation(rows[2:]) == {}


def test_folders_are_read(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0], evaluate=True)
    work_on(sweep, runs[1])
    log = runs[1].folder(sweep) / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    first, second, third = read_results(sweep, runs)
    assert (first.finished, first.step, first.steps, first.seed) == (True, 12, 12, 0)
    metrics = json.loads((runs[0].folder(sweep) / "metrics.json").read_text())
    assert first.test["loss"] == metrics["scores"]["last"]["loss"]
    assert first.test["ari_fg"] == metrics["ari_fg"]
    assert second.held_out["loss"] == [row for row in rows if row["event"] == "evaluation"][-1]["loss"]
    assert second.test == {}
    assert (third.finished, third.step, third.held_out) == (False, 0, {})


def test_damage_is_a_row_and_no_crash(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0], evaluate=True)
    (runs[0].folder(sweep) / "metrics.json").write_text("{")
    runs[1].folder(sweep).mkdir()
    (runs[1].folder(sweep) / "recipe.json").write_text("no recipe")
    first, second, _ = read_results(sweep, runs)
    assert first.finished
    assert "metrics.json is damaged" in (first.damage or "")
    assert "not JSON" in (second.damage or "")
    assert not second.finished


def test_runs_with_other_fixed_fields_are_other_settings(recipe: Recipe) -> None:
    longer = replace(recipe, name="longer", train=replace(recipe.train, steps=24))
    plan = make_plan([recipe, longer], seeds=[0, 1])
    assert len({run.setting for run in plan}) == 2
