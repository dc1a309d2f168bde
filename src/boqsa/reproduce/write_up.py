"""An item's rows as a page of Markdown: tables beside the paper's, what they say about its claims, notes."""

from collections.abc import Sequence
from dataclasses import replace

from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.findings import finding_lines, pairs_table
from boqsa.reproduce.layout import layout_of
from boqsa.reproduce.paper import PaperCell, paper_cells
from boqsa.reproduce.rows import Row
from boqsa.reproduce.scales import STAND_INS
from boqsa.reproduce.tables import markdown_table

_PAIRS = (
    "**Pairs, at checkpoint `last`.** Verdicts go by the 95 % t-interval of the difference, over common seeds where "
    "there are two or more, not corrected for the number of comparisons; seeds are those of each that a two-sided 5 % "
    "test needs to see the difference with 80 % power."
)


def write_up(experiment: Experiment, rows: Sequence[Row]) -> str:
    """The page of an item: a table for each table of the paper, or one where it has none.

    Raises:
        InputError: if numbers of two protocols would be averaged.
    """
    rows = _in_order(experiment, rows)
    if experiment.varies_conditions:
        experiment, rows = _conditions_as_methods(experiment, rows)
    parts = [f"# {experiment.title}\n"]
    for table in experiment.paper_tables or (0,):
        cells = paper_cells(table) if table else []
        layout = layout_of(rows, cells, metrics=experiment.shown, stand_ins=_stand_ins(cells), first=experiment.first)
        parts.append(markdown_table(experiment.item, rows, layout, cells, notes=experiment.notes))
        pairs = pairs_table(experiment.compared, rows, layout)
        if pairs:
            parts.append(f"{_PAIRS}\n\n{pairs}")
        found = finding_lines(experiment, rows, layout)
        if found:
            parts.append("At checkpoint `last`:\n\n" + "".join(f"- {sentence}\n" for sentence in found))
    return "\n".join(parts)


def _stand_ins(cells: Sequence[PaperCell]) -> dict[str, str]:
    """Our data set -> that of the paper's table in whose place it was used; one may stand for others elsewhere."""
    in_table = {name for cell in cells for name in cell.dataset.split("->")}
    return {ours: theirs for theirs, several in STAND_INS.items() if theirs in in_table for ours in several}


def _in_order(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """Data set by data set, methods and conditions as the item has them."""
    places = {(arm.method, test.condition): 0 for arm in experiment.arms for test in arm.tests}
    places = {key: place for place, key in enumerate(places)}
    datasets = list(dict.fromkeys(test.data.name for arm in experiment.arms for test in arm.tests))
    datasets += [row.dataset for row in rows]
    return sorted(
        rows,
        key=lambda row: (datasets.index(row.dataset), places.get((row.method, row.condition), len(places))),
    )


def _conditions_as_methods(experiment: Experiment, rows: Sequence[Row]) -> tuple[Experiment, list[Row]]:
    """Each method at each condition as a method of its own, and the pairs that are to be compared then.

    Under each condition `first` is compared with the others; each method is compared with itself at `baseline`.
    """
    places = list(dict.fromkeys((row.method, row.condition) for row in rows))
    pairs = [
        (_named(experiment.first, condition), _named(method, condition))
        for method, condition in places
        if experiment.first and method != experiment.first
    ]
    pairs += [
        (_named(method, condition), _named(method, experiment.baseline))
        for method, condition in places
        if experiment.baseline and condition != experiment.baseline
    ]
    renamed = [row._replace(method=_named(row.method, row.condition), condition="") for row in rows]
    return replace(experiment, first="", compared=tuple(pairs)), renamed


def _named(method: str, condition: str) -> str:
    return f"{method} ({condition.replace(';', ', ')})"
