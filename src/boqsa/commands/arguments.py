"""How every command reads its arguments and shows what it found: tyro in, rich tables or JSON out."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from boqsa.plain import without_nan

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], arguments: list[str], *, command: str, default: Arguments | None = None) -> Arguments:
    """Fill a dataclass from the command line; its docstrings are the help. Wrong usage exits with 2.

    Where a field can be one of several dataclasses, the default's is meant, and its fields alone are options.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    config = (tyro.conf.AvoidSubcommands,)
    filled: Arguments = tyro.cli(kind, args=arguments, prog=f"boqsa {command}", config=config, **options)
    return filled


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
) -> None:
    """A table on stdout; floats with three digits, numbers to the right.

    On a narrow terminal the widest columns are broken; `first_whole` spares the first one. With `full_width`, lines
    in a pipe or a file, which has no width, are as long as they need to be.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] == "" for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=first_whole and index == 0)
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    if full_width and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table)
