"""What the loop promises, in one process: exact resuming, accumulation, checkpoints, log rows, refusals.

The same with real processes that are killed stands in tests/system.
"""

import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from boqsa.atomic import one_process
from boqsa.data import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.errors import BusyError, RecipeError, RunError
from boqsa.inference.load import build_model, load
from boqsa.inference.run import load_weights, read_manifest, read_recipe
from boqsa.recipes import Recipe
from boqsa.recipes.band import Band, Curve
from boqsa.training import folder as training_folder
from boqsa.training import loop as training_loop
from boqsa.training import step as training_step
from boqsa.training.evaluation import evaluate
from boqsa.training.log import read_log
from boqsa.training.loop import check, state_of, train
from boqsa.training.schedules import learning_rate_factor, query_sigma

Change = Callable[..., Recipe]
TIMES = ("images_per_second", "seconds")


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / name / "model.safetensors")


def identical(one: Path, other: Path, name: str = "last") -> bool:
    first, second = weights(one, name), weights(other, name)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def apart(one: Path, other: Path, recipe: Recipe) -> float:
    """How far two runs are from each other, as a share of the way that training took them."""
    torch.manual_seed(recipe.seed)
    start = build_model(recipe).state_dict()
    first, second = (torch.cat([weights(run)[name].flatten() for name in start]) for run in (one, other))
    began = torch.cat([tensor.flatten() for tensor in start.values()])
    return float((first - second).norm() / (first - began).norm())


def rows(run: Path, *events: str) -> list[dict[str, Any]]:
    """Log rows of these events, without what a clock decides."""
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] in events
    ]


@pytest.fixture
def both(train_data: PackedDataset, validation_data: PackedDataset) -> dict[str, PackedDataset]:
    return {"train_data": train_data, "validation_data": validation_data}


class Killed(BaseException):
    """Stands for the end of the process."""


def train_until(monkeypatch: pytest.MonkeyPatch, stop: int, *arguments: Any, **options: Any) -> None:
    """Train, and die at the beginning of step `stop`."""
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == stop:
            raise Killed
        return real(seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(Killed):
            train(*arguments, **options)


def test_a_run_leaves_what_it_promises(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    assert train(recipe, tmp_path / "run", **both) is True
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best_ari_fg", "best_loss", "last", "last-1"]
    assert read_manifest(checkpoints / "last-1")["step"] == 8
    assert read_manifest(checkpoints / "last")["step"] == 12
    assert state_of(tmp_path / "run") == (12, 12)
    assert Recipe.from_json((tmp_path / "run" / "recipe.json").read_text()) == recipe
    found = read_log(tmp_path / "run")
    assert [(row["event"], row["step"]) for row in found] == [
        ("started", 0),
        ("step", 3),
        ("step", 6),
        ("evaluation", 6),
        ("diagnostics", 6),
        ("step", 9),
        ("step", 12),
        ("evaluation", 12),
        ("diagnostics", 12),
        ("finished", 12),
    ]
    step = found[2]
    assert step["learning_rate"] == 1e-3 * learning_rate_factor(5, warmup_steps=2, half_life_steps=50)
    assert step["sigma"] == query_sigma(5, sigma_steps=8)
    assert step["loss"] > 0
    assert step["gradient_norm"] > step["query_gradient_norm"] > 0
    assert step["images_per_second"] > 0
    assert found[0]["threads"] == torch.get_num_threads()


def test_the_weights_move_from_the_seed_and_only_from_it(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict
) -> None:
    torch.manual_seed(1)
    train(recipe, tmp_path / "one", **both)
    torch.manual_seed(2)
    train(recipe, tmp_path / "two", **both)
    train(changed(recipe, seed=4), tmp_path / "other", **both)
    assert identical(tmp_path / "one", tmp_path / "two")
    assert not identical(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resuming_is_exact(
    *,
    precision: str,
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    both: dict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = changed(recipe, train={"precision": precision})
    train(recipe, tmp_path / "whole", **both)
    broken = tmp_path / "broken"
    train_until(monkeypatch, 2, recipe, broken, **both)  # before the first checkpoint
    assert state_of(broken) == (0, 12)
    train_until(monkeypatch, 7, recipe, broken, **both)
    assert "has no checkpoint yet; starting at step 0" in capsys.readouterr().err.replace("\n", " ")
    assert state_of(broken) == (4, 12)
    train_until(monkeypatch, 11, recipe, broken, **both)
    assert "at step 4 of 12" in capsys.readouterr().err.replace("\n", " ")
    assert train(recipe, broken, **both)
    for name in ("last", "best_loss", "best_ari_fg"):
        assert identical(tmp_path / "whole", broken, name), name
        assert (
            read_manifest(broken / "checkpoints" / name)["step"]
            == (read_manifest(tmp_path / "whole" / "checkpoints" / name)["step"])
        )
    events = ("started", "step", "evaluation", "diagnostics", "finished")
    assert rows(broken, *events) == rows(tmp_path / "whole", *events)
    assert [row["step"] for row in rows(broken, "resumed")] == [4, 8]


def test_evaluation_does_not_change_the_training(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    recipe = changed(recipe, model={"queries": "shared_gaussian"})
    train(recipe, tmp_path / "often", **both)
    train(changed(recipe, train={"evaluate_every": 1}), tmp_path / "each", **both)
    train(recipe, tmp_path / "never", train_data=both["train_data"])
    assert identical(tmp_path / "often", tmp_path / "each")
    assert identical(tmp_path / "often", tmp_path / "never")
    assert not (tmp_path / "never" / "checkpoints" / "best_loss").exists()


def test_accumulation_changes_the_memory_alone(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    train(recipe, tmp_path / "whole", **both)
    train(changed(recipe, train={"accumulate": 4}), tmp_path / "pieces", **both)
    assert apart(tmp_path / "whole", tmp_path / "pieces", recipe) < 1e-3
    losses = [[row["loss"] for row in rows(tmp_path / run, "step")] for run in ("whole", "pieces")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_memory_layout_changes_the_speed_alone(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    train(recipe, tmp_path / "last", **both)
    train(changed(recipe, train={"channels_last": False}), tmp_path / "first", **both)
    assert apart(tmp_path / "last", tmp_path / "first", recipe) < 1e-3


def test_bf16_is_near_fp32_but_not_it(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    train(recipe, tmp_path / "fp32", **both)
    train(changed(recipe, train={"precision": "bf16"}), tmp_path / "bf16", **both)
    assert not identical(tmp_path / "fp32", tmp_path / "bf16")
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "bf16").values())
    losses = [rows(tmp_path / run, "evaluation")[-1]["loss"] for run in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_clipping_bounds_the_step_and_zero_turns_it_off(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict
) -> None:
    for limit in (0.0, 1e6, 1e-9):
        train(changed(recipe, train={"clip_norm": limit}), tmp_path / str(limit), **both)
    assert identical(tmp_path / "0.0", tmp_path / "1000000.0")
    assert not identical(tmp_path / "0.0", tmp_path / "1e-09")
    # The row has the norm before clipping.
    assert rows(tmp_path / "1e-09", "step")[0]["gradient_norm"] > 1e-3


def test_the_gradient_of_the_queries_is_measured_before_clipping(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict
) -> None:
    for clip in (0.0, 1e-6):
        short = changed(recipe, train={"clip_norm": clip, "steps": 1, "log_every": 1})
        train(short, tmp_path / str(clip), **both)
    free, clipped = (rows(tmp_path / str(clip), "step")[0] for clip in (0.0, 1e-6))
    assert free["query_gradient_norm"] == clipped["query_gradient_norm"] > 1e-6


@pytest.mark.parametrize(("model", "expected"), [({"gradient": "implicit"}, 0), ({"queries": "shared_gaussian"}, None)])
def test_queries_that_get_no_gradient_and_slots_that_have_none(
    *, tmp_path: Path, recipe: Recipe, changed: Change, both: dict, model: dict, expected: float | None
) -> None:
    train(changed(recipe, model=model, train={"steps": 1}), tmp_path / "run", **both)
    assert rows(tmp_path / "run", "step")[0]["query_gradient_norm"] == expected


def test_a_run_says_how_it_stands_in_the_band(
    tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any, capsys: Any
) -> None:
    """Twelve steps find nothing: the invented scores at step 6 are out of reach, at step 12 within it."""
    curve = Curve(low=(0.98, -1.0), high=(0.99, 1.0))
    band = Band(
        recipe="tiny", recipe_hash="", data="", boqsa="", seeds=(1, 2, 3), steps=(6, 12), curves={"ari_fg": curve}
    )
    asked: list[str] = []

    def invented(_: Recipe, data: str) -> tuple[Band, str]:
        asked.append(data)
        return band, ""

    monkeypatch.setattr(training_loop, "expected_band", invented)
    train(recipe, tmp_path / "run", **both)
    err = capsys.readouterr().err
    assert "expected 0.950 to 0.990 at this step): look at docs/collapsed.md" in err
    assert err.count("on track, by seeds 1, 2, 3") == 1
    assert asked == [both["train_data"].manifest.fingerprint]
    assert rows(tmp_path / "run", "started")[0]["identity"] == asked[0]


def test_a_run_without_a_band_says_so_once(tmp_path: Path, recipe: Recipe, both: dict, capsys: Any) -> None:
    train(recipe, tmp_path / "run", **both)
    assert capsys.readouterr().err.count("no band measured for tiny") == 1


def test_the_first_step_of_a_warm_up_has_rate_zero(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    train(changed(recipe, train={"steps": 1}), tmp_path / "run", **both)
    torch.manual_seed(recipe.seed)
    for name, tensor in build_model(recipe).state_dict().items():
        assert torch.equal(tensor, weights(tmp_path / "run")[name])


def test_init_from_starts_at_the_weights_of_another_run(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, tmp_path / "source", **both)
    later = changed(recipe, seed=9, train={"init_from": str(tmp_path / "source"), "steps": 5})
    train_until(monkeypatch, 4, later, tmp_path / "later", **both)
    start = build_model(recipe)
    start.load_state_dict(weights(tmp_path / "source"))
    first = rows(tmp_path / "later", "step")[0]["loss"]
    assert first < rows(tmp_path / "source", "step")[0]["loss"]
    shutil.rmtree(tmp_path / "source")
    assert train(later, tmp_path / "later", **both)  # the source is needed at the start alone


def test_init_from_refuses_what_does_not_fit(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    train(recipe, tmp_path / "source", **both)
    other = changed(recipe, model={"num_slots": 4}, train={"init_from": str(tmp_path / "source")})
    with pytest.raises(
        RunError, match=r"do not fit this recipe: slot_encoder\.\S+ has shape \(3, 8\), expected \(4, 8\)\.$"
    ):
        train(other, tmp_path / "run", **both)
    wider = changed(other, model={"slot_size": 16})
    with pytest.raises(RunError, match=r"has shape \(.*\), expected \(.*\); \d+ more do not fit\.$"):
        train(wider, tmp_path / "run", **both)
    with pytest.raises(
        RunError, match=r"^--train\.init-from names .*nowhere, where there is no run folder; give "
    ) as no:
        train(changed(recipe, train={"init_from": str(tmp_path / "nowhere")}), tmp_path / "run", **both)
    assert "would make it" not in str(no.value)
    assert not (tmp_path / "run").exists()


def test_init_from_takes_one_checkpoint_of_a_run(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(changed(recipe, train={"evaluate_every": 2}), tmp_path / "source", **both)
    older = tmp_path / "source" / "checkpoints" / "last-1"
    later = changed(recipe, train={"init_from": str(older), "steps": 1})
    train(later, tmp_path / "later", **both)  # a step of rate 0
    assert all(torch.equal(value, weights(tmp_path / "later")[name]) for name, value in load_weights(older).items())


@pytest.mark.parametrize(("at", "kept"), [(6, 4), (1, None)])
def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoint(
    *,
    at: int,
    kept: int | None,
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    both: dict,
    monkeypatch: Any,
) -> None:
    recipe = changed(recipe, train={"log_every": 100, "evaluate_every": 100})
    real = training_step.learning_rate_factor

    def infinite(step: int, **options: int) -> float:
        return math.inf if step == at else real(step, **options)

    monkeypatch.setattr(training_step, "learning_rate_factor", infinite)
    with pytest.raises(RunError, match=r"not a number at step .*lower --train\.learning-rate") as caught:
        train(recipe, tmp_path / "run", **both)
    if kept is None:
        assert "no checkpoint yet" in str(caught.value)
        assert not (tmp_path / "run" / "checkpoints" / "last").exists()
    else:
        assert read_manifest(tmp_path / "run" / "checkpoints" / "last")["step"] == kept
        assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert rows(tmp_path / "run", "diverged")[0]["loss"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_after_the_step_and_the_run_goes_on_exactly(
    *, number: int, tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any, capsys: Any
) -> None:
    train(recipe, tmp_path / "whole", **both)
    real = training_step.draw_noise
    before = signal.getsignal(number)

    def interrupting(*arguments: Any, **options: Any) -> Any:
        if options["step"] == 4:
            signal.raise_signal(number)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "draw_noise", interrupting)
        assert train(recipe, tmp_path / "run", **both) is False
    assert signal.getsignal(number) is before
    assert state_of(tmp_path / "run") == (5, 12)
    assert rows(tmp_path / "run", "stopped") == [{"event": "stopped", "step": 5, "signal": signal.Signals(number).name}]
    assert "boqsa train --resume" in capsys.readouterr().err
    assert train(recipe, tmp_path / "run", **both) is True
    assert identical(tmp_path / "whole", tmp_path / "run")
    assert rows(tmp_path / "whole", "step") == rows(tmp_path / "run", "step")


def test_another_thread_count_is_said(
    tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any, capsys: Any
) -> None:
    train_until(monkeypatch, 6, recipe, tmp_path / "run", **both)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    train(recipe, tmp_path / "run", **both)
    assert "not bit-identical to an unbroken run: threads 1 -> 7" in capsys.readouterr().err
    assert rows(tmp_path / "run", "resumed")[0]["changed"] == ["threads 1 -> 7"]


def test_finished_and_different_runs_are_refused(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    run = tmp_path / "run"
    train(recipe, run, **both)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="finished"):
        train(recipe, run, **both)
    with pytest.raises(RunError, match=r"another recipe \(train.steps: 12 -> 13; seed: 3 -> 4\)"):
        train(changed(recipe, seed=4, train={"steps": 13}), run, **both)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "trainer.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_refused_and_nothing_is_lost(
    name: str, tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    train_until(monkeypatch, 6, recipe, run, **both)
    path = run / "checkpoints" / "last" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x08
    path.write_bytes(content)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="last"):
        train(recipe, run, **both)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_without_its_manifest_is_not_taken_for_none(
    tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any
) -> None:
    train_until(monkeypatch, 6, recipe, tmp_path / "run", **both)
    (tmp_path / "run" / "checkpoints" / "last" / "manifest.json").unlink()
    with pytest.raises(RunError, match="not a whole checkpoint"):
        train(recipe, tmp_path / "run", **both)


def test_a_death_between_two_renames_is_mended(tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any) -> None:
    run = tmp_path / "run"
    train(recipe, tmp_path / "whole", **both)
    train_until(monkeypatch, 6, recipe, run, **both)
    (run / "checkpoints" / "last").rename(run / "checkpoints" / ".previous-last")
    (run / "checkpoints" / ".partial-9999999-last").mkdir()
    (run / ".partial-9999999-log.jsonl").write_text("{")
    assert state_of(run) == (4, 12)
    train(recipe, run, **both)
    assert identical(tmp_path / "whole", run)
    assert list(run.rglob(".*")) == [run / ".lock"]


def test_a_death_while_the_folder_was_made_starts_anew(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".partial-9999999-recipe.json").write_text("{")
    assert state_of(tmp_path / "run") is None
    assert train(recipe, tmp_path / "run", **both)


def test_a_folder_with_the_name_of_a_leftover_stays(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    (tmp_path / "run" / ".partial-9999999-mine").mkdir(parents=True)
    assert train(recipe, tmp_path / "run", **both)
    assert (tmp_path / "run" / ".partial-9999999-mine").is_dir()


def test_data_that_was_moved_is_found_afterwards(
    tmp_path: Path, recipe: Recipe, both: dict, packed: Path, monkeypatch: Any
) -> None:
    train_until(monkeypatch, 6, recipe, tmp_path / "run", **both)
    shutil.copytree(packed, tmp_path / "moved")
    moved = replace(
        recipe,
        data=replace(recipe.data, root=str(tmp_path / "moved")),
        train=replace(recipe.train, threads=1),
    )
    train(moved, tmp_path / "run", train_data=PackedDataset(tmp_path / "moved", "train"))
    assert read_recipe(tmp_path / "run") == replace(recipe, data=moved.data)


def test_two_processes_do_not_train_one_run(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    (tmp_path / "run").mkdir()
    with (
        one_process(tmp_path / "run" / ".lock", wait=False),
        pytest.raises(BusyError, match="another process is training"),
    ):
        train(recipe, tmp_path / "run", **both)
    assert train(recipe, tmp_path / "run", **both)


def test_another_process_went_on_between_reading_and_locking(
    tmp_path: Path, recipe: Recipe, both: dict, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    train_until(monkeypatch, 6, recipe, run, **both)
    real, others = training_folder.refuse_links, [lambda: train_until(monkeypatch, 10, recipe, run, **both)]

    def later(path: Path) -> None:
        if others:
            others.pop()()
        real(path)

    monkeypatch.setattr(training_folder, "refuse_links", later)
    with pytest.raises(BusyError, match="gone on with"):
        train(recipe, run, **both)
    assert state_of(run) == (8, 12)
    assert rows(run, "resumed")[-1]["step"] == 4


def test_other_data_is_refused(tmp_path: Path, recipe: Recipe, both: dict, squares: Callable, monkeypatch: Any) -> None:
    train_until(monkeypatch, 6, recipe, tmp_path / "run", **both)
    words = {"name": "arrays", "source": "", "licence": "", "task": "multi-object", "split_rule": ""}
    write_packed(tmp_path / "other", {"train": squares(40, seed=8)}, **words)
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(RunError, match="other data"):
        train(recipe, tmp_path / "run", train_data=PackedDataset(tmp_path / "other", "train"))
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"decoder_strides": (1,)}}, "decoder_strides"),
        ({"train": {"device": "mps"}}, "--train.device cpu"),
    ],
)
def test_what_is_refused_makes_no_folder(
    *, fields: dict, words: str, tmp_path: Path, recipe: Recipe, changed: Change, both: dict
) -> None:
    if "train" in fields and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    recipe = changed(recipe, **fields)
    for refused in (
        lambda: train(recipe, tmp_path / "deep" / "run", **both),
        lambda: check(recipe, tmp_path / "deep" / "run"),
    ):
        with pytest.raises(RecipeError, match=words):
            refused()
    assert not list(tmp_path.iterdir())


def test_data_of_another_size_is_refused(tmp_path: Path, recipe: Recipe, changed: Change, both: dict) -> None:
    recipe = changed(recipe, data={"image_size": 32}, model={"decoder_strides": (2, 2), "decoder_channels": (4, 4)})
    with pytest.raises(RecipeError, match="16x16 images, the recipe wants 32x32"):
        train(recipe, tmp_path / "run", **both)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_something_else(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    for path, words in (
        ("file", "is a file"),
        ("file/run", "is a file"),
        ("folder", "not a run folder"),
    ):
        with pytest.raises(RunError, match=words):
            train(recipe, tmp_path / path, **both)
    with pytest.raises(RunError, match="is a file"):
        state_of(tmp_path / "file")
    with pytest.raises(RunError, match="not a run folder"):
        state_of(tmp_path / "folder")
    assert state_of(tmp_path / "nothing") is None
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "thesis.tex"]


def test_last_is_the_final_state_and_best_what_scored_best(
    tmp_path: Path, recipe: Recipe, changed: Change, both: dict
) -> None:
    recipe = changed(recipe, train={"evaluate_every": 2})
    run = tmp_path / "run"
    train(recipe, run, **both)
    evaluations = rows(run, "evaluation")
    for name, best in (
        ("best_loss", min(evaluations, key=lambda row: row["loss"])),
        ("best_ari_fg", max(evaluations, key=lambda row: row["ari_fg"])),
    ):
        assert read_manifest(run / "checkpoints" / name)["step"] == best["step"]
        again = evaluate(load(run, checkpoint=name), both["validation_data"], recipe.evaluate)
        assert again["loss"] == pytest.approx(best["loss"], rel=1e-6)
    final = evaluate(load(run), both["validation_data"], recipe.evaluate)
    assert final["loss"] == pytest.approx(evaluations[-1]["loss"], rel=1e-6)


def test_outside_the_main_thread_it_trains_without_signals(tmp_path: Path, recipe: Recipe, both: dict) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, recipe, tmp_path / "run", **both).result()
