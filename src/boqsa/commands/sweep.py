"""`boqsa sweep RECIPE... --out DIR`: many trainings; and `boqsa sweep --resume DIR`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from boqsa.commands import STOPPED
from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.errors import RecipeError, as_typed
from boqsa.inference.run import CHECKPOINTS
from boqsa.recipes import get_recipe
from boqsa.training.evaluation import SHOWN_METRICS
from boqsa.training.sweep import (
    Engine,
    LocalEngine,
    PlannedRun,
    RunResult,
    SettingSummary,
    SlurmEngine,
    SlurmSettings,
    Spread,
    SweepEnd,
    check_data,
    check_init_from,
    check_place,
    make_plan,
    over_seeds,
    read_plan,
    read_results,
    run_plan,
    write_plan,
)
from boqsa.training.sweep.display import SweepDisplay


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Train recipes with all combinations of seeds and values, each run in a process of its own.

    The same command again goes on: finished runs are skipped, lost ones are taken up from their checkpoint, and
    those that another process has are left to it. Recipes come first. Any field of a recipe, such as
    --train.steps 1000, then holds for all runs.

    boqsa sweep demo --out sweep --seeds 0 1 2 --vary train.learning-rate 1e-3 2e-3 --train.steps 1000
    """

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE...")] = ()
    """Recipes to train; `boqsa recipes` lists them."""
    out: Path | None = None
    """Folder to make, or of this very sweep, which then goes on."""
    resume: Path | None = None
    """Folder of a sweep to go on with; takes the place of recipes, fields and --out."""
    seeds: tuple[int, ...] = ()
    """Seeds; by default that of each recipe."""
    vary: tyro.conf.UseAppendAction[
        Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(metavar="FIELD VALUE...")]
    ] = ()
    """A field and the values that it takes. Given several times, all combinations are run. A value of several whole
    numbers has commas: --vary model.encoder-channels 32,32 64,64."""
    evaluate: bool = False
    """Also score each finished run on its test split, as `boqsa evaluate`."""
    workers: int | None = None
    """Runs at a time. By default one for each GPU, or as many as cores. With slurm: jobs in the queue at a time,
    by default all."""
    threads_per_worker: int | None = None
    """CPU threads of a run; by default the cores are divided."""
    retries: int = 1
    """How often a run that broke is started again; one that a signal stopped is started again in any case."""
    engine: Literal["local", "slurm"] = "local"
    """Processes of this machine, or jobs of SLURM (`pip install 'boqsa[slurm]'`)."""
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    dry_run: bool = False
    """Show the runs and their state, and do nothing."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    own, fixed = split_fields(arguments)
    chosen = parse(Sweep, own, command="sweep")
    require_numbers(workers=chosen.workers, threads=chosen.threads_per_worker, retries=chosen.retries)
    sweep, runs = _plan(chosen, fixed)
    check_place(sweep, runs)
    if chosen.engine == "local":  # the nodes of a cluster may have it elsewhere
        check_data(runs)
        check_init_from([run for run in runs if not (sweep / run.name / CHECKPOINTS).exists()])
    if chosen.dry_run:
        _show_plan(sweep, runs, as_json=chosen.json)
        return 0
    engine = engine_for(
        chosen.engine, chosen.slurm, sweep, runs, workers=chosen.workers, threads=chosen.threads_per_worker
    )
    added = write_plan(sweep, runs)
    if 0 < len(added) < len(runs):
        print(f"{sweep} had {len(runs) - len(added)} runs; {len(added)} are new.", file=sys.stderr)
    with SweepDisplay(sweep, runs) as display:
        end = run_plan(
            sweep, runs, engine=engine, evaluate=chosen.evaluate, retries=chosen.retries, on_event=display.event
        )
    return _show_end(sweep, runs, end, as_json=chosen.json)


def require_numbers(*, workers: int | None, threads: int | None, retries: int) -> None:
    """Go on if the numbers of processes, of their threads and of further tries are none too small.

    Raises:
        RecipeError: if one is, by the option that it was typed with.
    """
    for name, value, least in (("workers", workers, 1), ("threads-per-worker", threads, 1), ("retries", retries, 0)):
        if value is not None and value < least:
            raise RecipeError(f"--{name} is {value}; it must be at least {least}.")


def split_fields(arguments: Sequence[str], *, own_too: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """What is the command's own, and the fields of the recipes with their text.

    Args:
        arguments: As typed.
        own_too: Options with a dot that are the command's own.

    Raises:
        RecipeError: if a field is given twice.
    """
    own: list[str] = []
    fields: dict[str, str] = {}
    current: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            is_field = "." in name and not name.startswith("slurm.") and name not in own_too
            current = name.replace("-", "_") if is_field else None
            if current is not None:
                if ".no_" in current and not equals:  # `--train.no-flip`, as `boqsa train` has it
                    current, equals, value = current.replace(".no_", "."), "=", "false"
                if current in fields:
                    raise RecipeError(f"--{name} is given twice; give it once, or vary it: --vary {name} A B.")
                fields[current] = value if equals else ""
                continue
        if current is None:
            own.append(argument)
        else:
            fields[current] = f"{fields[current]} {argument}".strip()
    # A field without a value is a switch that is turned on.
    return own, {name: text or "true" for name, text in fields.items()}


def _plan(chosen: Sweep, fixed: dict[str, str]) -> tuple[Path, list[PlannedRun]]:
    if chosen.resume is not None:
        if chosen.recipes or fixed or chosen.seeds or chosen.vary or chosen.out is not None:
            raise RecipeError(
                "--resume takes all runs from the folder; leave out recipes, --out, --seeds, --vary and fields."
            )
        return chosen.resume, read_plan(chosen.resume)
    if chosen.out is None:
        raise RecipeError("name the folder of the sweep, as in `boqsa sweep demo --seeds 0 1 2 --out DIR`.")

    vary: dict[str, tuple[str, ...]] = {}
    for name, *values in chosen.vary:
        if name in vary:
            raise RecipeError(f"--vary {name} is given twice; give all its values once.")
        vary[name] = tuple(values)
    recipes = [get_recipe(name) for name in chosen.recipes]
    return chosen.out, make_plan(recipes, seeds=chosen.seeds, vary=vary, fixed=fixed)


def engine_for(
    kind: Literal["local", "slurm"],
    slurm: SlurmSettings,
    sweep: Path,
    runs: Sequence[PlannedRun],
    *,
    workers: int | None,
    threads: int | None,
) -> Engine:
    """Where runs are trained, as it was typed."""
    if kind == "slurm":
        return SlurmEngine(sweep, slurm, at_once=workers or 0)
    use_gpus = any(run.recipe.train.device in ("auto", "cuda") for run in runs)
    threads = threads or max(run.recipe.train.threads for run in runs) or None
    return LocalEngine(len(runs), workers=workers, threads=threads, use_gpus=use_gpus)


def _show_plan(sweep: Path, runs: Sequence[PlannedRun], *, as_json: bool) -> None:
    results = read_results(sweep, runs)
    if as_json:
        print_json({"sweep": str(sweep), "runs": [_row(result) for result in results]})
        return
    rows = [[result.name, result.seed, _state(result)] for result in results]
    print_table(f"{len(runs)} runs in {sweep}; nothing was started", ("run", "seed", "state"), rows)


def _show_end(sweep: Path, runs: Sequence[PlannedRun], end: SweepEnd, *, as_json: bool) -> int:
    results = read_results(sweep, runs)
    settings = over_seeds(results)
    if as_json:
        print_json(
            {
                "sweep": str(sweep),
                "stopped": end.stopped,
                "failed": end.failed,
                "runs": [_row(result) for result in results],
                "settings": [asdict(setting) for setting in settings],
            }
        )
    else:
        _show_scores(results, settings)
        for name, text in end.failed.items():
            print(f"{name} failed:", *(text.splitlines() or ["it ended without a word"]), sep="\n  ")
        if end.failed or end.stopped:
            print(f"go on with `boqsa sweep --resume {as_typed(sweep)}`; what the runs said is in {sweep}/.sweep")
    if end.failed:
        return 1
    return STOPPED if end.stopped else 0


def _show_scores(results: Sequence[RunResult], settings: Sequence[SettingSummary]) -> None:
    for title, kind in (("last held-out scores", "held_out"), ("test", "test")):
        scores = [getattr(result, kind) for result in results]
        names = [name for name in _COLUMNS if any(name in one for one in scores)]
        if not names and kind == "test":
            continue
        heads = [_COLUMNS[name] for name in names]
        rows = [
            [result.name, _state(result), *(_number(name, one.get(name)) for name in names)]
            for result, one in zip(results, scores, strict=True)
        ]
        print_table(f"runs, {title}", ("run", "state", *heads), rows)
        means = [
            [
                setting.setting,
                f"{len(setting.seeds)} of {setting.runs}",
                *(_spread(name, getattr(setting, kind).get(name)) for name in names),
            ]
            for setting in settings
        ]
        print_table(f"settings, {title} (mean ± sample std)", ("setting", "finished", *heads), means)


_COLUMNS = {"loss": "loss", **SHOWN_METRICS}
"""The scores that fit on a terminal; `--json` has all."""

_LOSS_DIGITS = 5


def _number(name: str, value: float | None) -> Any:
    if value is None:
        return ""
    return f"{value:.{_LOSS_DIGITS}f}" if name == "loss" else value


def _spread(name: str, spread: Spread | None) -> str:
    return "" if spread is None else spread.text(_LOSS_DIGITS if name == "loss" else 3)


def _state(result: RunResult) -> str:
    if result.damage is not None:
        return "damaged"
    if result.finished:
        return "finished"
    return f"step {result.step} of {result.steps}" if result.step else "not started"


def _row(result: RunResult) -> dict[str, Any]:
    return {**asdict(result), "state": _state(result)}
