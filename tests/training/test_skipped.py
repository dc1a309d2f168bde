"""Steps that give no number: nothing changes, they are counted, and too many in a row end the run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.errors import RunError
from boqsa.inference.load import build_model, load
from boqsa.inference.run import read_manifest
from boqsa.recipes import Recipe
from boqsa.training import step as training_step
from boqsa.training.checkpoint import read_training
from boqsa.training.data import StepImages
from boqsa.training.log import read_log
from boqsa.training.loop import train
from boqsa.training.skipped import SkippedSteps
from boqsa.training.step import TrainStep

Change = Callable[..., Recipe]
TIMES = ("images_per_second", "seconds")


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`spoil({3, 4})` makes the noise of these steps, counted from 0, not a number."""
    real = training_step.draw_noise

    def spoil(steps: set[int]) -> None:
        def drawn(*arguments: Any, **options: Any) -> Any:
            noise = real(*arguments, **options)
            if options["step"] in steps:
                noise = noise._replace(queries=torch.full_like(noise.queries, float("nan")))
            return noise

        monkeypatch.setattr(training_step, "draw_noise", drawn)

    return spoil


def everything_in(step: TrainStep) -> list[Tensor]:
    """Weights, and moments and step counts of the optimiser."""
    moments = [value for state in step.optimizer.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*step.plain_model.parameters(), *moments)]


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_log(run)
        if row["event"] == event
    ]


def test_counting() -> None:
    skipped = SkippedSteps(torch.device("cpu"))
    for is_finite in (True, False, False, True, False):
        skipped.add(torch.tensor(is_finite))
    assert skipped.state == [3, 1, 3, 2]
    assert skipped.look() == 2
    assert skipped.look() == 1, "what still lasts counts on"
    again = SkippedSteps(torch.device("cpu"), skipped.state)
    again.add(torch.tensor(False))
    assert again.look() == 2
    assert again.take() == 4
    assert again.take() == 0
    assert again.state[0] == 4


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_skipped_step_changes_nothing(
    what: str, recipe: Recipe, train_data: PackedDataset, spoil: Callable[..., None]
) -> None:
    step = TrainStep(recipe, build_model(recipe))
    images = StepImages(train_data, step.device)
    for number in range(3):
        assert bool(step(images, number).is_finite)
    before = everything_in(step)
    if what == "loss":
        spoil({3})
        result = step(images, 3)
        assert not result.loss.isfinite()
    else:
        parameter = next(step.plain_model.parameters())
        hook = parameter.register_hook(lambda gradient: gradient * float("inf"))
        result = step(images, 3)
        hook.remove()
        assert result.loss.isfinite()
    assert not bool(result.is_finite)
    assert all(torch.equal(one, other) for one, other in zip(before, everything_in(step), strict=True))
    spoil(set())
    assert bool(step(images, 4).is_finite)
    assert not all(torch.equal(one, other) for one, other in zip(before, everything_in(step), strict=True))


def test_skipping_costs_nothing_where_there_is_nothing_to_skip(
    tmp_path: Path, recipe: Recipe, changed: Change, train_data: PackedDataset
) -> None:
    train(recipe, tmp_path / "skips", train_data=train_data)
    train(changed(recipe, train={"nonfinite_patience": 0}), tmp_path / "stops", train_data=train_data)
    one, other = (load(tmp_path / name).state_dict() for name in ("skips", "stops"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(tmp_path / "skips", "step") == rows(tmp_path / "stops", "step")
    assert not any("skipped" in row for row in read_log(tmp_path / "skips"))


def test_some_steps_are_skipped_and_the_run_goes_on(
    tmp_path: Path, recipe: Recipe, changed: Change, train_data: PackedDataset, spoil: Callable[..., None]
) -> None:
    spoil({1, 3, 4, 5})
    recipe = changed(recipe, train={"checkpoint_every": 5})
    run = tmp_path / "run"
    assert train(recipe, run, train_data=train_data)
    assert [row.get("skipped") for row in rows(run, "step")] == [1, 3, None, None]
    losses = [row["loss"] for row in rows(run, "step")]
    assert losses[0] is not None, "the mean is of the steps that gave a number"
    assert losses[1] is None
    assert all(tensor.isfinite().all() for tensor in load(run).state_dict().values())
    assert read_training(run / "checkpoints" / "last")[1]["skipped"][:3] == [4, 0, 0]

    # Stopped in the middle of them and resumed, the counts go on.
    real = training_step.batch_indices

    def dying(seed: int, step: int, *rest: int) -> Any:
        if step == 6:
            raise KeyboardInterrupt
        return real(seed, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_step, "batch_indices", dying)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "broken", train_data=train_data)
    assert read_training(tmp_path / "broken" / "checkpoints" / "last")[1]["skipped"][:2] == [3, 2]
    assert train(recipe, tmp_path / "broken", train_data=train_data)
    assert rows(tmp_path / "broken", "step") == rows(run, "step")
    one, other = (load(folder).state_dict() for folder in (run, tmp_path / "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("patience", "spoilt", "stops_at"), [(3, {2, 5, 6, 7}, 8), (0, {5}, 6), (3, {2, 3, 5, 6}, None)]
)
def test_too_many_in_a_row_end_the_run(
    *,
    patience: int,
    spoilt: set[int],
    stops_at: int | None,
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    train_data: PackedDataset,
    spoil: Callable[..., None],
) -> None:
    spoil(spoilt)
    recipe = changed(recipe, train={"nonfinite_patience": patience, "log_every": 2})
    run = tmp_path / "run"
    if stops_at is None:
        assert train(recipe, run, train_data=train_data)
        return
    saved = stops_at if patience else 4  # where none is skipped the weights are spoilt
    with pytest.raises(
        RunError,
        match=rf"not a number at step {stops_at}, after .*last good state, of step {saved}\. "
        r"Go on with a lower .*`boqsa train --resume \S+ --allow-changes --train.learning-rate 0\.0005`\.",
    ):
        train(recipe, run, train_data=train_data)
    row = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert (row["event"], row["step"], row["in_a_row"]) == ("diverged", stops_at, patience or 1)
    assert read_manifest(run / "checkpoints" / "last")["step"] == saved
    assert all(tensor.isfinite().all() for tensor in load(run).state_dict().values())


@pytest.mark.parametrize(("spoilt", "saved"), [({5, 6, 7}, 8), ({9, 10, 11}, 11)])
@pytest.mark.parametrize("from_the_one_before", [False, True])
def test_what_was_good_before_a_stop_is_saved_and_goes_on(
    *,
    spoilt: set[int],
    saved: int,
    from_the_one_before: bool,
    tmp_path: Path,
    recipe: Recipe,
    changed: Change,
    train_data: PackedDataset,
    spoil: Callable[..., None],
) -> None:
    """Also when the last steps of all are those: then there is a step left to go on with."""
    first = min(spoilt)
    recipe = changed(recipe, train={"sigma_steps": 20})  # noise in every step
    train(changed(recipe, train={"steps": first, "keep_last": 1}), tmp_path / "good", train_data=train_data)
    spoil(spoilt)
    recipe = changed(recipe, train={"nonfinite_patience": 3, "log_every": 2, "keep_last": 1})
    run = tmp_path / "run"
    with pytest.raises(RunError, match=rf"of step {saved}\. .*delete \S+/last first: then \S+/last-1 is used"):
        train(recipe, run, train_data=train_data)
    one, other = (load(folder).state_dict() for folder in (tmp_path / "good", run))
    assert all(torch.equal(one[name], other[name]) for name in one), "the state before the first of them"
    before = read_manifest(run / "checkpoints" / "last-1")["step"]
    assert before == max(step for step in (4, 8) if step <= first)

    spoil(set())
    if from_the_one_before:
        shutil.rmtree(run / "checkpoints" / "last")
    lower = changed(recipe, train={"learning_rate": 5e-4})
    assert train(lower, run, train_data=train_data, allow_changes=True)
    assert rows(run, "resumed")[0]["step"] == (before if from_the_one_before else saved)
    assert rows(run, "finished")


def test_stopping_again_keeps_what_is_before_the_last_good_state(
    tmp_path: Path, recipe: Recipe, changed: Change, train_data: PackedDataset, spoil: Callable[..., None]
) -> None:
    recipe = changed(recipe, train={"nonfinite_patience": 3, "log_every": 2, "sigma_steps": 20})
    run = tmp_path / "run"
    spoil(set(range(5, 12)))
    for learning_rate in (1e-3, 5e-4, 2e-4):
        with pytest.raises(RunError, match=r"then .*last-1 is used"):
            train(
                changed(recipe, train={"learning_rate": learning_rate}), run, train_data=train_data, allow_changes=True
            )
        assert [read_manifest(run / "checkpoints" / name)["step"] for name in ("last", "last-1")] == [8, 4]


def test_weights_that_are_no_numbers_are_never_saved(
    tmp_path: Path, recipe: Recipe, changed: Change, train_data: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step gives a good loss and ruins the weights: no later step is there to tell."""
    real = training_step.learning_rate_factor
    monkeypatch.setattr(
        training_step,
        "learning_rate_factor",
        lambda step, **options: float("inf") if step == 7 else real(step, **options),
    )
    with pytest.raises(RunError, match="not a number at step 8"):
        train(changed(recipe, train={"steps": 8}), tmp_path / "run", train_data=train_data)
    assert read_manifest(tmp_path / "run" / "checkpoints" / "last")["step"] == 4
