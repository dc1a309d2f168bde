"""The demo as a function, with few scenes and few steps; whether it discovers objects is measured, not tested here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from boqsa.errors import BoqsaError
from boqsa.recipes import Recipe
from boqsa.recipes.cpu import demo
from boqsa.training import demo as demo_module
from boqsa.training.demo import run_demo, scaled_to, steps_in


@pytest.fixture(autouse=True)
def small_demo(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The demo's recipe at 16 pixels with 64 scenes and 4 steps."""
    recipe = demo()
    small = replace(
        recipe,
        data=replace(recipe.data, image_size=16, scene_count=64),
        model=replace(
            recipe.model,
            encoder_channels=(8,),
            encoder_strides=(1,),
            decoder_channels=(8,),
            decoder_strides=(2,),
            decoder_grid=8,
        ),
        train=replace(recipe.train, steps=4, evaluate_every=2, checkpoint_every=2, log_every=1),
        evaluate=replace(recipe.evaluate, validation_limit=16),
    )
    monkeypatch.setattr(demo_module, "get_recipe", lambda name: small)
    return small


def test_demo_writes_what_it_promises(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    metrics = run_demo(out, seed=3, command="boqsa demo --seed 3")
    assert metrics is not None
    written = json.loads((out / "metrics.json").read_text())
    floats = {name for name, value in written.items() if isinstance(value, float)}
    assert floats == {"ari", "ari_fg", "msc_fg", "evaluation_seconds"}
    assert written["ari_fg"] == written["scores"]["last"]["decoder_masks"]["ari_fg"]
    assert written["dataset"]["split"] == "test"
    assert written["dataset"]["images"] == 1000
    assert written["seed"] == 3
    assert 0 <= written["baselines"]["k_means"]["ari_fg"] <= 1
    with Image.open(out / "segmentation.png") as picture:
        picture.load()
    page = (out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "boqsa demo --seed 3" in page
    assert (out / "run" / "checkpoints" / "last" / "model.safetensors").is_file()


def test_finished_demo_and_foreign_folder_are_refused_and_untouched(tmp_path: Path) -> None:
    run_demo(tmp_path / "demo")
    with pytest.raises(BoqsaError, match="finished"):
        run_demo(tmp_path / "demo")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("words")
    with pytest.raises(BoqsaError, match="not empty"):
        run_demo(foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(BoqsaError, match="must be above 0"):
        run_demo(tmp_path / "never", minutes=0)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("minutes", [None, 0.001])
def test_a_demo_that_ended_as_it_was_scored_goes_on_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float | None
) -> None:
    out = tmp_path / "demo"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(demo_module, "evaluate_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(out, minutes=minutes)
    weights = (out / "run" / "checkpoints" / "last" / "model.safetensors").read_bytes()
    with pytest.raises(BoqsaError, match="another recipe"):
        run_demo(out, seed=1, minutes=minutes)
    metrics = run_demo(out, minutes=minutes)
    assert metrics is not None
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html", "run", "segmentation.png"]
    assert (out / "run" / "checkpoints" / "last" / "model.safetensors").read_bytes() == weights
    (out / "segmentation.png").unlink()  # as if it had ended between two of them
    assert run_demo(out, minutes=minutes) is not None
    assert (out / "segmentation.png").is_file()


def test_minutes_become_steps(small_demo: Recipe, tmp_path: Path) -> None:
    metrics = run_demo(tmp_path / "demo", minutes=0.001)
    assert metrics is not None
    steps = json.loads((tmp_path / "demo" / "run" / "recipe.json").read_text())["train"]["steps"]
    assert 1 <= steps < 100
    assert metrics["training"]["steps"] == steps


def test_more_time_is_more_steps(small_demo: Recipe) -> None:
    from boqsa.training.data import open_split

    data = open_split(small_demo.data, "train")
    assert steps_in(10, small_demo, data) > 3 * steps_in(1, small_demo, data)


def test_schedules_keep_their_share_of_the_run() -> None:
    recipe = demo()
    half = scaled_to(recipe, recipe.train.steps // 2)
    for name in ("warmup_steps", "half_life_steps", "sigma_steps", "checkpoint_every", "evaluate_every"):
        assert getattr(half.train, name) == round(getattr(recipe.train, name) / 2)
    assert scaled_to(recipe, recipe.train.steps) == recipe
