"""Killed at any moment and resumed, a run ends bit-identical to the unbroken one. Real processes, SIGKILL.

The unbroken run is started from the command line. The killed ones are forked from a process that has torch
loaded, which makes a start cheap enough to die nine times; each runs the same command from its beginning.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boqsa.commands import main
from boqsa.training.log import read_log
from boqsa.training.loop import state_of

STEPS = 80
FIELDS = ["--train.steps", str(STEPS), "--train.batch-size", "16", "--train.warmup-steps", "4"]
FIELDS += ["--train.checkpoint-every", "5", "--train.evaluate-every", "10", "--train.log-every", "3"]
PATIENCE_S = 120.0

Moment = Callable[[Path, int], bool]


def logged(run: Path) -> int:
    """The last step that has a row."""
    return max((row["step"] for row in read_log(run) if row["event"] == "step"), default=0)


def evaluated(run: Path) -> int:
    """The last step whose scores have a row."""
    return max((row["step"] for row in read_log(run) if row["event"] == "evaluation"), default=0)


def saved(run: Path) -> int:
    try:
        return int(json.loads((run / "checkpoints" / "last" / "manifest.json").read_text())["step"])
    except OSError:  # not there yet, or just being replaced
        return 0


def at_step(step: int) -> Moment:
    return lambda run, _: saved(run) > 0 and logged(run) >= step


MOMENTS: dict[str, Moment] = {
    "before the first checkpoint": lambda run, _: bool(read_log(run)),
    "with the first checkpoint just written": lambda run, _: saved(run) >= 5,
    "while a checkpoint is written": lambda run, pid: (
        saved(run) >= 10 and (run / "checkpoints" / f".partial-{pid}-last").exists()
    ),
    "some steps later": at_step(24),
    # The row of step 30 is written, and what is scored there not yet; where that was too quick, a little later.
    "while it is evaluated": lambda run, _: logged(run) >= 33 or (logged(run) == 30 and evaluated(run) < 30),
    "while a best checkpoint is written, or later": lambda run, pid: (
        (saved(run) >= 25 and (run / "checkpoints" / f".partial-{pid}-best_loss").exists()) or saved(run) >= 40
    ),
    "between two checkpoints": at_step(48),
    "in the second half": at_step(57),
    "near the end": at_step(66),
}


@pytest.fixture(scope="module")
def forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["boqsa.training", "boqsa.commands.train", "boqsa.commands.console"])
    return context


def run_and_kill(forks: Any, arguments: list[str], run: Path, moment: Moment, delay: float) -> None:
    """Start the command and kill it, without warning, once the moment has come."""
    process = forks.Process(target=main, args=(arguments,))
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    while not moment(run, process.pid):
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL, "the run ended before it could be killed"


def rows(run: Path) -> list[dict[str, Any]]:
    clock = ("images_per_second", "seconds")
    events = ("started", "step", "evaluation", "diagnostics", "finished")
    return [
        {name: value for name, value in row.items() if name not in clock}
        for row in read_log(run)
        if row["event"] in events
    ]


@pytest.mark.system
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_nine_times_and_resumed(
    *,
    precision: str,
    tmp_path: Path,
    forks: Any,
    boqsa: list[str],
    train_arguments: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fields = [*FIELDS, "--train.precision", precision]
    subprocess.run([*boqsa, *train_arguments(whole, *fields)], check=True, capture_output=True)

    delays = random.Random(0)
    reached = []
    for name, moment in MOMENTS.items():
        # The same command and --resume mean the same; every other time this, then that.
        again = ["train", "--resume", str(broken)] if len(reached) % 2 else train_arguments(broken, *fields)
        delay = 0.0 if "written" in name or "before" in name else delays.uniform(0, 0.02)
        run_and_kill(forks, again, broken, moment, delay)
        state = state_of(broken)
        assert state is not None
        reached.append(state[0])
    assert reached[0] == 0, "the first kill was to come before the first checkpoint"
    assert sorted(reached) == reached
    assert len(set(reached[1:])) >= 5
    assert reached[-1] < STEPS

    capsys.readouterr()
    assert main(train_arguments(broken, *fields)) == 0
    assert f"at step {reached[-1]} of {STEPS}" in capsys.readouterr().err.replace("\n", " ")
    for name in ("last", "last-1", "best_loss", "best_ari_fg"):
        for file in ("model.safetensors", "config.json"):
            path = Path("checkpoints") / name / file
            assert (whole / path).read_bytes() == (broken / path).read_bytes(), path
    assert rows(whole) == rows(broken)
    assert [path.name for path in broken.rglob(".*")] == [".lock"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command refuses."""
    capsys.readouterr()
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("boqsa train: ")
    assert "\n" not in message
    return message


def test_finished_different_and_damaged_runs_are_refused_in_one_line(
    tmp_path: Path, train_arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(train_arguments(run, "--train.steps", "2")) == 0
    assert "finished" in refused(train_arguments(run, "--train.steps", "2"), capsys)
    assert "finished" in refused(["train", "--resume", str(run)], capsys)
    assert "train.steps: 2 -> 3" in refused(train_arguments(run, "--train.steps", "3"), capsys)
    assert "no run folder" in refused(["train", "--resume", str(tmp_path / "nowhere")], capsys)
    assert "is a file" in refused(train_arguments(run / "recipe.json" / "deeper"), capsys)
    model = run / "checkpoints" / "last" / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 1
    model.write_bytes(content)
    assert "is damaged" in refused(["train", "--resume", str(run)], capsys)
    assert model.read_bytes() == content


def test_a_refused_command_makes_nothing(
    tmp_path: Path,
    train_arguments: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOQSA_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "new" / "run"
    assert "decoder_strides" in refused(train_arguments(run, "--model.decoder-strides", "1"), capsys)
    assert "does not exist" in refused(train_arguments(run, "--data.root", str(tmp_path / "none")), capsys)
    larger = [
        "--data.image-size",
        "32",
        "--model.decoder-channels",
        "8",
        "8",
        "--model.decoder-strides",
        "2",
        "2",
    ]
    assert "16x16 images, the recipe wants 32x32" in refused(train_arguments(run, *larger), capsys)
    assert "image_size" in refused(["train", "demo", "--out", str(run), "--data.image-size", "30"], capsys)
    assert not list(tmp_path.iterdir())


def test_data_that_was_moved_is_named_at_the_resume(
    tmp_path: Path,
    packed_noise: Path,
    train_arguments: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from boqsa.training import step as training_step

    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(packed_noise, data)
    fields = ["--data.root", str(data), "--train.steps", "4"]
    real = training_step.batch_indices

    def terminating(seed: int, step: int, *rest: int) -> object:
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "batch_indices", terminating)
        assert main(train_arguments(run, *fields)) == 3
    data.rename(tmp_path / "moved")
    assert main(["train", "--resume", str(run)]) == 2
    assert main(["train", "--resume", str(run), "--data.root", str(tmp_path / "moved")]) == 0
    assert state_of(run) == (4, 4)


def test_a_change_is_made_on_purpose(
    tmp_path: Path, train_arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(train_arguments(run, "--train.steps", "2", "--train.batch-size", "4")) == 0
    resume = ["train", "--resume", str(run)]
    assert "train.steps: 2 -> 3" in refused([*resume, "--train.steps", "3"], capsys)
    assert "seed: 0 -> 7" in refused([*resume, "--allow-changes", "--seed", "7"], capsys)
    assert main([*resume, "--allow-changes", "--train.steps", "3"]) == 0
    assert state_of(run) == (3, 3)
    assert [row["changes"] for row in read_log(run) if row["event"] == "changed"] == [["train.steps: 2 -> 3"]]
    assert main(["train", f"--resume={run}", "--allow-changes", "--train.steps", "4", "--train.threads", "1"]) == 0


@pytest.mark.parametrize("arguments", [["--resume"], ["--resume="], ["--resume", "--json"]])
def test_resume_needs_a_folder(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume needs a run folder" in refused(["train", *arguments], capsys)


def limited(arguments: list[str], most_bytes: int) -> None:
    """The command, where no file may be larger than that: a disk that is full in the middle of a checkpoint."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    os._exit(main(arguments))


@pytest.mark.system
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(
    tmp_path: Path, forks: Any, boqsa: list[str], train_arguments: Callable[..., list[str]]
) -> None:
    run = tmp_path / "run"
    fields = ["--train.steps", "6", "--train.batch-size", "4", "--train.checkpoint-every", "2"]
    process = forks.Process(target=limited, args=(train_arguments(run, *fields), 8_000))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 2
    assert state_of(run) == (0, 6)
    assert not list(run.rglob(".partial-*"))
    assert main(["train", "--resume", str(run)]) == 0
    assert state_of(run) == (6, 6)
