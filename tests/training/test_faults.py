"""A machine in trouble: one line that says what is kept and what to type, and nothing half-written."""

import builtins
import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boqsa.data import PackedDataset
from boqsa.errors import FullDiskError, MachineError, RunError
from boqsa.inference.load import load
from boqsa.inference.run import read_manifest, read_recipe
from boqsa.recipes import Recipe
from boqsa.training import loop
from boqsa.training import step as training_step
from boqsa.training.faults import memory_advice
from boqsa.training.log import read_log
from boqsa.training.loop import state_of, train

Change = Callable[..., Recipe]


@pytest.fixture
def both(train_data: PackedDataset, validation_data: PackedDataset) -> dict[str, PackedDataset]:
    return {"train_data": train_data, "validation_data": validation_data}


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Have something happen at the beginning of a step, counted from 0."""
    real = training_step.batch_indices

    def acting(seed: int, number: int, *rest: int) -> Any:
        if number == step:
            act()
        return real(seed, number, *rest)

    monkeypatch.setattr(training_step, "batch_indices", acting)


class FullDisk:
    """A disk that takes no more from some moment on; `free` takes what is needed to end that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        for owner, name in ((Path, "write_bytes"), (Path, "write_text")):
            monkeypatch.setattr(owner, name, self._refusing(getattr(owner, name)))
        real = builtins.open

        def opened(path: Any, mode: str = "r", **options: Any) -> Any:
            if self.is_full and mode == "a":
                real(path, mode, **options).write("{")  # half a line was still written
                self._refuse(path)
            return real(path, mode, **options)

        monkeypatch.setattr("boqsa.training.log.open", opened, raising=False)

    def _refuse(self, path: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def _refusing(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
            if self.is_full:
                self._refuse(path)
            return write(path, *arguments, **options)

        return refusing


@pytest.mark.parametrize(("full_at", "what"), [(7, "model.safetensors"), (8, "log.jsonl")])
def test_a_full_disk_ends_the_run_in_one_line_and_space_lets_it_go_on(
    *,
    full_at: int,
    what: str,
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    both: dict[str, PackedDataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = changed(recipe, train={"evaluate_every": 12})
    run = tmp_path / "run"
    train(recipe, tmp_path / "whole", **both)
    disk = FullDisk(monkeypatch)
    with monkeypatch.context() as patch:
        at_step(patch, full_at, lambda: setattr(disk, "is_full", True))
        with pytest.raises(FullDiskError) as caught:
            train(recipe, run, **both)
    message = str(caught.value)
    last = 4 if full_at == 7 else 8
    assert message.startswith("no space is left to write ")
    assert what in message
    assert f"checkpoints/last holds the last good state, of step {last}" in message
    assert f"Free some, then go on with `boqsa train --resume {run}`" in message
    assert "\n" not in message
    assert not list(run.rglob(".partial-*"))
    disk.is_full = False
    assert state_of(run) == (last, 12)
    assert train(recipe, run, **both)
    one, other = (load(folder).state_dict() for folder in (tmp_path / "whole", run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [
        [row["step"] for row in read_log(folder) if row["event"] == "step"] for folder in (tmp_path / "whole", run)
    ]
    assert steps[0] == steps[1]


def test_a_disk_that_is_full_from_the_start(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    disk.is_full = True
    with pytest.raises(RunError, match=r"no space is left .*no checkpoint yet.*give the command again"):
        train(recipe, tmp_path / "run", **both)
    disk.is_full = False
    assert train(recipe, tmp_path / "run", **both)


def test_deleted_checkpoints_are_made_anew(
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    both: dict[str, PackedDataset],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    at_step(monkeypatch, 7, lambda: shutil.rmtree(run / "checkpoints"))
    assert train(changed(recipe, train={"keep_last": 5}), run, **both)
    assert "checkpoints was deleted; at step 8 it is made anew" in capsys.readouterr().err.replace("\n", " ")
    names = {path.name: read_manifest(path)["step"] for path in (run / "checkpoints").iterdir()}
    assert names == {"last": 12, "last-1": 8, "best_loss": 12, "best_ari_fg": 12}


def test_a_deleted_run_is_made_anew_with_all_that_is_known(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(recipe, tmp_path / "whole", **both)
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: shutil.rmtree(run))
        with pytest.raises(RunError, match=r"was deleted while .*step 8; what else was deleted is lost.*--resume"):
            train(recipe, run, **both)
    assert read_recipe(run) == recipe
    assert state_of(run) == (8, 12)
    assert [row["event"] for row in read_log(run)] == ["remade"]
    assert train(recipe, run, **both)
    one, other = (load(folder).state_dict() for folder in (tmp_path / "whole", run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_cannot_be_made_anew_is_one_line(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace_by_file() -> None:
        shutil.rmtree(tmp_path / "deep")
        (tmp_path / "deep").write_text("a disk that is no longer mounted")

    at_step(monkeypatch, 6, replace_by_file)
    with pytest.raises(RunError, match=r"cannot use .*deep/run.*no checkpoint yet"):
        train(recipe, tmp_path / "deep" / "run", **both)


def no_memory_on_cpu() -> None:
    torch.empty(1 << 50)  # torch's own message


def no_memory_on_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_memory_in_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("fail", [no_memory_on_cpu, no_memory_on_cuda, no_memory_in_python])
def test_too_little_memory_names_what_helps(
    *,
    fail: Callable[[], None],
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    both: dict[str, PackedDataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 6, fail)
        with pytest.raises(RunError) as caught:
            train(recipe, run, **both)
    message = str(caught.value)
    assert "a step computes 8 images at once (train.batch_size 8 in train.accumulate 1 pieces)" in message
    assert f"go on with `boqsa train --resume {run} --allow-changes --train.accumulate 2`" in message
    assert ("(2.00 GiB more were asked for)" in message) == (fail is no_memory_on_cuda)
    assert "of step 4" in message
    assert "\n" not in message
    assert not list(run.rglob(".partial-*"))
    assert train(changed(recipe, train={"accumulate": 2}), run, **both, allow_changes=True)


def test_other_errors_keep_their_traceback(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug() -> None:
        raise RuntimeError("shapes do not match")

    at_step(monkeypatch, 2, bug)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(recipe, tmp_path / "run", **both)


def test_an_evaluation_without_memory_names_its_own_batch(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: no_memory_on_cpu())
    with pytest.raises(RunError, match=r"evaluate.batch_size 5 images .*--allow-changes --evaluate.batch-size 2"):
        train(recipe, tmp_path / "run", **both)


def test_memory_that_ends_elsewhere_is_not_blamed_on_the_step(
    tmp_path: Path, recipe: Recipe, both: dict[str, PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_, **__: no_memory_in_python())
    with pytest.raises(
        MachineError, match=r"it ran out outside of steps and evaluations; end other programs"
    ) as caught:
        train(recipe, tmp_path / "run", **both)
    assert "accumulate" not in str(caught.value)
    assert "batch" not in str(caught.value)


def test_the_next_value_divides_the_batch_and_the_last_way_out_is_recomputation(
    tmp_path: Path, recipe: Recipe, transformer_recipe: Recipe
) -> None:
    def advice(of: Recipe, batch_size: int, accumulate: int) -> str:
        train = replace(of.train, batch_size=batch_size, accumulate=accumulate)
        return memory_advice(replace(of, train=train), tmp_path, "step")

    anew = "a smaller train.batch_size, model or image size, which is another run."
    bf16 = f"then --train.precision bf16, which rounds more; last {anew}"
    assert advice(recipe, 9, 1).endswith(
        f"; give the command again with --train.accumulate 3 (if that is not enough, 9); {bf16}"
    )
    assert advice(recipe, 6, 2).endswith(f" with --train.accumulate 3 (if that is not enough, 6); {bf16}")
    assert advice(recipe, 64, 1).count("(if that is not enough, 4, 8, 16, ...)") == 1
    half = replace(recipe, train=replace(recipe.train, precision="bf16"))
    assert advice(half, 8, 8).endswith(f"no field saves more of it; what is left is {anew}")
    assert advice(transformer_recipe, 8, 4).endswith(f" with --train.accumulate 8; then --model.recompute; {bf16}")
    assert advice(transformer_recipe, 8, 8).endswith(f" with --model.recompute; {bf16}")
