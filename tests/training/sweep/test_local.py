"""The local engine: how many at a time, on what, and what an exit code means. Its processes: tests/system."""

import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from boqsa.errors import RecipeError
from boqsa.training.sweep import LocalEngine, PlannedRun
from boqsa.training.sweep import local as local_module
from boqsa.training.sweep.engine import Outcome
from boqsa.training.sweep.local import ended, share_out, visible_gpus


@pytest.mark.parametrize(
    ("cores", "gpus", "runs", "given", "expected"),
    [
        (16, 0, 100, {}, (16, 1)),
        (16, 0, 3, {}, (3, 5)),
        (16, 0, 100, {"threads": 4}, (4, 4)),
        (16, 0, 100, {"workers": 4}, (4, 4)),
        (16, 0, 100, {"workers": 2, "threads": 3}, (2, 3)),
        (2, 0, 100, {"threads": 4}, (1, 4)),
        (2, 0, 100, {"workers": 5}, (5, 1)),
        (16, 4, 100, {}, (4, 4)),
        (16, 4, 2, {}, (2, 8)),
        (1, 0, 1, {}, (1, 1)),
    ],
)
def test_cores_and_gpus_are_shared_out(
    cores: int, gpus: int, runs: int, given: dict[str, int], expected: tuple[int, int]
) -> None:
    assert share_out(cores, gpus, runs, **given) == expected


@pytest.mark.parametrize("given", [{"workers": 0}, {"threads": -1}])
def test_less_than_one_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="must be at least 1"):
        LocalEngine(3, **given)


def test_the_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert visible_gpus() == ["5", "3"]
    monkeypatch.setattr(local_module.torch.cuda, "device_count", lambda: 0)
    assert visible_gpus() == []


def test_what_an_exit_code_means() -> None:
    for outcome in Outcome:
        assert ended(outcome.value, "words").outcome is outcome
    assert ended(0, "words").text == ""
    assert ended(1, "words").text == "words"
    assert ended(99, "words").outcome is Outcome.BROKEN
    killed = ended(-signal.SIGKILL, "step 5")
    assert killed.outcome is Outcome.BROKEN
    assert killed.text == "step 5\nkilled by SIGKILL (out of memory?)"
    assert ended(-signal.SIGTERM, "").outcome is Outcome.STOPPED


def test_the_last_words_are_those_of_this_attempt(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    console.write_text("an earlier attempt\n")
    start = console.stat().st_size
    assert local_module._tail(console, start) == ""
    with open(console, "a") as file:
        file.write("one\n\ntwo\nthree\nfour\n")
    assert local_module._tail(console, start) == "two\nthree\nfour"


class _Process:
    """Stands for a started process and keeps how it was started."""

    started: ClassVar[list["_Process"]] = []

    def __init__(self, command: list[str], *, env: dict[str, str], **_: Any) -> None:
        self.command, self.env = command, env
        self.returncode: int | None = None
        self.started.append(self)

    def poll(self) -> int | None:
        return self.returncode


def test_each_process_has_a_gpu_and_threads_of_its_own(
    sweep: Path, runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "visible_gpus", lambda: ["5", "3"])
    monkeypatch.setattr(local_module, "cores", lambda: 8)
    monkeypatch.setattr(local_module.subprocess, "Popen", _Process)
    monkeypatch.setattr(_Process, "started", [])
    engine = LocalEngine(3)
    assert engine.at_once == 2
    jobs = [engine.start(sweep, run, evaluate=False) for run in runs[:2]]
    assert [process.env["CUDA_VISIBLE_DEVICES"] for process in _Process.started] == ["5", "3"]
    assert [process.env["OMP_NUM_THREADS"] for process in _Process.started] == ["4", "4"]
    _Process.started[1].returncode = 0
    assert [job.poll() is not None for job in jobs] == [False, True]
    engine.start(sweep, runs[2], evaluate=True)
    third = _Process.started[2]
    assert third.env["CUDA_VISIBLE_DEVICES"] == "3", "the third takes the place of the one that has ended"
    assert third.command[-1] == "--evaluate"
    assert runs[2].name in third.command
