"""Carry out experiments: train what is not trained, look at it, write rows, tables and pictures.

OUT/ITEM.csv    our numbers, one a line (`boqsa.reproduce.rows`)
OUT/ITEM.md     their means beside the paper's numbers
OUT/ITEM_*.png  the pictures
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from boqsa.atomic import one_process, write_text
from boqsa.errors import BoqsaError, InputError
from boqsa.reproduce.drawings import draw
from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.measure import Found, take_looks
from boqsa.reproduce.plan import Look, runs_of
from boqsa.reproduce.results import failed_rows, merged, rows_of
from boqsa.reproduce.rows import read_rows, write_rows
from boqsa.reproduce.write_up import write_up
from boqsa.training.faults import scoring_told_in_words
from boqsa.training.sweep import Engine, grow_plan, run_plan
from boqsa.training.sweep.display import SweepDisplay

_NEEDS_SCIKIT_LEARN = ("separation", "binding")


class Done(NamedTuple):
    """What came of it."""

    written: list[Path]
    failed: dict[str, str]
    """Why, by the name of the run, look or item."""
    left_out: list[str]
    """Earlier rows that were dropped, as they are of another setting: in words."""
    stopped: bool
    """Whether a signal ended it before all was trained; then nothing was written."""


def carry_out(
    experiments: Sequence[Experiment],
    looks: Sequence[Look],
    *,
    whole: Mapping[str, Experiment],
    runs_folder: Path,
    out: Path,
    engine: Engine | None,
    lookers: int | None = 1,
    retries: int = 1,
) -> Done:
    """Train, look, write; what is done already is not done again. What fails is named, and the rest is written.

    Args:
        experiments: With their data placed (`boqsa.reproduce.plan.placed`).
        looks: Of these experiments, at the seeds that are wanted.
        whole: The same experiments by item, with all of their data sets: rows of those are kept.
        runs_folder: Where the runs go; one folder for all items of a scale.
        out: Where tables and pictures go.
        engine: Where to train; None only where nothing is trained.
        lookers: Processes that score at a time; 0 scores in this process, None leaves it to the machine.
        retries: How often a run that broke is started again.

    Raises:
        InputError, RunError: before anything is trained, if `out` or `runs_folder` cannot be used, a table there is
            damaged, or scikit-learn is missing and needed.
    """
    _check_out(out, experiments)
    _check_packages(looks)
    runs = runs_of(looks)
    failed: dict[str, str] = {}
    if runs and engine is not None:
        grow_plan(runs_folder, runs)
        with SweepDisplay(runs_folder, runs) as display:
            end = run_plan(runs_folder, runs, engine=engine, retries=retries, on_event=display.event)
        if end.stopped:
            return Done([], end.failed, [], True)
        failed = dict(end.failed)
    found = _found(runs_folder, [look for look in looks if look.run.name not in failed], failed, workers=lookers)
    written, left_out = [], []
    for experiment in experiments:
        try:
            with scoring_told_in_words(out):
                files, old = _write(experiment, whole[experiment.item], looks, found, failed, runs_folder, out)
        except BoqsaError as error:  # one item's trouble is not that of the others
            failed[experiment.item] = str(error)
            continue
        written += files
        left_out += [f"{experiment.item}: {text}" for text in old]
    return Done(written, failed, left_out, False)


def _check_out(out: Path, experiments: Sequence[Experiment]) -> None:
    """Find out now what would be found out after hours."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / ".writable", "")
        (out / ".writable").unlink(missing_ok=True)  # another command may look at the same moment
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out.") from None
    for experiment in experiments:
        table = out / f"{experiment.item}.csv"
        if table.exists():
            read_rows(table)


def _check_packages(looks: Sequence[Look]) -> None:
    if any(look.test.probe in _NEEDS_SCIKIT_LEARN for look in looks):
        try:
            import sklearn  # noqa: F401  # asked for before hours of training
        except ImportError:
            raise InputError("scikit-learn is needed; type `pip install 'boqsa[reproduce]'`.") from None


def _found(
    runs_folder: Path, looks: Sequence[Look], failed: dict[str, str], *, workers: int | None
) -> list[tuple[Look, Found]]:
    """What every look finds; one that cannot be taken is noted in `failed`."""
    found = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scoring", total=len(looks))
        for look, one in take_looks(runs_folder, looks, workers=workers):
            if isinstance(one, BoqsaError):
                failed[f"{look.run.name}, scored on {look.test.data.name}"] = str(one)
            else:
                found.append((look, one))
            progress.advance(task)
    return found


def _write(
    experiment: Experiment,
    whole: Experiment,
    looks: Sequence[Look],
    found: Sequence[tuple[Look, Found]],
    failed: Mapping[str, str],
    runs_folder: Path,
    out: Path,
) -> tuple[list[Path], list[str]]:
    """The files of an item, and what was dropped of the earlier ones."""
    pairs = [pair for pair in found if pair[0].item == experiment.item]
    rows = [] if experiment.untrained is None else experiment.untrained()
    rows += [row for look, one in pairs for row in rows_of(look, one)]
    rows += failed_rows([look for look in looks if look.item == experiment.item], failed)
    if not rows:
        return [], []
    table, text = out / f"{experiment.item}.csv", out / f"{experiment.item}.md"
    with one_process(out / ".lock", wait=True):  # another machine may end the same item now
        both = merged(whole, rows, table)
        write_rows(table, both.rows)
        of_table = read_rows(table)
        write_text(text, write_up(whole, of_table))
    return [table, text, *draw(experiment, pairs, of_table, runs_folder, out)], both.left_out
