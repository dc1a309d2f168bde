"""The runs below a folder, side by side: how far they are, what they reached, and what sets them apart.

Everything is read from the run folders; nothing is written, no model is built. A run that cannot be read is listed as
damaged, with the reason.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from boqsa.atomic import is_held
from boqsa.errors import BoqsaError, InputError
from boqsa.inference.run import CHECKPOINTS, RECIPE, read_recipe, resumable_folders
from boqsa.recipes import Recipe
from boqsa.recipes.band import Band, curve_hash, expected_band
from boqsa.recipes.recipe import flat
from boqsa.reports.comparison import HELD_OUT_LOSS, ExpectedRange
from boqsa.training.data import logged_identity
from boqsa.training.log import read_log, seconds_of, values_of
from boqsa.training.resume import LOCK, state_of

State = Literal["finished", "running", "stopped", "diverged", "damaged"]

_PLACE = ("name", "seed", "data.root", "train.device", "train.threads", "train.log_every")
"""Fields that are never a difference: those with a place of their own in the table, and those that decide nothing."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What one row of the table says."""

    run: str
    """Path below the folder that was asked for."""
    state: State
    """running: a process holds its lock. stopped: it can be resumed, however it ended. damaged: see `reason`."""
    reason: str = ""
    recipe: str = ""
    seed: int | None = None
    differs: dict[str, Any] = field(default_factory=dict)
    """Its fields in which the listed runs of a recipe of this name are not all alike."""
    step: int = 0
    """Steps of the newest row of the log."""
    steps: int | None = None
    metric: str | None = None
    """Label metric that checkpoints are chosen by: `ari_fg`, `iou` or `ap`."""
    last: dict[str, float] = field(default_factory=dict)
    """Every number of the last evaluation: `loss`, which is the held-out one, and the label metrics."""
    best_loss: float | None = None
    best_metric: float | None = None
    """Highest of all evaluations; chosen by labels."""
    verdict: str | None = None
    """Of the last diagnostics."""
    images_per_second: float | None = None
    """Middle of all rows of the log."""
    seconds: float | None = None
    """Training time of a finished run."""

    def value(self, name: str) -> Any:
        """A column or a number of the last evaluation by its name, None where this run has none."""
        own = getattr(self, name) if name in self.__dataclass_fields__ else None
        return self.last.get(name, own)


def find_runs(folder: str | Path) -> list[Path]:
    """The run folders at, one level below, and two levels below a folder, by name.

    Raises:
        InputError: if there is no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that runs were trained into.")
    found = sorted({path.parent for pattern in ("", "*/", "*/*/") for path in folder.glob(pattern + RECIPE)})
    if not found:
        raise InputError(
            f"no run in {folder}: no {RECIPE} there or up to two levels below; "
            "`boqsa train RECIPE --out RUN` makes one."
        )
    return found


def summarise(folder: str | Path) -> list[RunSummary]:
    """A summary of every run of `find_runs`, with the fields in which they differ.

    Raises:
        InputError: as `find_runs`.
    """
    runs = find_runs(folder)
    recipes: dict[Path, Recipe] = {}
    summaries: dict[Path, RunSummary] = {}
    for run in runs:
        name = str(run.relative_to(folder)) if run != Path(folder) else run.resolve().name
        try:
            recipes[run] = read_recipe(run)
            summaries[run] = _summary(name, run, recipes[run])
        except BoqsaError as error:
            summaries[run] = RunSummary(run=name, state="damaged", reason=str(error))
        except OSError as error:
            reason = f"cannot read {error.filename or run} ({error.strerror or error}); mend its rights or its disk."
            summaries[run] = RunSummary(run=name, state="damaged", reason=reason)
    differing = _differing(list(recipes.values()))
    for run, recipe in recipes.items():
        values = flat(recipe)
        differs = {name: values[name] for name in differing[recipe.name] if name in values}
        summaries[run] = replace(summaries[run], recipe=recipe.name, seed=recipe.seed, differs=differs)
    return list(summaries.values())


def sort_runs(summaries: Sequence[RunSummary], by: str) -> list[RunSummary]:
    """In the order of a column or of a number of the last evaluation, the best first, runs without it last.

    Numbers fall, but for losses and the seed, which rise, as words do.

    Raises:
        InputError: if there is no such column, or no run has a value in it; the message names those there are.
    """
    columns = [name for name in RunSummary.__dataclass_fields__ if name not in ("differs", "last")]
    numbers = sorted({name for summary in summaries for name in summary.last})
    have = [summary for summary in summaries if summary.value(by) is not None]
    if by not in [*columns, *numbers] or (summaries and not have):
        filled = [name for name in columns if any(summary.value(name) not in (None, "") for summary in summaries)]
        raise InputError(
            f"no run has a value {by!r} to sort by; there are {', '.join([*(filled or columns), *numbers])}."
        )
    if not have:
        return []
    rises = by in ("loss", "best_loss", "seed", "seconds") or isinstance(have[0].value(by), str)
    have.sort(key=lambda summary: summary.value(by), reverse=not rises)
    return have + [summary for summary in summaries if summary.value(by) is None]


def _summary(name: str, run: Path, recipe: Recipe) -> RunSummary:
    rows = read_log(run)
    evaluations = [_numbers(row) for row in rows if row.get("event") == "evaluation"]
    rates = sorted(values_of(rows, "images_per_second"))
    diagnostics = [row.get("verdict") for row in rows if row.get("event") == "diagnostics"]
    metric = recipe.evaluate.select_by
    state, reason = _state(run, rows)
    return RunSummary(
        run=name,
        state=state,
        reason=reason,
        step=max((row["step"] for row in rows), default=0),
        steps=recipe.train.steps,
        metric=metric,
        last=evaluations[-1] if evaluations else {},
        best_loss=min(values_of(evaluations, "loss"), default=None),
        best_metric=max(values_of(evaluations, metric), default=None),
        verdict=str(diagnostics[-1]) if diagnostics and diagnostics[-1] else None,
        images_per_second=rates[len(rates) // 2] if rates else None,
        seconds=seconds_of(rows),
    )


def _state(run: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[State, str]:
    if is_held(run / LOCK):
        return "running", ""  # its checkpoints are being replaced: nothing to check
    if resumable_folders(run):
        try:
            state_of(run)
        except BoqsaError as error:
            return "damaged", str(error)
    last = rows[-1].get("event") if rows else None
    if last == "finished":
        # A published log without its checkpoints is a finished run; with an empty folder of them it is not.
        is_whole = bool(resumable_folders(run)) or not (run / CHECKPOINTS).exists()
        return ("finished", "") if is_whole else ("damaged", f"{run} is finished, but has no checkpoint `last`.")
    return ("diverged", "") if last == "diverged" else ("stopped", "")


def _differing(recipes: Sequence[Recipe]) -> dict[str, list[str]]:
    """For each name of a recipe, the fields in which the recipes of that name are not all alike."""
    found: dict[str, list[str]] = {}
    for name in {recipe.name for recipe in recipes}:
        fields = [flat(recipe) for recipe in recipes if recipe.name == name]
        names = dict.fromkeys(field for values in fields for field in values if field not in _PLACE)
        found[name] = [field for field in names if len({json.dumps(values.get(field)) for values in fields}) > 1]
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def curves_to_compare(runs: Sequence[Path]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, ExpectedRange]]:
    """What `boqsa.reports.comparison` draws: the log of each run by a short name, and what is expected of all of them.

    Args:
        runs: Run folders; twice the same counts once.

    Returns:
        Rows by the name of the folder, or by the path where two folders have one name; and the limits of the expected
        band by metric, empty unless one band counts for all the runs.

    Raises:
        RunError, RecipeError: if a folder is no run, or its recipe is damaged.
    """
    runs = list(dict.fromkeys(runs))
    short = [run.resolve().name for run in runs]
    logs: dict[str, list[dict[str, Any]]] = {}
    bands: dict[str, Band | None] = {}
    for run, name in zip(runs, short, strict=True):
        recipe, rows = read_recipe(run), read_log(run)
        logs[name if short.count(name) == 1 else str(run)] = rows
        bands[curve_hash(recipe)] = expected_band(recipe, logged_identity(recipe.data, rows))[0]
    band = next(iter(bands.values())) if len(bands) == 1 else None
    if band is None:
        return logs, {}
    limits = {name: [band.limits(name, at) for at in range(len(band.steps))] for name in band.curves}
    return logs, {
        HELD_OUT_LOSS if name == "loss" else name: ExpectedRange(
            band.steps, [low for low, _ in of_curve], [high for _, high in of_curve]
        )
        for name, of_curve in limits.items()
    }
