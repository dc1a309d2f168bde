"""Hours of a plan: arithmetic that grows with the work, and what finished runs took."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from boqsa.bench.ceilings import Ceilings
from boqsa.recipes import Recipe, get_recipe
from boqsa.reproduce import hours
from boqsa.reproduce.plan import planned


@pytest.fixture(autouse=True)
def _one_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "_ceilings", lambda precision, device: Ceilings(convolution=1e9, product=1e9))


def changed(recipe: Recipe, **train: object) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **train))  # type: ignore[arg-type]


def of(recipe: Recipe) -> float:
    run = planned(recipe)
    found = hours.hours_of(Path("nowhere"), [run])[run.name]
    assert not found.measured
    return found.hours


def test_hours_grow_with_steps_and_images() -> None:
    demo = get_recipe("demo")
    steps = demo.train.steps
    assert of(changed(demo, steps=2 * steps)) == pytest.approx(2 * of(demo))
    constant = steps * 0.015 / 3600
    assert of(changed(demo, batch_size=32)) - constant == pytest.approx(2 * (of(demo) - constant))


def test_the_arithmetic_is_that_of_three_forward_passes_an_image() -> None:
    demo = get_recipe("demo")
    operations = hours._operations(hours._sizes(demo)).total
    by_hand = demo.train.steps * (3 * 16 * operations / 1e9 / 0.7 + 0.015) / 3600
    assert of(demo) == pytest.approx(by_hand)
    # Its largest layer alone: 5x5, 32 to 16 channels, on 32x32 pixels of 5 slots.
    assert operations > 2 * 25 * 32 * 16 * 16 * 16 * 5


def test_methods_take_the_same_arithmetic() -> None:
    demo = get_recipe("demo")
    other = replace(demo, model=replace(demo.model, queries="shared_gaussian", gradient="unrolled"))
    assert of(other) == of(demo)


def test_a_finished_run_says_what_its_recipe_takes(tmp_path: Path) -> None:
    runs = [planned(replace(get_recipe("demo"), seed=seed)) for seed in (0, 1)]
    folder = runs[1].folder(tmp_path)
    folder.mkdir()
    (folder / "log.jsonl").write_text(json.dumps({"event": "finished", "step": 13_000, "seconds": 360.0}) + "\n")
    found = hours.hours_of(tmp_path, runs)
    assert {entry.hours for entry in found.values()} == {0.1}
    assert all(entry.measured for entry in found.values())


def test_a_run_whose_end_tells_no_seconds_is_not_measured(tmp_path: Path) -> None:
    run = planned(get_recipe("demo"))
    folder = run.folder(tmp_path)
    folder.mkdir()
    (folder / "log.jsonl").write_text(json.dumps({"event": "finished", "step": 13_000}) + "\n")
    assert not hours.hours_of(tmp_path, [run])[run.name].measured
