"""Results as rows of a CSV file: one number of one run a line, with all that tells it from its neighbours.

The columns are the fields of `Row`. Lines are sorted by data set, condition, metric, method, selection, seed and
protocol, so that equal results are equal files. Floats are written in the shortest form that reads back bit for bit.
"""

import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from boqsa.atomic import write_text
from boqsa.errors import InputError
from boqsa.plain import read_small_text
from boqsa.reproduce.protocol import parse


class Row(NamedTuple):
    """One number of one run."""

    method: str
    dataset: str
    """What was scored on."""
    metric: str
    condition: str
    """What else was set, as `test_iterations=5` or `trained_on=dogs`, several joined by `;`; empty if nothing."""
    seed: int
    selection: str
    """The checkpoint: `last`, `best_loss` (chosen without labels) or `best_<metric>` (with labels)."""
    protocol: str
    """`Protocol.text` of the number."""
    value: float
    """A fraction for scores; in the metric's unit otherwise. Finite."""


_ORDER = ("dataset", "condition", "metric", "method", "selection", "seed", "protocol")
_NAME = re.compile(r"[^\s,;\"|][^,;\"|]*")
_CONDITION = re.compile(r"([a-z_]+=[^;=,|\"\s]+(;[a-z_]+=[^;=,|\"\s]+)*)?")
_SEED = re.compile(r"0|[1-9][0-9]{0,18}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, sorted, in place of what stood there.

    Raises:
        InputError: if a row is not as `Row` says, or two differ in their value alone; nothing is written then.
    """
    rows = sorted(rows, key=_sorted_by)
    for row in rows:
        wrong = _wrong(row)
        if wrong:
            raise InputError(f"cannot write {path}: {wrong}.")
    _refuse_twice(rows, path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(row._replace(value=repr(float(row.value))) for row in rows)  # type: ignore[arg-type]
    write_text(path, text.getvalue())


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote, or somebody by hand, in the file's order.

    Raises:
        InputError: if the file cannot be read or a line is not a row, with its number and what is wrong.
    """
    try:
        text = read_small_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; name a CSV file of results.") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = next(lines, [])
        if header != list(Row._fields):
            raise InputError(f"{path} begins with {','.join(header)[:80]!r}; expected {','.join(Row._fields)}.")
        for line in lines:
            rows.append(_row(line, f"line {lines.line_num} of {path}"))
    except csv.Error as error:
        raise InputError(f"line {lines.line_num} of {path} is no CSV ({error}); mend or remove it.") from None
    _refuse_twice(rows, path)
    return rows


def _row(line: list[str], where: str) -> Row:
    if len(line) != len(Row._fields):
        raise InputError(f"{where} has {len(line)} columns; expected {len(Row._fields)}: {','.join(Row._fields)}.")
    values = dict(zip(Row._fields, line, strict=True))
    for name, form in (("seed", _SEED), ("value", _FLOAT)):
        if not form.fullmatch(values[name]):
            raise InputError(
                f"{where} has the {name} {values[name][:40]!r}; expected a number; mend or remove the line."
            )
    row = Row(**(values | {"seed": int(values["seed"]), "value": float(values["value"])}))  # type: ignore[arg-type]
    wrong = _wrong(row)
    if wrong:
        raise InputError(f"{where}: {wrong}; mend or remove the line.")
    return row


def _wrong(row: Row) -> str:
    """What is wrong with a row, in words; empty if nothing."""
    for name in ("method", "dataset", "metric"):
        value = getattr(row, name)
        if not _NAME.fullmatch(value) or value != value.strip() or not value.isprintable():
            return f"the {name} is {value[:40]!r}; it must be a name without , ; | and quotes"
    if not _CONDITION.fullmatch(row.condition):
        return f"the condition is {row.condition[:40]!r}; it must be empty or as test_iterations=5;trained_on=dogs"
    if row.selection != "last" and not re.fullmatch("best_[a-z_]+", row.selection):
        return f"the selection is {row.selection[:40]!r}; it must be last, best_loss or best_<metric>"
    return _wrong_number(row) or _wrong_protocol(row)


def _wrong_number(row: Row) -> str:
    if row.seed < 0:
        return f"the seed is {row.seed}; it must be at least 0"
    if not math.isfinite(row.value):
        return f"the value of {row.method} on {row.dataset}, seed {row.seed}, is {row.value}; leave such a row out"
    return ""


def _wrong_protocol(row: Row) -> str:
    try:
        parse(row.protocol)
    except InputError as error:
        return str(error).rstrip(".")
    return ""


def _refuse_twice(rows: Iterable[Row], path: str | Path) -> None:
    seen = set()
    for row in rows:
        if row[:-1] in seen:
            raise InputError(
                f"{path}: {row.method} on {row.dataset}, {row.metric}, seed {row.seed}, {row.selection} is there "
                "twice; keep one of the two."
            )
        seen.add(row[:-1])


def _sorted_by(row: Row) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _ORDER)
