"""The demo as a function: scenes, training, scores, report, from one call."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boqsa.atomic import atomic_file
from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model
from boqsa.inference.run import RECIPE, read_recipe
from boqsa.models import Noise
from boqsa.recipes import Recipe, get_recipe
from boqsa.training.data import open_split, open_validation
from boqsa.training.loop import check, train
from boqsa.training.results import evaluate_run, next_steps
from boqsa.training.resume import changes_between, state_of

RUN = "run"
Rendering = Callable[[], AbstractContextManager[Callable[[int, int], None] | None]]
_WARMUP_TIMED, _TIMED = 10, 40
_SHOWN = {
    "metrics.json": "metrics.json",
    "report.html": "report.html",
    "segmentation.png": "pictures/segmentation.png",
}
"""What the folder of a demo has of its run: name there -> below the run."""


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    minutes: float | None = None,
    command: str = "boqsa demo",
    rendering: Rendering = lambda: nullcontext(None),
) -> dict[str, Any] | None:
    """Train the `demo` recipe, score it on held-out scenes and write what was found.

    Args:
        out: Folder to make, an empty one, or one that holds an unfinished demo of the same recipe, which goes on.
        seed: Of the run.
        minutes: Training time, turned into steps by timing some; None takes the recipe's count.
        command: What the user typed, for the report.
        rendering: Context around the rendering; gives a function called with (scenes done, scenes in all).

    Returns:
        The content of `metrics.json` and `next_steps`; None if a signal stopped the training.

    Raises:
        RunError: if `out` holds something else.
        RecipeError: if `minutes` is not positive.
    """
    out = Path(out)
    if minutes is not None and not minutes > 0:
        raise RecipeError(f"--minutes is {minutes}; it must be above 0.")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / RUN / RECIPE).is_file():
        raise RunError(f"{out} is not empty and holds no demo; choose another --out.")
    recipe = replace(get_recipe("demo"), seed=seed)
    if minutes is not None and (out / RUN / RECIPE).is_file():
        recipe = replace(read_recipe(out / RUN), seed=seed)  # timing again would give another step count
    is_trained = _waits_for_scores(recipe, out)
    if not is_trained:
        check(recipe, out / RUN)  # before scenes are rendered: what is refused makes no file
    began = time.monotonic()
    with rendering() as progress:
        train_data = open_split(recipe.data, recipe.data.train_split, progress=progress)
    rendered = time.monotonic()
    if minutes is not None and not (out / RUN / RECIPE).is_file():
        recipe = scaled_to(recipe, steps_in(minutes, recipe, train_data))
    out.mkdir(parents=True, exist_ok=True)
    if not is_trained and not train(
        recipe, out / RUN, train_data=train_data, validation_data=open_validation(recipe.data)
    ):
        return None
    trained = time.monotonic()
    metrics = evaluate_run(out / RUN, command=command)
    for target, source in _SHOWN.items():
        with atomic_file(out / target) as partial:
            shutil.copyfile(out / RUN / source, partial)
    seconds = {
        "scenes": round(rendered - began, 1),
        "training": round(trained - rendered, 1),
        "evaluation": round(time.monotonic() - trained, 1),
    }
    return {**metrics, "seconds": seconds, "next_steps": next_steps(out / RUN, recipe)}


def _waits_for_scores(recipe: Recipe, out: Path) -> bool:
    """Whether the folder holds this very demo, trained to its end, without all of what it shows."""
    run = out / RUN
    if not (run / RECIPE).is_file() or all((out / name).is_file() for name in _SHOWN):
        return False
    done = state_of(run)
    return done is not None and done[0] >= done[1] and not changes_between(read_recipe(run), recipe)


def scaled_to(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps; every schedule keeps its share of the run."""
    share = steps / recipe.train.steps

    def scale(count: int) -> int:
        return max(1, round(count * share))

    return replace(
        recipe,
        train=replace(
            recipe.train,
            steps=steps,
            warmup_steps=scale(recipe.train.warmup_steps),
            half_life_steps=scale(recipe.train.half_life_steps),
            sigma_steps=scale(recipe.train.sigma_steps),
            checkpoint_every=scale(recipe.train.checkpoint_every),
            evaluate_every=scale(recipe.train.evaluate_every),
        ),
    )


def steps_in(minutes: float, recipe: Recipe, data: PackedDataset) -> int:
    """How many steps fit in the time, from timing some on this machine with a model that is thrown away."""
    model = build_model(recipe).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    image = data.batch(range(recipe.train.batch_size))["image"].contiguous(memory_format=torch.channels_last)
    began = 0.0
    for step in range(_WARMUP_TIMED + _TIMED):
        if step == _WARMUP_TIMED:
            began = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.train.precision == "bf16"):
            output = model(image, noise=Noise())
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()
    return max(1, round(minutes * 60 / ((time.monotonic() - began) / _TIMED)))
