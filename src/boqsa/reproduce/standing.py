"""How a method stands among others, in sentences: first or nearly so, and what its lead over each of them is worth."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from boqsa.reproduce.layout import Column, Layout, Score, direction, scores_in
from boqsa.reproduce.paper import PaperCell
from boqsa.reproduce.protocol import differences, refusals
from boqsa.reproduce.rows import Row
from boqsa.reproduce.statistics import Difference, difference, seeds_needed


def comparison_lines(rows: Sequence[Row], layout: Layout, *, way: str = "last") -> list[str]:
    """Where `layout.first` stands in each column that it has scores in: first, or within one standard deviation of it.

    The deviation is that of the method that is first, over its seeds. Methods whose scores are of another data set,
    size, split or metric are left out, and it is said; slots and masks belong to a method and may differ.

    Args:
        rows: Of any columns and selections.
        layout: Its `first` says whose standing is asked.
        way: A key of `boqsa.reproduce.layout.SELECTIONS`.

    Raises:
        InputError: as `scores_in`.
    """
    lines = []
    for column in layout.columns:
        scores = scores_in(column, way, rows)
        if layout.first in scores and direction(column.metric):
            lines.append(f"{column.name}: {_standing(column, layout.first, scores)}.")
    return lines


def _standing(column: Column, claimed: str, scores: Mapping[str, Score]) -> str:
    sign, digits = direction(column.metric), column.digits
    others, left_out, unlike = _comparable(claimed, scores)
    asides = "".join(f"; {text}" for text in [*left_out, *unlike])
    own = scores[claimed].spread
    if not others:
        return f"no other method to compare {claimed} with, {own.text(digits)} over {own.n} seeds{asides}"
    best = max(others, key=lambda name: sign * others[name].spread.mean)
    lead = others[best].spread
    seeds = f"over {own.n} and {lead.n} seeds"
    if own.mean == lead.mean:
        return f"{claimed} is level with {best}, {own.text(digits)} and {lead.text(digits)} {seeds}{asides}"
    if sign * own.mean > sign * lead.mean:
        return f"{claimed} is first, {own.text(digits)}; {best} follows with {lead.text(digits)}, {seeds}{asides}"
    told = f"{best} is first, {lead.text(digits)}; {claimed} has {own.text(digits)}, {seeds}"
    if lead.std is None:
        return f"{told}: one run of the first has no spread to compare with{asides}"
    within = "within" if abs(own.mean - lead.mean) <= lead.std else "not within"
    return f"{told}: {within} one standard deviation of it{asides}"


class Claim(NamedTuple):
    """That `Layout.first` is better than another method in a column."""

    column: Column
    other: str
    found: Difference
    """How much better; below 0 if worse."""
    seeds: int | None
    """Seeds of each method that this difference needs at the observed spread; None where it cannot be told."""
    in_paper: float | None
    """How much better in the paper, in our units; None where it has not both."""
    seeds_in_paper: int | None
    """Seeds that the paper's difference needs at the spread observed here."""


def claims(
    rows: Sequence[Row], layout: Layout, paper_cells: Sequence[PaperCell] = (), *, way: str = "last"
) -> list[Claim]:
    """Whether `layout.first` is better than each other method, column by column.

    Arguments and errors as `comparison_lines`; methods that it leaves out are left out here.
    """
    made = []
    for column in layout.columns:
        scores, sign = scores_in(column, way, rows), direction(column.metric)
        if layout.first not in scores or not sign:
            continue
        own = scores[layout.first]
        for name, other in _comparable(layout.first, scores)[0].items():
            found = difference(*(own.by_seed, other.by_seed)[::sign])
            in_paper = _of_the_paper(column, layout.first, name, paper_cells)
            seeds = seeds_needed(own.spread, other.spread, found.mean)
            theirs = None if in_paper is None else seeds_needed(own.spread, other.spread, in_paper)
            made.append(Claim(column, name, found, seeds, in_paper, theirs))
    return made


def _of_the_paper(column: Column, one: str, other: str, cells: Sequence[PaperCell]) -> float | None:
    """How much better the first method is in the paper, in our units."""
    values = {
        cell.method: cell.in_our_units().value
        for cell in cells
        if (cell.dataset, cell.our_metric) == (column.paper, column.metric)
    }
    if one not in values or other not in values:
        return None
    return direction(column.metric) * (values[one] - values[other])


def _comparable(claimed: str, scores: Mapping[str, Score]) -> tuple[dict[str, Score], list[str], list[str]]:
    """The other methods that may be compared; which may not, and why; and how those that may differ."""
    own = scores[claimed].protocol
    others, left_out, unlike = {}, [], []
    for name, score in scores.items():
        if name == claimed:
            continue
        refused = refusals(own, score.protocol)
        if refused:
            left_out.append(f"{name} is not compared ({'; '.join(refused)})")
            continue
        others[name] = score
        if found := differences(own, score.protocol):
            unlike.append(f"{name} has other {' and '.join(text.split(':')[0] for text in found)}")
    return others, left_out, unlike
