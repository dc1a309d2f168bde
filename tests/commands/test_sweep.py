"""`boqsa sweep`: what is typed, what is refused in one line, and what is printed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boqsa.commands import main
from boqsa.commands import sweep as sweep_command
from boqsa.commands.sweep import split_fields
from boqsa.data.packing import write_packed
from boqsa.training.sweep import PlannedRun
from boqsa.training.sweep.engine import Ended, Outcome
from boqsa.training.sweep.worker import work_on


class _Done:
    def __init__(self, end: Ended) -> None:
        self.end = end

    def poll(self) -> Ended:
        return self.end


class _InProcess:
    """An engine without processes; runs of the seeds in `broken` break."""

    at_once = 1
    stops_jobs = True
    broken: frozenset[int] = frozenset()

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> _Done:
        if run.recipe.seed in self.broken:
            return _Done(Ended(Outcome.BROKEN, "Traceback\nMemoryError"))
        return _Done(work_on(sweep, run, threads=1, evaluate=evaluate))


@pytest.fixture(scope="session")
def packed_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random 16x16 images with random masks: 16 train, 8 val, 8 test."""
    generator = np.random.default_rng(0)
    splits = {
        name: (
            generator.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8),
            generator.integers(0, 3, (count, 16, 16), dtype=np.uint8),
        )
        for name, count in (("train", 16), ("val", 8), ("test", 8))
    }
    folder = tmp_path_factory.mktemp("noise") / "packed"
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(folder, splits, task="multi-object", **words)
    return folder


@pytest.fixture
def typed(packed_noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sweep of two seeds of a tiny recipe, four steps each."""
    monkeypatch.setattr(sweep_command, "LocalEngine", _InProcess)
    fields = {
        "data.root": packed_noise,
        "data.image-size": 16,
        "model.num-slots": 3,
        "model.slot-size": 8,
        "model.mlp-size": 16,
        "model.encoder-channels": 8,
        "model.encoder-strides": 2,
        "model.decoder-channels": 8,
        "model.decoder-strides": 2,
        "train.steps": 4,
        "train.batch-size": 8,
        "train.evaluate-every": 2,
        "train.checkpoint-every": 2,
    }
    arguments = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    return ["sweep", "objectsroom_mixture_small", "--out", str(tmp_path / "out"), "--seeds", "0", "1", *arguments]


def test_fields_are_told_from_options() -> None:
    line = "demo --out d --train.learning-rate 1e-3 --seeds 0 1 --model.encoder-channels 8 16 --train.flip"
    more = "--slurm.partition long --vary train.steps 1 2"
    own, fields = split_fields([*line.split(), *more.split(), "--data.root=x"])
    assert " ".join(own) == f"demo --out d --seeds 0 1 {more}"
    assert fields == {
        "train.learning_rate": "1e-3",
        "model.encoder_channels": "8 16",
        "train.flip": "true",
        "data.root": "x",
    }
    assert split_fields(["--train.no-flip", "--json"]) == (["--json"], {"train.flip": "false"})


def test_trained_and_summed_up(typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*typed, "--vary", "train.learning-rate", "1e-3", "2e-3", "--json", "--evaluate"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in told["runs"]] == ["finished"] * 4
    assert (told["failed"], told["stopped"]) == ({}, False)
    assert [setting["seeds"] for setting in told["settings"]] == [[0, 1], [0, 1]]
    losses = [run["held_out"]["loss"] for run in told["runs"] if run["setting"].endswith("=1e-3")]
    spread = told["settings"][0]["held_out"]["loss"]
    assert (spread["n"], spread["mean"]) == (2, pytest.approx(sum(losses) / 2))
    assert told["settings"][0]["test"]["ari_fg"]["n"] == 2

    assert main(["sweep", "--resume", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("finished before") == 4
    assert "±" in shown.out


def test_a_failure_is_told_at_the_end_and_the_others_are_done(
    typed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_InProcess, "broken", frozenset({0}))
    assert main(typed) == 1
    out = capsys.readouterr().out
    assert "seed0" in out.split("failed:")[0].splitlines()[-1]
    assert "MemoryError" in out
    assert "boqsa sweep --resume" in out
    monkeypatch.setattr(_InProcess, "broken", frozenset())
    assert main(typed) == 0


def test_a_dry_run_shows_the_runs_and_makes_nothing(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(run["seed"], run["state"]) for run in told["runs"]] == [(0, "not started"), (1, "not started")]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train.steps", "3"], "is given twice"),
        (["--train.stepz", "3"], "has no field train.stepz; did you mean train.steps?"),
        (["--trian.steps", "3"], "did you mean train.steps?"),
        (["--vary", "model.num-iterations", "3"], "has no field model.num_iterations"),
        (["--vary", "train.learning-rate", "fast"], "train.learning_rate is 'fast'; expected float."),
        (["--vary", "train.steps", "1"], "both varied and fixed"),
        (["--vary", "seed", "1"], "give seeds as --seeds"),
        (["--vary", "train.flip", "true", "--vary", "train.flip", "false"], "is given twice"),
        (["--resume", "x"], "leave out recipes"),
        (["--retries", "-1"], "--retries is -1"),
        (["--workers", "0", "--dry-run"], "--workers is 0; it must be at least 1."),
        (["--engine", "slurm", "--workers", "-1", "--dry-run"], "--workers is -1"),
        (["--threads-per-worker", "0", "--dry-run"], "--threads-per-worker is 0"),
        (["--vary"], "--vary has no value"),
        (["--vary", "--dry-run"], "--vary has no value"),
        (["--train.init-from", "nowhere", "--dry-run"], "where there is no run folder"),
        (["--train.dvae.tau-steps", "3"], "train.dvae.tau_steps changes nothing in objectsroom_mixture_small"),
        (["--vary", "train.dvae.tau-steps", "3", "4"], "changes nothing in objectsroom_mixture_small"),
        (["--train.precision", "fp8"], "expected one of 'fp32', 'bf16'"),
        (["--engine", "slurm", "--slurm.additional", "x"], "KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_is_made(
    typed: list[str], more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, *more]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_data_that_is_not_there_is_told_before_anything_is_made(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = typed.index("--data.root") + 1
    assert main([*typed[:place], str(tmp_path / "none"), *typed[place + 1 :]]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_folder_of_something_else_is_refused(
    typed: list[str], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = typed.index("--out") + 1
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    for name, message in (("letter.txt", "is a file"), ("run", "holds no plan.json")):
        typed[place] = str(tmp_path / name)
        assert main([*typed, *options]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["letter.txt", "recipe.json", "run"]


def test_weights_that_do_not_fit_are_told_before_anything_is_made(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, "--json"]) == 0
    (run, *_) = [path.parent for path in (tmp_path / "out").glob("*/recipe.json")]
    capsys.readouterr()
    typed[typed.index("--out") + 1] = str(tmp_path / "other")
    typed[typed.index("--model.slot-size") + 1] = "16"
    assert main([*typed, "--train.init-from", str(run)]) == 2
    assert "do not fit this recipe" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_folder_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "demo"]) == 2
    assert "name the folder of the sweep" in capsys.readouterr().err
