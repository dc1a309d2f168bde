"""`boqsa transfer RUN --to NAME...`: score a trained run on data sets that it never saw."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Score a run on other data sets, without training; its own test stands in the first row where it is at hand.

    Writes RUN/transfer.json, and for each set what `boqsa evaluate` writes. A set of another task than the run's is
    scored by its own task's metrics, which the table says.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """Run folder."""
    to: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")]
    """Data sets: names of the catalog (`boqsa data list`), or of folders in data.root."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root", metavar="DIR")] = None
    """Folder that holds a packed folder NAME for each; or the packed folder itself, if one NAME is given."""
    split: str | None = None
    """Split to score; by default the recipe's test split."""
    generate: int = 32
    """Transformer models: decode so many images of each set from their slots alone; 0 does without."""
    device: str = "cpu"
    """Where to evaluate."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Transfer, arguments, command="transfer")

    from boqsa.training.transfer import FILE, transfer

    found = transfer(
        chosen.run,
        list(chosen.to),
        root=chosen.root,
        split=chosen.split,
        generated=chosen.generate,
        device=chosen.device,
        command=shlex.join(["boqsa", "transfer", *arguments]),
    )
    if chosen.json:
        print_json(found)
    else:
        show_transfer(found)
        print(f"all numbers: {chosen.run / FILE}")
    return 0


def show_transfer(found: dict[str, Any]) -> None:
    """A table, one row for each data set; one table for each task if there are several."""
    from boqsa.commands.evaluate import score_table

    for task in dict.fromkeys(row["task"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["task"] == task]
        title = f"{found['recipe']}, checkpoint {found['checkpoint']}, scored as {task}"
        if not any(row["own_protocol"] for row in rows):
            title += ", which is the task of the data and not of the run"
        entries: list[tuple[list[Any], Mapping[str, Any]]] = [
            ([_label(row), row["images"]], row["scores"]) for row in rows
        ]
        score_table(task, title, ["data set, split", "images"], entries)
    if found["own_left_out"] is not None:
        print(f"the run's own data was left out: {found['own_left_out']}")


def _label(row: dict[str, Any]) -> str:
    notes = [*(["own"] if row["own"] else []), *([row["leak"]] if row["leak"] else [])]
    return f"{row['dataset']}, {row['split']}" + (f" ({'; '.join(notes)})" if notes else "")
