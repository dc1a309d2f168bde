"""The process of one run: `python -m boqsa.training.sweep SWEEP NAME`, and the same as a function.

The run goes on from its checkpoint if it has one. Another process that has the run is left alone.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from boqsa.atomic import DISK_IS_FULL
from boqsa.errors import BoqsaError, BusyError, FullDiskError, InputError, as_typed
from boqsa.inference.run import RECIPE, read_recipe
from boqsa.recipes import Recipe
from boqsa.training.data import open_split, open_validation
from boqsa.training.loop import train
from boqsa.training.results import evaluate_run
from boqsa.training.sweep.engine import Ended, Outcome
from boqsa.training.sweep.plan import PlannedRun, read_plan
from boqsa.training.sweep.state import claimed, is_done, state_of_planned


def work_on(sweep: Path, run: PlannedRun, *, threads: int = 0, evaluate: bool = False) -> Ended:
    """Train a planned run to its end in this process, and score it if asked.

    Args:
        sweep: Folder of the sweep.
        run: Of its plan.
        threads: CPU threads where neither the recipe nor an earlier part of the run names a number; 0 keeps torch's.
        evaluate: Whether to score it on its test split afterwards, as `boqsa evaluate` does.

    Returns:
        How it ended: done, stopped by a signal, busy elsewhere, broken by a full disk, or refused with a reason. What
        is a bug, or else the machine's state, is raised.
    """
    try:
        with claimed(sweep, run):
            state = state_of_planned(sweep, run)
            folder = run.folder(sweep)
            if not state.finished and not _train(_on_this_machine(run.recipe, folder, threads), folder):
                return Ended(Outcome.STOPPED)
            if not is_done(state_of_planned(sweep, run), evaluate=evaluate):
                evaluate_run(folder, device=device_of(run.recipe), command=f"boqsa evaluate {as_typed(folder)}")
            return Ended(Outcome.DONE)
    except BusyError:
        return Ended(Outcome.BUSY)
    except FullDiskError as error:
        return Ended(Outcome.BROKEN, str(error))
    except BoqsaError as error:
        return Ended(Outcome.REFUSED, str(error))
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        where = error.filename or sweep
        return Ended(Outcome.BROKEN, f"no space is left to write {where}; free some, then give the command again.")


def _train(recipe: Recipe, folder: Path) -> bool:
    return train(
        recipe,
        folder,
        train_data=open_split(recipe.data, recipe.data.train_split),
        validation_data=open_validation(recipe.data),
    )


def _on_this_machine(recipe: Recipe, folder: Path, threads: int) -> Recipe:
    """The recipe with a number of threads: results are bit-identical only at the one that a run began with."""
    began = read_recipe(folder).train.threads if (folder / RECIPE).is_file() else 0
    return replace(recipe, train=replace(recipe.train, threads=recipe.train.threads or began or threads))


def device_of(recipe: Recipe) -> str:
    """Where a run of a recipe is scored."""
    return "cuda" if recipe.train.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process; the exit code is an `Outcome`."""
    parser = argparse.ArgumentParser(prog="python -m boqsa.training.sweep", description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        run = next((run for run in read_plan(chosen.sweep) if run.name == chosen.name), None)
        if run is None:
            raise InputError(f"{chosen.sweep} plans no run {chosen.name}.")
        ended = work_on(chosen.sweep, run, threads=chosen.threads, evaluate=chosen.evaluate)
    except BoqsaError as error:
        ended = Ended(Outcome.REFUSED, str(error))
    if ended.text:
        print(ended.text, file=sys.stderr)
    return ended.outcome.value
