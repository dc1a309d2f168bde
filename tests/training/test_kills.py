"""Dead at the n-th operation on files, for every n, a run goes on and ends as if nothing had happened.

In one process: from the n-th operation on every one of them raises, as for a process that is gone. The same with real
processes and SIGKILL stands in tests/system.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from boqsa.data import PackedDataset
from boqsa.errors import RunError
from boqsa.inference.run import read_manifest
from boqsa.recipes import Recipe
from boqsa.training.log import Log, read_log
from boqsa.training.loop import state_of, train

OPERATIONS = ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir")
EVENTS = ("started", "step", "evaluation", "diagnostics", "finished")
TIMES = ("images_per_second", "seconds")


class Dead(BaseException):
    """Stands for the end of the process."""


class Life:
    """How many operations are left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Dead


@contextmanager
def mortal(life: Life) -> Iterator[None]:
    """Inside, operations on files cost life; a row of the log that one dies of is half written."""

    def costly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            life.spend()
            return call(*arguments, **options)

        return counted

    append, write_bytes = Log.append, Path.write_bytes

    def append_or_half(log: Log, *arguments: Any, **values: Any) -> None:
        try:
            life.spend()
        except Dead:
            if life.left == -1:
                with open(log.path, "a", encoding="utf-8") as file:
                    file.write('{"event": "st')
            raise
        append(log, *arguments, **values)

    def write_or_half(path: Path, content: Any) -> int:
        if life.left == 0:
            write_bytes(path, bytes(content)[: len(content) // 2])
        life.spend()
        return write_bytes(path, content)

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, costly(getattr(os, name)))
        patch.setattr(Log, "append", append_or_half)
        patch.setattr(Path, "write_bytes", write_or_half)
        yield


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the kernel's, which frees it when a process dies; here nobody dies."""

    class NoLock:
        def __init__(self, path: Path) -> None:
            pass

        def acquire(self, timeout: float) -> None:
            pass

        def release(self) -> None:
            pass

    monkeypatch.setattr("boqsa.atomic.FileLock", NoLock)


def outcome(run: Path) -> tuple[list[dict[str, Any]], dict[str, tuple[int, bytes]]]:
    """Log and weights, without what a clock decides."""
    rows = [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] in EVENTS
    ]
    weights = {
        path.parent.name: (read_manifest(path.parent)["step"], path.read_bytes())
        for path in (run / "checkpoints").glob("[!.]*/model.safetensors")
    }
    return rows, weights


THIRDS = [0, pytest.param(1, marks=pytest.mark.full), pytest.param(2, marks=pytest.mark.full)]


@pytest.mark.parametrize("third", THIRDS)
def test_dead_at_every_operation_and_resumed(
    *,
    third: int,
    tmp_path: Path,
    recipe: Recipe,
    changed: Callable[..., Recipe],
    train_data: PackedDataset,
    validation_data: PackedDataset,
    unlocked: None,
) -> None:
    fields = {"steps": 3, "checkpoint_every": 1, "evaluate_every": 3, "log_every": 2}
    recipe = changed(recipe, train=fields, evaluate={"validation_limit": 2})
    both = {"train_data": train_data, "validation_data": validation_data}
    train(recipe, tmp_path / "whole", **both)
    whole = outcome(tmp_path / "whole")
    assert set(whole[1]) == {"last", "last-1", "best_loss", "best_ari_fg"}

    total = Life(10_000)
    with mortal(total):
        train(recipe, tmp_path / "counted", **both)
    operations = 10_000 - total.left
    assert operations > 60
    for moment in range(third, operations, 3):
        run = tmp_path / str(moment)
        with mortal(Life(moment)), suppress(Dead):
            train(recipe, run, **both)
            pytest.fail("it was to die")
        finished = (run / "recipe.json").exists() and state_of(run) == (3, 3)
        # A second death, while the first one is mended; where there was nothing left to do the run is finished.
        with mortal(Life(moment % 7)), suppress(Dead), suppress(RunError):
            train(recipe, run, **both)
        with suppress(RunError):
            train(recipe, run, **both)
        assert outcome(run) == whole, f"dead at operation {moment} of {operations}"
        # A run that died when all was written but the oldest checkpoint not deleted yet has nobody to do that.
        allowed = {".previous-last-1"} if finished else set()
        assert {path.name for path in run.rglob(".*")} <= allowed, f"dead at operation {moment}"
