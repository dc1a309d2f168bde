"""Tables in Markdown that put our numbers beside the paper's.

A row is a method, in the paper's order; a column is a metric on a data set, with the paper's number to its right. There
is one table for each way to choose the checkpoint. A difference is shown only where both numbers are of one protocol
as far as both are known; why there is none, what the paper does not state, and every doubt stand under the table.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from boqsa.reproduce.layout import SELECTIONS, Column, Layout, Score, direction, scores_in, ways_to_choose
from boqsa.reproduce.paper import BEST_RUN_TABLES, PaperCell
from boqsa.reproduce.protocol import differences, not_known, open_points, paper_protocol
from boqsa.reproduce.rows import Row
from boqsa.reproduce.standing import Claim, claims, comparison_lines

__all__ = ["comparison_lines", "markdown_table"]

NOTHING = "—"
_COLUMNS_A_TABLE = 4


def markdown_table(
    item: str, rows: Sequence[Row], layout: Layout, paper_cells: Sequence[PaperCell] = (), *, notes: Iterable[str] = ()
) -> str:
    """The results of an item, with all that must be said of them.

    Args:
        item: What it is called, as `Table 7`.
        rows: Ours, of any selections; those of other columns are left aside.
        layout: The columns, as `boqsa.reproduce.layout.layout_of` gives them.
        paper_cells: Of one table of the paper; none for an item that has no table.
        notes: Further sentences for the list under the tables.

    Returns:
        Markdown that ends in a line break.

    Raises:
        InputError: if scores of two protocols or two selections would be averaged, or a seed is there twice.
    """
    rows = [row for row in rows if row[1:4] in {column[:3] for column in layout.columns}]
    methods = list(dict.fromkeys([*(cell.method for cell in paper_cells), *(row.method for row in rows)]))
    remarks = _Remarks()
    best_run = any(cell.table in BEST_RUN_TABLES for cell in paper_cells)
    ways = ways_to_choose(rows) or ["last"]
    parts = []
    for way in ways:
        parts.append(_caption(item, way, paper_cells, best_run))
        for columns in _pages(layout.columns):
            blocks = [_block(column, way, rows, methods, paper_cells, best_run, remarks) for column in columns]
            parts.append(_grid(methods, blocks))
        standings = comparison_lines(rows, layout, way=way)
        if standings:
            parts.append("\n".join(f"- {sentence}" for sentence in standings))
    made = claims(rows, layout, paper_cells, way=ways[0])
    if made:
        parts.append(_claims_caption(layout.first, ways[0]))
        parts.append(_claims(made))
    under = [*remarks.sentences(), *_about_spreads(paper_cells), *notes]
    if under:
        parts.append("Notes:\n\n" + "\n".join(f"- {sentence}" for sentence in under))
    return "\n\n".join(parts) + "\n"


def _caption(item: str, way: str, paper_cells: Sequence[PaperCell], best_run: bool) -> str:
    best = " and the best seed" if best_run else ""
    theirs = ""
    if paper_cells:
        which = "its best run" if best_run else "in our units"
        ours = "our best seed" if best_run else "ours"
        theirs = f"; beside it the paper's number ({which}), and {ours} minus it where the protocol is the same"
    return f"**{item}, {SELECTIONS[way]}.** Mean ± sample standard deviation over seeds (how many){best}{theirs}."


def _pages(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns in tables that a page has room for; neighbours of one data set stay together."""
    pages: list[list[Column]] = []
    for _, group in groupby(columns, key=lambda column: column.place):
        together = list(group)
        if pages and len(pages[-1]) + len(together) <= _COLUMNS_A_TABLE:
            pages[-1] += together
        else:
            pages.append(together)
    return pages


def _block(
    column: Column,
    way: str,
    rows: Sequence[Row],
    methods: Sequence[str],
    paper_cells: Sequence[PaperCell],
    best_run: bool,
    remarks: "_Remarks",
) -> dict[str, list[str]]:
    """A column with those that belong to it: text by header, a cell for each method."""
    scores = scores_in(column, way, rows)
    theirs = {
        cell.method: cell for cell in paper_cells if (cell.dataset, cell.our_metric) == (column.paper, column.metric)
    }
    block = {column.title: [_ours(scores.get(method), column, best_run) for method in methods]}
    if theirs:
        heading = "paper" if column.paper == _paper_form(column) else f"paper, {column.paper}"
        block[heading] = [_theirs(theirs.get(method), column, remarks) for method in methods]
        found = [_difference(scores.get(method), theirs.get(method), column, best_run, remarks) for method in methods]
        if any(text != NOTHING for text in found):
            block["difference"] = found
    return block


def _paper_form(column: Column) -> str:
    """What the paper calls the column's own data set, where nothing stands in."""
    source = column.condition.removeprefix("trained_on=")
    return f"{source}->{column.dataset}" if column.paper and "->" in column.paper else column.dataset


def _ours(score: Score | None, column: Column, best_run: bool) -> str:
    if score is None:
        return NOTHING
    digits, sign = column.digits, direction(column.metric)
    best = f", best {score.best(sign):.{digits}f}" if best_run and sign else ""
    return f"{score.spread.text(digits)} ({score.spread.n}){best}"


def _theirs(cell: PaperCell | None, column: Column, remarks: "_Remarks") -> str:
    if cell is None:
        return NOTHING
    units = cell.in_our_units()
    where = f"{cell.dataset} {cell.metric}"
    if cell.doubtful:
        remarks.add(f"(?) {cell.note}", cell.method, where)
    elif cell.note:
        remarks.add(f"The paper's number: {cell.note}", cell.method, where)
    if units.conversion and not cell.unit.startswith("percent"):
        remarks.add(f"The paper's number is shown {units.conversion}", cell.method, f"{where}, printed {cell.printed}")
    if open_points(cell):
        remarks.add(f"In the metrics, {open_points(cell)}", column.metric)
    spread = "" if units.spread is None else f" ± {units.spread:.{units.decimals}f}"
    return f"{units.value:.{units.decimals}f}{spread}{' (?)' if cell.doubtful else ''}"


def _difference(
    score: Score | None, cell: PaperCell | None, column: Column, best_run: bool, remarks: "_Remarks"
) -> str:
    if score is None or cell is None:
        return NOTHING
    theirs = paper_protocol(cell)
    found = differences(score.protocol, theirs)
    if found:
        remarks.add(f"No difference to the paper, ours -> paper: {'; '.join(found)}", cell.method, column.name)
        return NOTHING
    unknown = not_known(score.protocol, theirs)
    if unknown:
        remarks.add(f"Not stated in the paper, so not compared: {', '.join(unknown)}", cell.method, column.name)
    value = score.best(direction(column.metric)) if best_run else score.spread.mean
    return _signed(value - cell.in_our_units().value, column)


def _signed(number: float, column: Column) -> str:
    text = f"{number:+.{column.digits}f}"
    return text[1:] if float(text) == 0 else text  # neither +0.000 nor -0.000


def _claims_caption(first: str, way: str) -> str:
    return (
        f"**Is {first} better, at {SELECTIONS[way]}?** The verdict goes by the 95 % t-interval of the difference, not "
        "corrected for the number of comparisons. Seeds of each method: as many as a two-sided 5 % test needs to see a "
        "difference with 80 % power, at the spread observed here, of independent seeds."
    )


def _claims(made: Sequence[Claim]) -> str:
    heading = ["better than", "in", "by", "95 % interval", "runs", "verdict", "seeds for that"]
    with_paper = any(claim.in_paper is not None for claim in made)
    lines = [heading + (["in the paper", "seeds for that"] if with_paper else [])]
    for claim in made:
        column, found = claim.column, claim.found
        line = [
            claim.other,
            column.name,
            _signed(found.mean, column),
            found.interval.text(column.digits) if found.interval else NOTHING,
            f"{len(found.seeds)} paired" if found.is_paired else " and ".join(map(str, found.n)),
            found.verdict,
            str(claim.seeds or NOTHING),
        ]
        theirs = NOTHING if claim.in_paper is None else _signed(claim.in_paper, column)
        lines.append(line + ([theirs, str(claim.seeds_in_paper or NOTHING)] if with_paper else []))
    return _lines_of(lines)


def _grid(methods: Sequence[str], blocks: Sequence[dict[str, list[str]]]) -> str:
    """Without the methods that have nothing in these columns."""
    columns = [(heading, cells) for block in blocks for heading, cells in block.items()]
    lines = [[method, *(cells[at] for _, cells in columns)] for at, method in enumerate(methods)]
    lines = [line for line in lines if any(cell != NOTHING for cell in line[1:])]
    return _lines_of([["method", *(heading for heading, _ in columns)], *lines])


def _lines_of(lines: list[list[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def _about_spreads(paper_cells: Sequence[PaperCell]) -> list[str]:
    kinds = {(cell.spread_kind, cell.trials) for cell in paper_cells if cell.spread is not None}
    return [
        f"The paper's ± is what its caption calls {kind} over {trials} trials; its size suggests a standard deviation."
        for kind, trials in sorted(kinds, key=str)
    ]


_RANKS = ("(?)", "No difference", "Not stated", "The paper's number is shown", "In the metrics", "The paper's number")
"""In this order remarks stand, by how they begin."""


class _Remarks:
    """Sentences under a table, each once, with the cells that it is about."""

    def __init__(self) -> None:
        self._about: dict[str, dict[str, dict[str, None]]] = {}

    def add(self, text: str, subject: str, where: str = "") -> None:
        """Say something of a subject, a method or a metric, in a column."""
        self._about.setdefault(text, {}).setdefault(where, {})[subject] = None

    def sentences(self) -> list[str]:
        """In the order of `_RANKS`, and of their first cell."""
        texts = [text for begin in _RANKS for text in self._about if text.startswith(begin)]
        return [f"{text} ({_places(self._about[text])})." for text in dict.fromkeys(texts)]


def _places(about: dict[str, dict[str, None]]) -> str:
    """Subjects with the columns that they share, as `SA, QSA: dogs iou, dogs dice; I-SA: dogs iou`."""
    places: dict[str, list[str]] = {}
    for where, subjects in about.items():
        places.setdefault(", ".join(subjects), []).append(where)
    return "; ".join(f"{subjects}: {', '.join(where)}".removesuffix(": ") for subjects, where in places.items())
