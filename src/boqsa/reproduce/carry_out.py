"""Carry out experiments: train what is not trained, look at it, write rows, tables and pictures.

OUT/ITEM.csv    our numbers, one a line (`boqsa.reproduce.rows`)
OUT/ITEM.md     their means beside the paper's numbers
OUT/ITEM*.png   the pictures
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from boqsa.atomic import write_text
from boqsa.reproduce.drawings import draw
from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.findings import finding_lines
from boqsa.reproduce.layout import layout_of
from boqsa.reproduce.measure import Found, masks_of_kind, short_fingerprint, take_looks
from boqsa.reproduce.paper import paper_cells
from boqsa.reproduce.plan import Look, runs_of, test_split, with_those_before
from boqsa.reproduce.protocol import Protocol
from boqsa.reproduce.rows import Row, read_rows, write_rows
from boqsa.reproduce.scales import STAND_INS
from boqsa.reproduce.tables import markdown_table
from boqsa.training.sweep import Engine, run_plan, write_plan
from boqsa.training.sweep.display import SweepDisplay


class Done(NamedTuple):
    """What came of it."""

    written: list[Path]
    failed: dict[str, str]
    """Why, by the run's name."""
    stopped: bool
    """Whether a signal ended it before all was trained; then nothing was written."""


def carry_out(
    experiments: Sequence[Experiment],
    looks: Sequence[Look],
    *,
    runs_folder: Path,
    out: Path,
    engine: Engine | None,
    lookers: int = 1,
    retries: int = 1,
) -> Done:
    """Train, look, write; what is done already is not done again.

    Args:
        experiments: With their data placed (`boqsa.reproduce.plan.placed`).
        looks: Of these experiments, at the seeds that are wanted.
        runs_folder: Where the runs go; one folder for all items of a scale.
        out: Where tables and pictures go.
        engine: Where to train; None only where nothing is trained.
        lookers: Processes that score at a time; 0 scores in this process.
        retries: How often a run that broke is started again.

    Raises:
        RunError: if `runs_folder` holds something else.
    """
    runs = runs_of(looks)
    failed: dict[str, str] = {}
    if runs and engine is not None:
        write_plan(runs_folder, with_those_before(runs_folder, runs))
        with SweepDisplay(runs_folder, runs) as display:
            end = run_plan(runs_folder, runs, engine=engine, retries=retries, on_event=display.event)
        if end.stopped:
            return Done([], end.failed, True)
        failed = end.failed
    found = _found(
        runs_folder,
        [look for look in looks if look.run.name not in failed],
        workers=lookers,
    )
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for experiment in experiments:
        rows = [] if experiment.untrained is None else experiment.untrained()
        rows += [row for look, one in found if look.item == experiment.item for row in rows_of(look, one)]
        rows += _failed_rows([look for look in looks if look.item == experiment.item], failed)
        written += _write(experiment, rows, out)
        pairs = [pair for pair in found if pair[0].item == experiment.item]
        written += draw(experiment, pairs, rows, runs_folder, out)
    return Done(written, failed, False)


def _found(runs_folder: Path, looks: Sequence[Look], *, workers: int) -> list[tuple[Look, Found]]:
    found = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scoring", total=len(looks))
        for pair in take_looks(runs_folder, looks, workers=workers):
            found.append(pair)
            progress.advance(task)
    return found


def rows_of(look: Look, found: Found) -> list[Row]:
    """The rows that a look gives: every metric of its test, of every checkpoint that has it."""
    data = look.test.data
    return [
        Row(
            method=look.method,
            dataset=data.name,
            metric=metric,
            condition=look.test.condition,
            seed=look.run.recipe.seed,
            selection=selection,
            protocol=Protocol(
                data=data.name,
                variant=found.variant,
                split=data.test_split,
                images=found.images,
                image_size=data.image_size,
                slots=found.slots,
                masks=found.masks,
                metric=metric,
            ).text,
            value=values[metric],
        )
        for selection, values in found.values.items()
        for metric in look.test.metrics
        if metric in values
    ]


def _failed_rows(looks: Sequence[Look], failed: Mapping[str, str]) -> list[Row]:
    """Runs that stopped count among those that failed, and have no other number."""
    rows = []
    for look in looks:
        if look.run.name not in failed or "failed" not in look.test.metrics:
            continue
        recipe, dataset = look.run.recipe, test_split(look.test)
        stopped = Found(
            images=len(dataset),
            variant=short_fingerprint(dataset),
            slots=look.test.num_slots or recipe.model.num_slots,
            masks=masks_of_kind(recipe.model.kind),
            values={"last": {"failed": 1.0}},
        )
        rows += rows_of(look, stopped)
    return rows


def _write(experiment: Experiment, rows: list[Row], out: Path) -> list[Path]:
    """The CSV, in which rows of data sets that were left out this time stay, and the tables."""
    if not rows:
        return []
    table = out / f"{experiment.item}.csv"
    if table.is_file():
        mine = {row.dataset for row in rows} | {_trained_on(row) for row in rows}
        rows += [row for row in read_rows(table) if row.dataset not in mine and _trained_on(row) not in mine]
    write_rows(table, rows)
    text = out / f"{experiment.item}.md"
    write_text(text, _told(experiment, read_rows(table)))
    return [table, text]


def _told(experiment: Experiment, rows: Sequence[Row]) -> str:
    """The tables of an item in Markdown: one for each table of the paper, or one where it has none."""
    stand_ins = {ours: theirs for theirs, several in STAND_INS.items() for ours in several}
    rows = _in_order(experiment, rows)
    parts = [f"# {experiment.title}\n"]
    for table in experiment.paper_tables or (0,):
        cells = paper_cells(table) if table else []
        layout = layout_of(rows, cells, metrics=experiment.shown, stand_ins=stand_ins, first=experiment.first)
        parts.append(markdown_table(experiment.item, rows, layout, cells, notes=experiment.notes))
        found = finding_lines(experiment, rows, layout)
        if found:
            parts.append("At checkpoint `last`:\n\n" + "".join(f"- {sentence}\n" for sentence in found))
    return "\n".join(parts)


def _in_order(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """Data set by data set, methods and conditions as the item has them; what it lacks, of earlier, comes last."""
    places = {(arm.method, test.condition): 0 for arm in experiment.arms for test in arm.tests}
    places = {key: place for place, key in enumerate(places)}
    datasets = list(dict.fromkeys(test.data.name for arm in experiment.arms for test in arm.tests))
    datasets += [row.dataset for row in rows]
    ordered = sorted(
        rows,
        key=lambda row: (datasets.index(row.dataset), places.get((row.method, row.condition), len(places))),
    )
    if not experiment.varies_conditions:
        return ordered
    return [row._replace(method=f"{row.method} ({row.condition.replace(';', ', ')})", condition="") for row in ordered]


def _trained_on(row: Row) -> str:
    for part in row.condition.split(";"):
        name, _, value = part.partition("=")
        if name == "trained_on":
            return value
    return row.dataset
