"""`boqsa runs` and `boqsa plot` on folders that hold a recipe and a log."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from boqsa.commands import main
from boqsa.recipes import get_recipe


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    demo = get_recipe("demo")
    for seed, score in ((0, 0.5), (1, 0.75)):
        run = tmp_path / f"run{seed}"
        run.mkdir()
        (run / "recipe.json").write_text(replace(demo, seed=seed).to_json())
        rows = [
            {"event": "step", "step": 50, "loss": 0.25, "images_per_second": 99.6},
            {"event": "evaluation", "step": 1000, "loss": 0.125, "ari_fg": score},
            {"event": "stopped", "step": 1000},
        ]
        (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run2").mkdir()
    (tmp_path / "run2" / "recipe.json").write_text("no recipe")
    return tmp_path


def test_the_table_names_the_runs_and_why_one_is_damaged(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["runs", str(runs), "--sort", "ari_fg"]) == 0
    out = capsys.readouterr().out
    places = [out.index(name) for name in ("run1", "run0", "run2")]
    assert places == sorted(places)
    for part in (
        "1000/13000",
        "stopped",
        "0.1250 (0.1250)",
        "ari_fg 0.750 (0.750)",
        " 100 ",
        "recipe.json: the recipe is not JSON",
    ):
        assert part in out


def test_rows_can_be_chosen_and_are_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs), "--state", "stopped", "--recipe", "demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["seed"], row["last"]["ari_fg"]) for row in found] == [("run0", 0, 0.5), ("run1", 1, 0.75)]


def test_one_run_is_no_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs / "run0")]) == 0
    assert "1 run of demo in" in capsys.readouterr().out


def test_a_run_that_cannot_be_read_is_told_in_words(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(run: Path) -> None:
        raise PermissionError(13, "Permission denied", str(run / "log.jsonl"))

    monkeypatch.setattr("boqsa.training.runs.read_log", denied)
    assert main(["runs", str(runs)]) == 0
    out = capsys.readouterr().out
    assert f"run0: cannot read {runs}/run0/log.jsonl (Permission denied); mend its rights or its disk." in out
    assert "Errno" not in out


def test_a_picture_is_written_whole_and_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = runs / "curves.png"
    assert main(["plot", str(runs / "run0"), str(runs / "run1"), "--out", str(picture)]) == 0
    assert capsys.readouterr().out == f"run0, run1: {picture}\n"
    Image.open(picture).verify()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "{}/run0", "--out", "{}/curves.gif"], "neither .png nor .svg"),
        (["plot", "{}/run0", "--metric", "iou", "--out", "{}/c.png"], "no run has a curve of 'iou'"),
        (["plot", "{}", "--out", "{}/c.png"], "is not a run folder"),
        (["plot", "--out", "{}/c.png"], "name at least one run folder"),
        (["runs", "{}/run0", "--sort", "iou"], "no run has a value 'iou'"),
        (["runs", "{}", "--sort", "iuo", "--recipe", "none"], "there are run, state"),
        (["runs", "{}/nothing"], "there is no folder"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    runs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(runs) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in runs.iterdir()) == ["run0", "run1", "run2"]
