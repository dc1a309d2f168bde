"""How long a plan takes on this machine: what finished runs of a recipe took, or arithmetic where there are none.

The arithmetic: three forward passes an image (the backward pass is two more), at the share of this machine's measured
ceiling that `boqsa bench` finds for the paper's recipes, and a constant a step for all that is no arithmetic. It is
right within a factor of two or three, which is what a plan needs.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from boqsa.bench.ceilings import SIZES, Ceilings, measure_ceilings
from boqsa.bench.operations import OperationCounter, Operations
from boqsa.inference.load import build_model
from boqsa.models.radiance import RadianceModel, Views
from boqsa.recipes import DataRecipe, RadianceTrainRecipe, Recipe, TrainRecipe
from boqsa.training.log import read_log, seconds_of
from boqsa.training.sweep import PlannedRun

_SHARE_OF_CEILING = 0.7
_SECONDS_A_STEP = 0.015
"""Of small steps, whose many kernels do little each (docs/bench.md)."""


_OF_NO_SIZE: dict[str, Any] = {
    "queries": "learned",
    "gradient": "bilevel",
    "perturbation": "multiplicative",
    "epsilon": 1.0,
    "epsilon_form": "sum",
    "drop_path": 0.0,
    "initial_weights": "torch",
}
"""Fields of a model that change no size, and one value for each."""


class Hours(NamedTuple):
    """Of one run, one at a time on this machine."""

    hours: float
    measured: bool
    """Taken from a finished run of the same recipe, whatever its seed."""


def hours_of(runs_folder: Path, runs: Sequence[PlannedRun]) -> dict[str, Hours]:
    """Hours of every run of a plan, by its name."""
    took: dict[str, float] = {}
    for run in runs:
        seconds = seconds_of(read_log(run.folder(runs_folder)))
        if seconds is not None:
            took.setdefault(run.recipe.name, seconds)
    return {
        run.name: Hours(took[run.recipe.name] / 3600, True)
        if run.recipe.name in took
        else Hours(_arithmetic(run.recipe) / 3600, False)
        for run in runs
    }


def _arithmetic(recipe: Recipe) -> float:
    settings = recipe.train
    step = Operations(0, 0).plus(_operations(_sizes(recipe)), 3 * settings.batch_size)
    seconds = _ceilings(settings.precision, settings.device).floor_s(step) / _SHARE_OF_CEILING + _SECONDS_A_STEP
    return seconds * settings.steps


def _sizes(recipe: Recipe) -> Recipe:
    """The recipe with all that changes no size set to one value, so that recipes of one size are counted once."""
    own = {entry.name for entry in fields(recipe.model)}
    return Recipe(
        name="any",
        data=DataRecipe(name="any", image_size=recipe.data.image_size),
        train=TrainRecipe(radiance=recipe.train.radiance),
        model=replace(recipe.model, **{name: value for name, value in _OF_NO_SIZE.items() if name in own}),
    )


@cache
def _operations(recipe: Recipe) -> Operations:
    """Of a forward pass on one image."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build_model(recipe).eval()
        if isinstance(model, RadianceModel):
            return _of_rays(model, recipe.train.radiance)
        image = torch.zeros(1, 3, recipe.data.image_size, recipe.data.image_size)
        with OperationCounter() as counter:
            model(image)
    counted: Operations = counter.counted
    return counted


def _of_rays(model: RadianceModel, settings: RadianceTrainRecipe) -> Operations:
    """Of a pass over a scene: what the encoder does, and what each ray adds, found with two small numbers of rays."""
    few, more = 16, 32
    counted = []
    views = Views(
        image=torch.zeros(1, 1, 3, model.image_size, model.image_size, dtype=torch.uint8),
        camera=torch.eye(4).expand(1, 1, 4, 4),
        azimuth=torch.eye(3).expand(1, 1, 3, 3),
    )
    for count in (few, more):
        with OperationCounter() as counter:
            pixels = torch.zeros(1, count, 3, dtype=torch.long)
            model(views, pixels, size=model.image_size, samples=settings.samples, local=False)
        counted.append(counter.counted)
    rays = settings.rays or settings.views * settings.coarse_size**2
    times = round((rays - few) / (more - few))
    total: Operations = counted[0].plus(counted[1], times).plus(counted[0], -times)
    return total


@cache
def _ceilings(precision: str, device: str) -> Ceilings:
    kind = "cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return measure_ceilings(torch.device(kind), dtype, SIZES[kind], seconds=0.5)
