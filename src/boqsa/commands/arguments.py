"""How every command reads its arguments and shows what it found: tyro in, rich tables or JSON out."""

import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from itertools import dropwhile, pairwise, takewhile
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

import tyro

from boqsa.errors import InputError
from boqsa.plain import without_nan

if TYPE_CHECKING:
    from rich.console import Console

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], arguments: list[str], *, command: str, default: Arguments | None = None) -> Arguments:
    """Fill a dataclass from the command line; its docstrings are the help.

    Where a field can be one of several dataclasses, the default's is meant, and its fields alone are options.

    Raises:
        InputError: if something typed is unknown, missing, or of a wrong type.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    options |= {"args": arguments, "prog": f"boqsa {command}", "config": (tyro.conf.AvoidSubcommands,)}
    filled: Arguments
    if {"-h", "--help"} & set(arguments):
        filled = tyro.cli(kind, **options)
        return filled
    _require_values(kind, arguments)
    said = io.StringIO()
    try:
        with redirect_stderr(said), _one_long_line():
            filled = tyro.cli(kind, **options)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise InputError(f"{_in_one_line(said.getvalue())} `boqsa {command} --help` explains it.") from None
    return filled


def _require_values(kind: type[Any], arguments: Sequence[str]) -> None:
    """Refuse an option that takes several values and has none after it: tyro would pass over it."""
    several = {
        f"--{name.replace('_', '-')}" for name, hint in get_type_hints(kind).items() if get_origin(hint) is tuple
    }
    for argument, following in pairwise([*arguments, "--"]):
        if argument.replace("_", "-") in several and following.startswith("--"):
            raise InputError(f"{argument} has no value; give it one, or leave {argument} out.")


@contextmanager
def _one_long_line() -> Iterator[None]:
    """tyro breaks its lines at the width that the terminal is said to have."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"[─╯-]*", line.strip()) is not None


def _in_one_line(box: str) -> str:
    """What tyro says in a box, as a sentence: the first paragraph, and the option that a later one shows."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    # The title goes, and the frame: two columns at the left, which are blank where the terminal is not UTF-8.
    lines = [line[2:].rstrip(" │") for line in plain.splitlines()[1:]]
    first = list(takewhile(lambda line: not _is_rule(line), dropwhile(_is_rule, lines)))
    shown = [line.strip() for line in lines if re.match(r" {4}\S", line)]
    sentence = " ".join(line for line in first if not line.startswith(" "))
    sentence = re.sub(r"\. Expected one of \((.*?),?\)", r"; expected one of \1", sentence).rstrip(".:")
    sentence = sentence.replace("'None', ", "").replace(", 'None'", "").replace(". Expected 1 values", "; give it one")
    unread = r"(?:no type matching .* could be instantiated from|Could not find valid parse for arguments:)"
    sentence = re.sub(
        rf"{unread} \[(.*)\]", lambda found: f"cannot read {found[1]}" if found[1] else "no value", sentence
    )
    sentence = re.sub(r"invalid literal for int.*?: |could not convert string to float: ", "cannot read ", sentence)
    if sentence.startswith("Missing from") and shown:
        missing = [line.strip() for line in first if line.strip() in shown]
        unknown = shown[len(missing) : -1]  # the last one is the command to type for help
        sentence = f"{sentence}: {', '.join(missing)}{'; unrecognized: ' if unknown else ''}{', '.join(unknown)}."
    elif sentence.startswith("Unrecognized") and shown:
        sentence = f"{sentence}; did you mean {shown[0].split()[0]}?"
    elif sentence.startswith("Error parsing") and shown:
        expected = re.sub(r"\{None\}\|\{?(.*?)\}?$", r"\1", shown[0])  # None is what it is when left out
        expected = re.sub(r"\[(\S+) \[\1 \.\.\.\]\]", r"\1, with spaces between several", expected)
        sentence = f"{sentence}; expected {expected}."
    else:
        sentence = f"{sentence}."
    return sentence[:1].lower() + sentence[1:]


def print_json(values: Any) -> None:
    """One JSON document on stdout; NaN, which JSON lacks, becomes null."""
    json.dump(without_nan(values), sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    first_whole: bool = False,
    full_width: bool = False,
    last_below: bool = False,
) -> None:
    """A table on stdout; floats with three digits, numbers to the right.

    On a narrow terminal the widest columns are broken; `first_whole` spares the first one, unless that alone leaves
    the others no room: then it is the one that is broken. With `full_width`, lines
    in a pipe or a file, which has no width, are as long as they need to be. With `last_below`, the last column, which
    has whole sentences, is printed below each row where the table would be wider than the terminal.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    first, *others = zip(columns, *cells, strict=True)
    least = sum(3 + max(len(word) for cell in column for word in (*cell.split(), "")) for column in others)
    widest = max(map(len, first))
    first_fits = widest <= console.width // 2 or widest + 4 + least <= console.width
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] == "" for row in rows)
        whole = first_whole and (index == 0) == first_fits
        table.add_column(column, justify="right" if numeric else "left", no_wrap=whole, overflow="fold")
    for row in cells:
        table.add_row(*row)
    if full_width and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if last_below and console.measure(table, options=console.options.update(max_width=10_000)).maximum > console.width:
        _print_last_below(console, title, rows)
    else:
        console.print(table)


def _print_last_below(console: "Console", title: str, rows: Sequence[Sequence[Any]]) -> None:
    from rich.padding import Padding

    console.print(title, highlight=False, markup=False)
    for *cells, last in rows:
        console.print("  ".join(map(str, cells)), highlight=False, markup=False)
        console.print(Padding(str(last), (0, 0, 0, 4)), highlight=False, markup=False)
