"""SIGTERM and Ctrl-C: the step is finished, `last` written, the way on said, exit code 3. Real processes."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boqsa.commands import main
from boqsa.training.log import read_log
from boqsa.training.loop import state_of

PATIENCE_S = 120.0
STEPS = 100_000
FIELDS = ["--train.steps", str(STEPS), "--train.checkpoint-every", str(STEPS), "--train.log-every", "1"]


def interrupted(command: list[str], run: Path, number: signal.Signals, *, after: int) -> tuple[int, str]:
    """Send a signal once so many steps are logged; exit code and what the run said."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any(row["event"] == "step" and row["step"] >= after for row in read_log(run)):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.system
def test_a_signalled_run_can_be_resumed(
    tmp_path: Path, boqsa: list[str], train_arguments: Callable[..., list[str]]
) -> None:
    run = tmp_path / "run"
    code, said = interrupted([*boqsa, *train_arguments(run, *FIELDS)], run, signal.SIGTERM, after=3)
    first = state_of(run)
    assert code == 3
    assert first is not None
    assert 3 <= first[0] < STEPS
    assert f"stopped at step {first[0]}; go on with `boqsa train --resume {run}`" in said
    assert "Traceback" not in said

    resume = [*boqsa, "train", "--resume", str(run)]
    code, said = interrupted(resume, run, signal.SIGINT, after=first[0] + 3)
    second = state_of(run)
    assert code == 3
    assert second is not None
    assert second[0] >= first[0] + 3
    assert f"resuming {run} at step {first[0]} of {STEPS}" in said
    steps = [row["step"] for row in read_log(run) if row["event"] == "step"]
    assert steps == list(range(1, second[0] + 1))
    stops = [(row["step"], row["signal"]) for row in read_log(run) if row["event"] == "stopped"]
    assert stops == [(first[0], "SIGTERM"), (second[0], "SIGINT")]


def test_json_tells_that_a_run_was_stopped(
    tmp_path: Path,
    train_arguments: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import json

    from boqsa.training import step as training_step

    real = training_step.batch_indices

    def terminating(seed: int, step: int, *rest: int) -> object:
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(seed, step, *rest)

    monkeypatch.setattr(training_step, "batch_indices", terminating)
    assert main(train_arguments(tmp_path / "run", "--json", *FIELDS)) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["finished"] is False
    assert told["step"] == 2
