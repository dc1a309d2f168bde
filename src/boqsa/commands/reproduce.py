"""`boqsa reproduce ITEM...`: the paper's tables, figures and claims, each by one command."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from boqsa.commands import STOPPED
from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.commands.sweep import engine_for, require_numbers, split_fields
from boqsa.errors import InputError, RecipeError
from boqsa.training.sweep import PlannedRun, SlurmSettings, state_of_planned

if TYPE_CHECKING:
    from boqsa.reproduce.plan import Needed


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train what a table, figure or claim of the paper needs, score it, and put the numbers beside the paper's.

    Finished runs are skipped, lost ones are taken up from their checkpoint, and items share their runs. Writes
    OUT/SCALE/ITEM.csv (our runs alone), ITEM.md (beside the paper) and the pictures. Any field of a recipe, such as
    --train.steps 100, then holds for all runs, and results go to a folder that says so.

    boqsa reproduce table7 --scale small --datasets scenes --seeds 0 1 2 3 4
    """

    items: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ITEM...")] = ()
    """What to reproduce: a table or figure of the paper (table7, figure3), a claim that has none (noise), or all."""
    scale: Literal["small", "paper"] = "small"
    """small: minutes a run on two CPU cores. paper: the paper's recipes on its data."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each is a run of every method."""
    root: Annotated[Path | None, tyro.conf.arg(name="data.root", metavar="DIR")] = None
    """Folder that holds a packed folder for each data set, by its name."""
    datasets: tuple[str, ...] = ()
    """Train and score on these data sets alone; by default on all of an item's."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """Weights of AlexNet and of the heads of LPIPS; without them Table 19 goes without that column."""
    out: Path = Path("results")
    """Where the tables go, below a folder of the scale."""
    runs: Path = Path("runs-reproduce")
    """Where the runs go, below a folder of the scale; one folder serves all items."""
    workers: int | None = None
    """Runs at a time; by default 2 at the small scale, else one for each GPU or as many as cores."""
    threads_per_worker: int | None = None
    """CPU threads of a run where its recipe names no number; by default the cores are divided."""
    retries: int = 1
    """How often a run that broke is started again."""
    engine: Literal["local", "slurm"] = "local"
    """Processes of this machine, or jobs of SLURM (`pip install 'boqsa[slurm]'`). Scores are taken on this machine."""
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    dry_run: bool = False
    """Show the runs, the data they need and the hours they take, and do nothing."""
    json: bool = False
    """Print the result as JSON on stdout; progress stays on stderr."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    own, fields = split_fields(arguments, own_too=("data.root",))
    chosen = parse(Reproduce, own, command="reproduce")
    _check(chosen)

    from boqsa.reproduce.items import ITEMS
    from boqsa.reproduce.plan import built, data_needed, looks_of, missing, placed, require_data, runs_of, with_lpips
    from boqsa.reproduce.scales import SCALES

    scale = SCALES[chosen.scale]
    names = list(ITEMS) if "all" in chosen.items else list(dict.fromkeys(chosen.items))
    items = [built(name, scale, fields) for name in names]
    experiments = placed(items, root=chosen.root, datasets=chosen.datasets)
    if chosen.lpips:
        experiments = with_lpips(experiments, chosen.lpips)
    left_out = [name for name in names if name not in {experiment.item for experiment in experiments}]
    if left_out:
        print(f"left out, as they train on other data sets: {', '.join(left_out)}.", file=sys.stderr)
    looks = looks_of(experiments, chosen.seeds)
    folder = chosen.runs / _folder_name(chosen.scale, fields)
    needed = data_needed(looks)
    if chosen.dry_run:
        _show_plan(folder, runs_of(looks), needed, missing(needed), as_json=chosen.json)
        return 0
    require_data(needed)

    from boqsa.reproduce.carry_out import carry_out

    workers = chosen.workers or (scale.at_once if chosen.engine == "local" else None)
    runs = runs_of(looks)
    engine = (
        engine_for(chosen.engine, chosen.slurm, folder, runs, workers=workers, threads=chosen.threads_per_worker)
        if runs
        else None
    )
    done = carry_out(
        experiments,
        looks,
        whole={experiment.item: experiment for experiment in items},
        runs_folder=folder,
        out=chosen.out / _folder_name(chosen.scale, fields),
        engine=engine,
        lookers=workers if chosen.engine == "local" else None,  # of SLURM, it is the jobs in the queue
        retries=chosen.retries,
    )
    if chosen.json:
        print_json({"written": [str(path) for path in done.written], "failed": done.failed})
    else:
        for path in done.written:
            print(path)
    for text in done.left_out:
        print(f"earlier rows of another setting were dropped: {text}", file=sys.stderr)
    for name, reason in done.failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if done.stopped:
        print("stopped; the same command goes on.", file=sys.stderr)
        return STOPPED
    return 1 if done.failed else 0


def _check(chosen: Reproduce) -> None:
    if not chosen.items:
        raise InputError("name at least one item, as `boqsa reproduce table7`; `boqsa reproduce --help` lists them.")
    if not chosen.seeds or min(chosen.seeds) < 0 or len(set(chosen.seeds)) < len(chosen.seeds):
        raise RecipeError(f"--seeds is {' '.join(map(str, chosen.seeds))}; give different numbers, 0 or more.")
    require_numbers(workers=chosen.workers, threads=chosen.threads_per_worker, retries=chosen.retries)


def _folder_name(scale: str, fields: dict[str, str]) -> str:
    """What a user changes never lands among the results of the scale."""
    parts = [f"{name}={re.sub(r'[^A-Za-z0-9.+-]', '-', text)}" for name, text in sorted(fields.items())]
    return ",".join([scale, *parts])


def _show_plan(
    folder: Path, runs: list[PlannedRun], needed: "list[Needed]", wrong: dict[str, str], *, as_json: bool
) -> None:
    from boqsa.reproduce.hours import hours_of

    hours = hours_of(folder, runs)
    states = {run.name: state_of_planned(folder, run) for run in runs}
    left = sum(hours[run.name].hours * (1 - states[run.name].step / run.recipe.train.steps) for run in runs)
    plan = [
        {
            "run": run.name,
            "data": run.recipe.data.name,
            "image_size": run.recipe.data.image_size,
            "steps": run.recipe.train.steps,
            "done": states[run.name].step,
            "hours": round(hours[run.name].hours, 3),
            "hours_measured": hours[run.name].measured,
        }
        for run in runs
    ]
    if as_json:
        splits = [
            {"data": data.name, "image_size": data.image_size, "split": split, "root": data.root}
            for data, split in needed
        ]
        print_json({"runs": plan, "hours_left": round(left, 2), "data": splits, "missing_data": wrong})
        return
    if not runs:
        print("Nothing is trained and no data is needed: this is computed in seconds.")
        return
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for run, entry in zip(runs, plan, strict=True):
        by_recipe.setdefault(run.recipe.name, []).append(entry)
    rows = [
        [
            name,
            entries[0]["steps"],
            f"{sum(entry['done'] == entry['steps'] for entry in entries)} of {len(entries)}",
            _hours(entries[0]),
        ]
        for name, entries in by_recipe.items()
    ]
    print_table(f"{len(runs)} runs in {folder}", ["recipe", "steps", "done", "hours each"], rows, first_whole=True)
    for what, kind in (("Trained", "train_split"), ("Scored", "test_split")):
        sets = [
            f"{data.name} at {data.image_size}x{data.image_size}"
            for data, split in needed
            if split == getattr(data, kind)
        ]
        print(f"{what} on {', '.join(dict.fromkeys(sets))}.")
    print(
        f"{left:.1f} hours are left, one run at a time on this machine and without scoring; ~ is arithmetic, right "
        "within a factor of 3."
    )
    for sentence in wrong.values():
        print(f"missing: {sentence}")


def _hours(entry: Mapping[str, Any]) -> str:
    return f"{'' if entry['hours_measured'] else '~'}{entry['hours']:.2f}"
