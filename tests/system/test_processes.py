"""Several processes train what one trains; a job that loses one ends at once, and resumes exactly. Real processes."""

import contextlib
import io
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from boqsa.atomic import one_process
from boqsa.commands import main
from boqsa.training.log import read_log

PATIENCE_S = 120.0
EVERY_STEP = ["--train.log-every", "1", "--train.precision", "fp32", "--train.device", "cpu"]
PROMISE = 1e-5
"""Relative, of losses over 50 steps: the sums are the same, in another order."""

Arguments = Callable[..., list[str]]


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {
        **{name: str(value) for name, value in words.items()},
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_RUN_ID": "0",
    }


def run_as(words: dict[str, str], arguments: list[str], said: Path) -> None:
    """Body of a process of a job: the command line, its words in a file."""
    os.environ.update(words)
    with open(said, "w", encoding="utf-8") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        code = main(arguments)
    sys.exit(code)


@pytest.fixture(scope="module")
def forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["boqsa.training", "boqsa.commands.train", "boqsa.commands.console"])
    return context


@pytest.fixture
def job(forks: Any, tmp_path: Path) -> Iterator[Callable[..., list[Any]]]:
    """`job(arguments)` starts two processes of one job; what process r says is in `said-r`. `others` is what all but
    the first are told instead."""
    started: list[Any] = []

    def start(arguments: list[str], *, others: list[str] | None = None, count: int = 2) -> list[Any]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        processes = [
            forks.Process(target=run_as, args=(environment(rank, count, port), told, tmp_path / f"said-{rank}"))
            for rank, told in enumerate([arguments, *[others or arguments] * (count - 1)])
        ]
        for process in processes:
            process.start()
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()


def codes(processes: list[Any]) -> list[int]:
    for process in processes:
        process.join(PATIENCE_S)
    return [process.exitcode for process in processes]


def numbers(run: Path, *events: str) -> list[dict[str, Any]]:
    clock = ("images_per_second", "seconds")
    return [
        {name: value for name, value in row.items() if name not in clock}
        for row in read_log(run)
        if row["event"] in events
    ]


def same(one: Any, other: Any, promise: float) -> bool:
    """Equal, but for rounding of floats."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name], promise) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*pair, promise) for pair in zip(one, other, strict=True))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=promise, abs_tol=promise)
    return bool(one == other)


def wait_for(run: Path, step: int, processes: list[Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not any(row["step"] >= step for row in read_log(run) if row["event"] == "step"):
        assert all(process.is_alive() for process in processes), "the job ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def transformer(arguments: list[str]) -> list[str]:
    """The same command for a small transformer model."""
    dropped = ("objectsroom_mixture_small", "--model.decoder-channels", "--model.decoder-strides")
    words = list(arguments)
    for name in dropped[1:]:
        at = words.index(name)
        del words[at : at + 2]
    words[words.index(dropped[0])] = "objectsroom_transformer_small"
    small = {"width": 16, "blocks": 1, "vocab-size": 16, "dvae-channels": 8, "dropout": 0}
    words += [part for name, value in small.items() for part in (f"--model.{name}", str(value))]
    return [*words, "--train.clip-norm", "0", "--train.dvae.learning-rate", "3e-4"]


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "evaluated_at_a_time"), [("mixture", 3), ("transformer", 8)], ids=["mixture", "transformer"]
)
def test_two_processes_one_and_accumulation_are_the_same_training(
    kind: str, evaluated_at_a_time: int, job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    """Validation has 8 images: in batches of 3 the second process has a shorter share, in one of 8 it has none.

    A token is an arg max, so that rounding can turn one of them into another, and the decoder's loss jumps by a
    thousandth: on two of four seeds this happened within 50 steps. The dVAE learns nothing from the decoder where
    gradients are not clipped together, so its loss must agree to the end, and the decoder's until then.
    """
    more = [*EVERY_STEP, "--train.steps", "50", "--train.batch-size", "16", "--train.evaluate-every", "25"]
    more += ["--evaluate.batch-size", str(evaluated_at_a_time)]

    def arguments(name: str, *others: str) -> list[str]:
        words = train_arguments(tmp_path / name, *more, *others)
        return transformer(words) if kind == "transformer" else words

    assert main(arguments("one")) == 0
    assert main(arguments("pieces", "--train.accumulate", "4")) == 0
    assert codes(job(arguments("two"))) == [0, 0]

    found = {name: numbers(tmp_path / name, "step") for name in ("one", "pieces", "two")}
    exact = "loss_dvae" if kind == "transformer" else "loss"
    losses = {name: [row[exact] for row in rows] for name, rows in found.items()}
    assert len(losses["one"]) == 50
    assert losses["one"][-1] < 0.9 * losses["one"][0], "a loss that does not move would show nothing"
    for name in ("pieces", "two"):
        assert losses[name] == pytest.approx(losses["one"], rel=PROMISE), name
        decoder = [(one["loss"], other["loss"]) for one, other in zip(found["one"], found[name], strict=True)]
        parted = [step for step, (one, other) in enumerate(decoder) if not math.isclose(one, other, rel_tol=PROMISE)]
        assert min(parted, default=50) >= 10, name
        assert all(math.isclose(one, other, rel_tol=0.02) for one, other in decoder), name
    scores = [numbers(tmp_path / name, "evaluation", "diagnostics") for name in ("one", "two")]
    assert len(scores[0]) == 4
    assert same(*scores, promise=1e-4 if kind == "mixture" else 0.05), scores


@pytest.mark.system
@pytest.mark.parametrize(
    "fields",
    [
        ["--train.query-update", "running_mean", "--train.query-momentum", "0.1"],
        ["--train.query-update", "kmeans", "--train.query-momentum", "0.1"],
        ["--train.consistency-weight", "0.01"],
    ],
    ids=["running_mean", "kmeans", "consistency"],
)
def test_two_processes_move_queries_as_one_does(
    fields: list[str], job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    """Final slots of the whole batch count, not those of one process: then queries would part at the first step."""
    more = [*EVERY_STEP, "--train.steps", "12", "--train.batch-size", "16", *fields]
    assert main(train_arguments(tmp_path / "one", *more)) == 0
    assert codes(job(train_arguments(tmp_path / "two", *more, "--train.accumulate", "2"))) == [0, 0]
    losses = {name: [row["loss"] for row in numbers(tmp_path / name, "step")] for name in ("one", "two")}
    assert losses["two"] == pytest.approx(losses["one"], rel=PROMISE)
    one, two = (
        load_file(tmp_path / name / "checkpoints" / "last" / "model.safetensors")["slot_encoder.queries.weight"]
        for name in ("one", "two")
    )
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.system
@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"rays": 48, "coarse-size": 16}, {}),
        ({"rays": 48, "coarse-size": 16}, {"queries": "shared_gaussian", "gradient": "unrolled"}),
        (
            {"rays": 0, "coarse-size": 64, "adversarial-weight": 0.01, "discriminator-from": 2, "adversarial-from": 4},
            {},
        ),
    ],
    ids=["rays", "sampled", "adversarial"],
)
def test_two_processes_train_a_radiance_model_as_one_does(
    fields: dict[str, float], model: dict[str, str], job: Callable[..., list[Any]], tmp_path: Path
) -> None:
    radiance = {"samples": 4, "views": 2, "local-until": 5, "fine-from": 0, "perceptual-weight": 0, "r1-every": 2}
    settings = {
        **{"data.image-size": 16, "data.scene-count": 6, "data.scene-views": 2},
        **{"model.input-size": 16, "model.slot-size": 8, "evaluate.radiance.size": 16},
        **{"evaluate.radiance.views": 2, "evaluate.radiance.samples": 4, "evaluate.validation-limit": 3},
        **{"train.steps": 10, "train.batch-size": 4, "train.warmup-steps": 1, "train.threads": 1},
        **{f"train.radiance.{name}": value for name, value in {**radiance, **fields}.items()},
        **{f"model.{name}": value for name, value in model.items()},
    }
    typed = [part for name, value in settings.items() for part in (f"--{name}", str(value))]

    def arguments(name: str, *more: str) -> list[str]:
        return ["train", "scenes_radiance_small", "--out", str(tmp_path / name), *typed, *EVERY_STEP, *more]

    assert main(arguments("one")) == 0
    assert main(arguments("pieces", "--train.accumulate", "2")) == 0
    assert codes(job(arguments("two"))) == [0, 0]
    rows = {name: numbers(tmp_path / name, "step") for name in ("one", "pieces", "two")}
    assert len(rows["one"]) == 10
    for name in ("pieces", "two"):
        for column in ("loss", "loss_discriminator"):
            values = [[row.get(column, 0.0) for row in rows[which]] for which in ("one", name)]
            assert values[1] == pytest.approx(values[0], rel=1e-4), (name, column)
    if "adversarial-weight" in fields:
        assert rows["one"][-1]["loss_discriminator"] > 0
    scores = [numbers(tmp_path / name, "evaluation", "diagnostics") for name in ("one", "two")]
    assert same(*scores, promise=1e-3), scores


@pytest.mark.system
def test_a_killed_process_ends_the_job_which_resumes_exactly(
    job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    more = [*EVERY_STEP, "--train.steps", "40", "--train.checkpoint-every", "5", "--train.batch-size", "16"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert codes(job(train_arguments(whole, *more))) == [0, 0]

    for victim, step in ((1, 8), (0, 22)):
        processes = job(train_arguments(broken, *more))
        wait_for(broken, step, processes)
        began = time.monotonic()
        os.kill(processes[victim].pid, signal.SIGKILL)
        code = codes(processes)
        assert code[victim] == -signal.SIGKILL
        assert code[1 - victim] == 2
        assert time.monotonic() - began < PATIENCE_S / 2, "the other process waited for the dead one"
        said = (tmp_path / f"said-{1 - victim}").read_text()
        assert "another process of this job is gone" in said
        assert "Traceback" not in said

    assert codes(job(train_arguments(broken, *more))) == [0, 0]
    for name in ("last", "best_loss"):
        one, other = (load_file(run / "checkpoints" / name / "model.safetensors") for run in (whole, broken))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert numbers(whole, "step", "evaluation", "diagnostics") == numbers(broken, "step", "evaluation", "diagnostics")
    assert not any(row["changed"] for row in read_log(broken) if row["event"] == "resumed")


@pytest.mark.system
def test_a_signal_to_one_process_stops_all_at_one_step(
    job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = job(train_arguments(run, *EVERY_STEP, "--train.steps", "100000", "--train.batch-size", "16"))
    wait_for(run, 3, processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert codes(processes) == [3, 3]
    stopped = [row for row in read_log(run) if row["event"] == "stopped"]
    assert len(stopped) == 1
    assert "go on with" in (tmp_path / "said-0").read_text()
    assert (tmp_path / "said-1").read_text() == ""


@pytest.mark.system
def test_processes_that_see_other_checkpoints_are_refused(
    job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    """As with a run folder on each node's own disk: here the second process has none."""
    more = [*EVERY_STEP, "--train.steps", "8", "--train.checkpoint-every", "4", "--train.batch-size", "16"]
    begun = train_arguments(tmp_path / "first", *more)
    assert main([*begun[:-2], "--train.batch-size", "16", "--train.steps", "4"]) == 0
    resume = ["train", "--resume", str(tmp_path / "first"), "--allow-changes", "--train.steps", "8"]
    elsewhere = train_arguments(tmp_path / "second", *more)
    assert codes(job(resume, others=elsewhere)) == [2, 2]
    said = (tmp_path / "said-0").read_text().replace("\n", " ")
    assert "do not go on from the same step" in said
    assert "Traceback" not in said
    assert (tmp_path / "said-1").read_text() == ""
    assert not any(row["event"] == "resumed" for row in read_log(tmp_path / "first"))


@pytest.mark.system
@pytest.mark.parametrize("refusal", ["recipe", "usage", "sharing", "busy"])
def test_what_all_refuse_is_said_once(
    refusal: str, job: Callable[..., list[Any]], train_arguments: Arguments, tmp_path: Path
) -> None:
    """Before the processes have joined, and after: the lock is tried by the first one alone."""
    fields, words = {
        "recipe": (["--model.decoder-strides", "1"], "decoder_strides"),
        "usage": (["--model.no-such-field", "1"], "no-such-field"),
        "sharing": (["--train.batch-size", "15"], "cannot be shared by 2 processes"),
        "busy": (["--train.batch-size", "16"], "another process is training"),
    }[refusal]
    run = tmp_path / "run"
    run.mkdir()
    with one_process(run / ".lock", wait=False) if refusal == "busy" else contextlib.nullcontext():
        assert codes(job(train_arguments(run, *EVERY_STEP, *fields))) == [2, 2]
    assert (tmp_path / "said-0").read_text().replace("\n", " ").count(words) >= 1
    assert (tmp_path / "said-1").read_text() == ""


@pytest.mark.system
def test_torchrun_starts_them(boqsa: list[str], train_arguments: Arguments, tmp_path: Path) -> None:
    """And a batch that two cannot share is refused."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *boqsa[1:]]
    refused = subprocess.run(
        [*launcher, *train_arguments(tmp_path / "run", "--train.batch-size", "15", "--train.device", "cpu")],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert refused.returncode != 0
    assert refused.stderr.count("boqsa train: ") == 1
    assert "cannot be shared by 2 processes; choose a multiple of 2" in refused.stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_other_processes_say_nothing() -> None:
    """The console of all but the first is quiet, progress included."""
    from rich.console import Console

    from boqsa.training.progress import RunProgress

    file = io.StringIO()
    with RunProgress(10, 0, Console(file=file, quiet=True)) as progress:
        progress.say("a sentence")
        progress.step(10, loss=1.0, images_per_second=1.0)
    assert file.getvalue() == ""
