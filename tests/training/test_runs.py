"""The table of runs, made of folders that were written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boqsa.atomic import one_process
from boqsa.errors import InputError, RunError
from boqsa.recipes import Recipe
from boqsa.reports.comparison import HELD_OUT_LOSS
from boqsa.training.resume import LOCK
from boqsa.training.runs import curves_to_compare, find_runs, sort_runs, summarise

Change = Callable[..., Recipe]


def rows(scores: list[float], *, last: str = "finished") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"event": "started", "step": 0, "data": "f"}]
    for at, score in enumerate(scores, start=1):
        found += [
            {"event": "step", "step": 6 * at, "loss": 0.5, "images_per_second": 100.0 * at},
            {"event": "evaluation", "step": 6 * at, "loss": 1 - score, "ari_fg": score, "ari": score / 2},
            {"event": "diagnostics", "step": 6 * at, "verdict": "healthy"},
        ]
    return [*found, {"event": last, "step": 6 * len(scores), "seconds": 9.0}]


def write_run(folder: Path, recipe: Recipe, log: list[Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(recipe.to_json())
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder


@pytest.fixture
def folder(tmp_path: Path, recipe: Recipe, changed: Change) -> Path:
    """Four runs: two finished ones, one stopped, one of another recipe; and two damaged ones."""
    write_run(tmp_path / "a", recipe, rows([0.2, 0.6, 0.4]))
    write_run(tmp_path / "deep" / "b", changed(recipe, seed=4, train={"learning_rate": 0.5}), rows([0.9]))
    write_run(tmp_path / "c", changed(recipe, train={"threads": 3}), [*rows([0.3], last="stopped"), 7, {"event": "x"}])
    write_run(tmp_path / "d", changed(recipe, name="other", model={"num_slots": 7}), [])
    write_run(tmp_path / "e", recipe, []).joinpath("recipe.json").write_text("{")
    damaged = write_run(tmp_path / "f", recipe, rows([0.3])) / "checkpoints" / "last"
    damaged.mkdir(parents=True)
    (damaged / "manifest.json").write_text("{}")
    return tmp_path


def test_runs_are_found_by_their_recipe_two_levels_down(folder: Path, recipe: Recipe) -> None:
    write_run(folder / "too" / "far" / "down", recipe, [])
    assert [str(run.relative_to(folder)) for run in find_runs(folder)] == ["a", "c", "d", "deep/b", "e", "f"]
    assert find_runs(folder / "a") == [folder / "a"]


def test_every_run_has_a_row_damaged_or_not(folder: Path) -> None:
    table = {summary.run: summary for summary in summarise(folder)}
    assert {name: summary.state for name, summary in table.items()} == {
        "a": "finished",
        "c": "stopped",
        "d": "stopped",
        "deep/b": "finished",
        "e": "damaged",
        "f": "damaged",
    }
    a = table["a"]
    assert (a.recipe, a.seed, a.step, a.steps, a.verdict, a.seconds) == ("tiny", 3, 18, 12, "healthy", 9.0)
    assert a.last == {"loss": 0.6, "ari_fg": 0.4, "ari": 0.2}
    assert (a.metric, a.best_loss, a.best_metric, a.images_per_second) == ("ari_fg", 0.4, 0.6, 200)
    assert (table["d"].step, table["d"].last, table["d"].verdict) == (0, {}, None)
    assert "not JSON" in table["e"].reason
    assert "not a whole checkpoint" in table["f"].reason
    assert table["f"].last["ari_fg"] == 0.3


def test_differences_are_of_runs_of_one_recipe_and_not_of_places(folder: Path) -> None:
    differs = {summary.run: summary.differs for summary in summarise(folder)}
    assert differs["a"] == differs["c"] == {"train.learning_rate": 1e-3}
    assert differs["deep/b"] == {"train.learning_rate": 0.5}
    assert differs["d"] == {}


def test_a_run_whose_lock_is_held_is_running(folder: Path) -> None:
    with one_process(folder / "f" / LOCK, wait=False):
        assert summarise(folder / "f")[0].state == "running"
    assert summarise(folder / "f")[0].state == "damaged"


def test_a_diverged_run_says_so(tmp_path: Path, recipe: Recipe) -> None:
    write_run(tmp_path / "a", recipe, rows([0.2], last="diverged"))
    assert summarise(tmp_path)[0].state == "diverged"


def test_sorting_puts_the_best_first_and_what_has_none_last(folder: Path) -> None:
    table = summarise(folder)

    def order(by: str) -> list[str]:
        return [summary.run for summary in sort_runs(table, by)]

    assert order("ari_fg") == ["deep/b", "a", "c", "f", "d", "e"]
    assert order("loss") == ["deep/b", "a", "c", "f", "d", "e"]
    assert order("best_metric") == ["deep/b", "a", "c", "f", "d", "e"]
    assert order("images_per_second")[0] == "a"
    assert order("run")[-1] == "f"
    with pytest.raises(InputError, match=r"'iou' to sort by; there are .*seed.*ari_fg"):
        sort_runs(table, "iou")


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_runs_is_refused(tmp_path: Path, make: bool) -> None:
    target = tmp_path / "empty"
    if make:
        target.mkdir()
    with pytest.raises(InputError, match="no run in" if make else "no folder"):
        find_runs(target)


def test_curves_are_named_by_folder_or_by_path(folder: Path, recipe: Recipe) -> None:
    write_run(folder / "more" / "a", recipe, rows([0.1]))
    logs, bands = curves_to_compare([folder / "a", folder / "c", folder / "more" / "a", folder / "c"])
    assert list(logs) == [str(folder / "a"), "c", str(folder / "more" / "a")]
    assert bands == {}  # no band was measured for this recipe
    with pytest.raises(RunError, match="not a run folder"):
        curves_to_compare([folder])


def test_runs_of_the_demo_stand_before_its_band(tmp_path: Path) -> None:
    from boqsa.recipes import get_recipe

    run = write_run(tmp_path / "a", get_recipe("demo"), rows([0.2]))
    _, bands = curves_to_compare([run])
    assert {HELD_OUT_LOSS, "ari_fg"} <= bands.keys()
    assert bands["ari_fg"].low[-1] < bands["ari_fg"].high[-1]
    then = rows([0.2])
    then[0]["identity"] = "renderer 0"  # and not today's, which the band is of
    assert curves_to_compare([write_run(tmp_path / "old", get_recipe("demo"), then)])[1] == {}
    write_run(
        tmp_path / "b", Recipe.from_json((tmp_path / "a" / "recipe.json").read_text().replace("13000", "12000")), []
    )
    assert curves_to_compare([run, tmp_path / "b"])[1] == {}
