"""The log of a run: one JSON object a line in `log.jsonl`, written at once, so that a killed run keeps it."""

import json
import os
from pathlib import Path
from typing import Any

from boqsa.atomic import write_text
from boqsa.plain import without_nan

FILE = "log.jsonl"
CHANGED = "changed"
"""Event of a row that says what a user changed on purpose between two parts of a run."""


class Log:
    """Appends rows to RUN/log.jsonl. A row has an `event` and a `step`: finished optimiser steps."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE

    def append(self, event: str, step: int, **values: Any) -> None:
        """Add one row; it outlives the process when this returns. NaN, which JSON lacks, becomes null."""
        row = json.dumps(without_nan({"event": event, "step": step, **values}), allow_nan=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(row + "\n")

    def flush(self) -> None:
        """Have the rows on the disk: a checkpoint must not outlive the rows before it when the power goes."""
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())

    def cut_after(self, step: int) -> None:
        """Drop the rows past `step`: a resumed run will write them again, and half a last line with them.

        What a user changed on purpose stays: no run writes that again.
        """
        rows = [row for row in read_log(self.path.parent) if row["step"] <= step or row["event"] == CHANGED]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))


class NoLog(Log):
    """Of the processes of a job that write nothing."""

    def append(self, event: str, step: int, **values: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def read_log(run: Path) -> list[dict[str, Any]]:
    """All whole rows of a run's log, in order; an unfinished last line, left by a kill, is passed over.

    So is every line that is no row: a log may come from a stranger.
    """
    path = run / FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("event"), str) and type(row.get("step")) is int:
            rows.append(row)
    return rows
