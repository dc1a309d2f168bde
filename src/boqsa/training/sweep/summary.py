"""What came out of a sweep: a row for each run, and mean and spread over seeds for each setting."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boqsa.errors import BoqsaError, as_typed
from boqsa.recipes import Recipe
from boqsa.training.log import read_log
from boqsa.training.results import HEADLINE
from boqsa.training.sweep.plan import PlannedRun
from boqsa.training.sweep.state import METRICS, read_metrics, state_of_planned

Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run of a sweep, as its folder tells it."""

    name: str
    setting: str
    seed: int
    recipe_hash: str
    step: int
    """Steps up to its last checkpoint."""
    steps: int
    """Steps in all."""
    finished: bool
    held_out: Scores = field(default_factory=dict)
    """`loss` and label metrics of the last evaluation during training, on the validation split."""
    test: Scores = field(default_factory=dict)
    """`loss` and headline metrics of `last` on the test split, where the run was evaluated."""
    damage: str | None = None
    """Why the folder or its checkpoint cannot be used, if it cannot."""


@dataclass(frozen=True)
class Spread:
    """A score over seeds."""

    n: int
    """Finished runs that have the score."""
    mean: float
    std: float | None
    """Sample standard deviation, the squares divided by n - 1; None for one run, which has no spread."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Mean and sample standard deviation of at least one value."""
        return cls(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, digits: int = 3) -> str:
        """As `0.838 ± 0.012`, with so many digits after the point."""
        return f"{self.mean:.{digits}f}" if self.std is None else f"{self.mean:.{digits}f} ± {self.std:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class SettingSummary:
    """Runs that differ by the seed alone."""

    setting: str
    seeds: tuple[int, ...]
    """Of the finished runs."""
    runs: int
    """Planned runs, the unfinished ones too."""
    held_out: dict[str, Spread]
    test: dict[str, Spread]


def read_results(sweep: str | Path, runs: Sequence[PlannedRun]) -> list[RunResult]:
    """A row for each run of a plan, whatever its state."""
    return [_read(Path(sweep), run) for run in runs]


def over_seeds(results: Sequence[RunResult]) -> list[SettingSummary]:
    """Mean and sample standard deviation of every score over the finished runs of each setting, in their order.

    A score that is missing or not a number in a run does not count for it: look at `n`.
    """
    summaries = []
    for setting in dict.fromkeys(result.setting for result in results):
        of_setting = [result for result in results if result.setting == setting]
        finished = [result for result in of_setting if result.finished]
        summaries.append(
            SettingSummary(
                setting=setting,
                seeds=tuple(result.seed for result in finished),
                runs=len(of_setting),
                held_out=_spreads([result.held_out for result in finished]),
                test=_spreads([result.test for result in finished]),
            )
        )
    return summaries


def last_evaluation(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores of the last evaluation in a log; empty if there is none."""
    row: Mapping[str, Any] = next((row for row in reversed(rows) if row["event"] == "evaluation"), {})
    return _numbers({name: value for name, value in row.items() if name not in ("event", "step")})


def _spreads(scores: Sequence[Scores]) -> dict[str, Spread]:
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: Spread.of([one[name] for one in scores if name in one]) for name in names}


def _read(sweep: Path, run: PlannedRun) -> RunResult:
    folder = run.folder(sweep)
    try:
        state = state_of_planned(sweep, run)
    except BoqsaError as error:
        return _row(run, step=0, finished=False, damage=str(error))
    test, damage = _test_scores(folder, run.recipe) if state.finished else ({}, None)
    return _row(
        run,
        step=state.step,
        finished=state.finished,
        held_out=last_evaluation(read_log(folder)),
        test=test,
        damage=state.damage or damage,
    )


def _row(run: PlannedRun, **values: Any) -> RunResult:
    recipe = run.recipe
    return RunResult(
        name=run.name,
        setting=run.setting,
        seed=recipe.seed,
        recipe_hash=recipe.hash,
        steps=recipe.train.steps,
        **values,
    )


def _test_scores(folder: Path, recipe: Recipe) -> tuple[Scores, str | None]:
    """Those of a finished run, and what is wrong with them."""
    path = folder / METRICS
    metrics = read_metrics(folder, recipe)
    if metrics is None:
        again = f"boqsa evaluate {as_typed(folder)}"
        damaged = f"{path} is damaged, or of another state of the run; `{again}` writes it again."
        return {}, damaged if path.exists() else None
    loss = metrics["scores"]["last"].get("loss")
    return _numbers({"loss": loss, **{name: metrics[name] for name in HEADLINE if name in metrics}}), None


def _numbers(values: Mapping[str, Any]) -> Scores:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
