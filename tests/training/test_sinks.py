"""TensorBoard and W&B show what the log holds; what is missing is said first, what fails later ends no training."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from boqsa.errors import InputError
from boqsa.recipes import Recipe
from boqsa.training import sinks
from boqsa.training.log import Log, read_log
from boqsa.training.loop import train
from boqsa.training.sinks import WANDB, open_sink, require_sinks, scalars

PICTURE = Image.new("RGB", (6, 4), (255, 0, 0))


class FakeWandb(ModuleType):
    """Records what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def init(self, **options: Any) -> Any:
        self.started.append(options)

        def finish() -> None:
            self.finished += 1

        return SimpleNamespace(
            id=options["id"],
            project=options["project"],
            entity="somebody",
            define_metric=lambda *names, **_: None,
            log=self.logged.append,
            finish=finish,
        )

    def Image(self, picture: Image.Image) -> tuple[str, tuple[int, int]]:
        return "picture", picture.size


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    fake.__spec__ = importlib.util.spec_from_loader("wandb", loader=None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


def test_numbers_of_rows_become_curves() -> None:
    row = {
        "loss": 0.5,
        "dead_slots": 0,
        "slot_share": [0.25, 0.75],
        "verdict": "flat",
        "warnings": ["no"],
        "half": None,
    }
    assert scalars("diagnostics", row) == {
        "diagnostics/loss": 0.5,
        "diagnostics/dead_slots": 0.0,
        "diagnostics/slot_share/0": 0.25,
        "diagnostics/slot_share/1": 0.75,
    }
    assert scalars("evaluation", {"ari_fg": 1}) == {"validation/ari_fg": 1.0}
    assert scalars("started", {"threads": 2}) == {}


@pytest.mark.parametrize(("names", "message"), [(("comet",), "no log 'comet'"), (("wandb",), r"boqsa\[wandb\]")])
def test_what_cannot_be_opened_is_said_before_anything_is_made(
    tmp_path: Path,
    recipe: Recipe,
    train_data: Any,
    names: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run", train_data=train_data, log_to=names)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_asked_for_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    require_sinks(())
    assert not Log(tmp_path).wants_pictures


def test_wandb_gets_the_rows_the_recipe_and_pictures(tmp_path: Path, recipe: Recipe, wandb: FakeWandb) -> None:
    log = Log(tmp_path, ["wandb", "wandb"])
    log.open(recipe, 0, pytest.fail)
    log.append("started", 0, threads=1)
    log.append("step", 3, loss=0.5, query_gradient_norm=None)
    log.picture("masks", 3, PICTURE)
    log.close()
    (started,) = wandb.started
    assert started["project"] == "boqsa"
    assert started["config"]["recipe_hash"] == recipe.hash
    assert wandb.logged == [{"step": 3, "train/loss": 0.5}, {"step": 3, "masks": ("picture", (6, 4))}]
    assert wandb.finished == 1


def test_wandb_goes_on_with_the_run_of_the_folder(tmp_path: Path, recipe: Recipe, wandb: FakeWandb) -> None:
    open_sink("wandb", tmp_path, recipe=recipe, start=0)
    open_sink("wandb", tmp_path, recipe=recipe, start=3)
    first, second = wandb.started
    assert first["id"] == second["id"]
    assert second["entity"] == "somebody"
    (tmp_path / WANDB).write_text("[half")
    open_sink("wandb", tmp_path, recipe=recipe, start=3)
    assert wandb.started[2]["id"] != first["id"]


def test_a_pipe_where_the_run_of_wandb_is_named_is_passed_over(
    tmp_path: Path, recipe: Recipe, wandb: FakeWandb
) -> None:
    os.mkfifo(tmp_path / WANDB)  # opening it would wait for ever
    open_sink("wandb", tmp_path, recipe=recipe, start=3)
    assert wandb.started[0]["id"]
    assert json.loads((tmp_path / WANDB).read_text()), "the file stands in its place"


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_sink_that_fails_is_said_once_and_the_run_goes_on(
    tmp_path: Path, recipe: Recipe, both: dict[str, Any], wandb: FakeWandb, where: str, capsys: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("the network is gone\nfor good")

    plain_init = wandb.init
    wandb.init = (
        fail
        if where == "init"
        else lambda **options: SimpleNamespace(  # type: ignore[method-assign]
            **(vars(plain_init(**options)) | {where: fail})
        )
    )
    assert train(recipe, tmp_path / "run", **both, log_to=["wandb"])
    assert [row["event"] for row in read_log(tmp_path / "run")][-1] == "finished"
    assert capsys.readouterr().err.count("wandb failed (the network is gone); the run goes on without it") == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("shapes do not match")])
def test_a_picture_that_cannot_be_drawn_ends_the_pictures_alone(
    tmp_path: Path,
    recipe: Recipe,
    both: dict[str, Any],
    wandb: FakeWandb,
    error: Exception,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("boqsa.training.loop.draw_scenes", fail)
    assert train(recipe, tmp_path / "run", **both, log_to=["wandb"])
    said = capsys.readouterr().err
    assert said.count("drawing a picture failed") == 1, "and there were two evaluations"
    assert str(error) in said
    train(recipe, tmp_path / "without", **both)
    assert same_numbers(read_log(tmp_path / "run"), read_log(tmp_path / "without"))
    assert len([row for row in wandb.logged if "validation/loss" in row]) == 2, "the sink itself goes on"


def test_sinks_leave_no_trace_in_the_recipe_and_the_log(
    tmp_path: Path, recipe: Recipe, both: dict[str, Any], wandb: FakeWandb
) -> None:
    train(recipe, tmp_path / "with", **both, log_to=["wandb"])
    train(recipe, tmp_path / "without", **both)
    texts = [(tmp_path / name / "recipe.json").read_text() for name in ("with", "without")]
    assert texts[0] == texts[1]
    assert same_numbers(read_log(tmp_path / "with"), read_log(tmp_path / "without"))
    pictures = [row for row in wandb.logged if "masks" in row]
    assert [row["step"] for row in pictures] == [6, 12]


def same_numbers(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    times = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in times} for row in first] == [
        {k: v for k, v in row.items() if k not in times} for row in second
    ]


@pytest.fixture
def both(train_data: Any, validation_data: Any) -> dict[str, Any]:
    return {"train_data": train_data, "validation_data": validation_data}


def curves_of(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_shows_the_numbers_of_the_log_and_pictures(
    tmp_path: Path, recipe: Recipe, both: dict[str, Any]
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    train(recipe, tmp_path / "run", **both, log_to=["tensorboard"])
    events = curves_of(tmp_path / "run" / "tensorboard")
    losses = {row["step"]: row["loss"] for row in read_log(tmp_path / "run") if row["event"] == "step"}
    assert {point.step: point.value for point in events.Scalars("train/loss")} == pytest.approx(losses, rel=1e-6)
    assert {"validation/ari_fg", "diagnostics/update_spectral_norm", "diagnostics/slot_share/2"} <= set(
        events.Tags()["scalars"]
    )
    assert [picture.step for picture in events.Images("masks")] == [6, 12]


def test_tensorboard_hides_what_a_killed_process_showed_past_the_checkpoint(tmp_path: Path, recipe: Recipe) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")

    def write(start: int, steps: range) -> None:
        log = Log(tmp_path, ["tensorboard"])
        log.open(recipe, start, pytest.fail)
        for step in steps:
            log.append("step", step, loss=float(start))
        log.close()

    write(0, range(1, 9))
    write(4, range(5, 7))
    points = curves_of(tmp_path / "tensorboard").Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 4), (6, 4)]


def test_wandb_itself_writes_a_run_without_a_network(
    tmp_path: Path, recipe: Recipe, both: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(recipe, tmp_path / "run", **both, log_to=["wandb"])
    identity = json.loads((tmp_path / "run" / WANDB).read_text())["id"]
    assert list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
