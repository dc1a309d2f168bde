"""The log of a run: one JSON object a line in `log.jsonl`, written at once, so that a killed run keeps it.

The same rows, and pictures, go to the sinks that were asked for. `log.jsonl` is the truth and needs none of them: a
sink that fails, as a network does, is left out from then on, and the run goes on.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from boqsa.atomic import write_text
from boqsa.errors import first_line
from boqsa.plain import without_nan
from boqsa.recipes import Recipe
from boqsa.training.sinks import Sink, open_sink, require_sinks

FILE = "log.jsonl"
MOST_BYTES = 256 << 20
"""What is read of a log at most, from its end; a million steps of the demo make some 6 MiB."""
CHANGED = "changed"
"""Event of a row that says what a user changed on purpose between two parts of a run."""


class Log:
    """Appends rows to RUN/log.jsonl. A row has an `event` and a `step`: finished optimiser steps.

    Args:
        run: Run folder.
        sinks: Names of `boqsa.training.sinks.SINKS`, which `open` opens.

    Raises:
        InputError: if a sink is unknown, or its package is not installed.
    """

    def __init__(self, run: Path, sinks: Sequence[str] = ()) -> None:
        self.path = run / FILE
        self._names = tuple(dict.fromkeys(sinks))
        self._sinks: dict[str, Sink] = {}
        self._draws = True
        self._say: Callable[[str], None] = print
        require_sinks(self._names)

    def open(self, recipe: Recipe, start: int, say: Callable[[str], None]) -> None:
        """Open the sinks of a run that goes on after `start` finished steps; `say` tells the user what fails."""
        self._say = say
        for name in self._names:
            try:
                self._sinks[name] = open_sink(name, self.path.parent, recipe=recipe, start=start)
            except Exception as error:
                self._leave_out(name, error)

    def append(self, event: str, step: int, **values: Any) -> None:
        """Add one row; it outlives the process when this returns. NaN, which JSON lacks, becomes null."""
        row = json.dumps(without_nan({"event": event, "step": step, **values}), allow_nan=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(row + "\n")
        self._each(lambda sink: sink.row(event, step, values))

    @property
    def wants_pictures(self) -> bool:
        """Whether a picture would be shown to anyone; drawing one costs time."""
        return self._draws and bool(self._sinks)

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """Show an RGB picture in the sinks; `log.jsonl` has none."""
        self._each(lambda sink: sink.picture(name, step, picture))

    def leave_out_pictures(self, error: Exception) -> None:
        """Want no more pictures, as drawing one failed, and tell the user so."""
        self._draws = False
        self._say(f"drawing a picture failed ({first_line(error)}); the run goes on without pictures")

    def close(self) -> None:
        """End the sinks."""
        self._each(lambda sink: sink.close())
        self._sinks = {}

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

    def _each(self, tell: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                tell(sink)
            except Exception as error:  # anything: other people's code, other people's machines
                del self._sinks[name]
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self._say(f"{name} failed ({first_line(error)}); the run goes on without it, {self.path} has every number")


class NoLog(Log):
    """Of the processes of a job that write nothing."""

    def append(self, event: str, step: int, **values: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def read_log(run: Path, *, last_bytes: int = MOST_BYTES) -> list[dict[str, Any]]:
    """The whole rows of a run's log, in order; an unfinished last line, left by a kill, is passed over.

    So is every line that is no row, and a log that is no file: it may come from a stranger, and a pipe would never end.

    Args:
        run: Run folder; without a log it has no rows.
        last_bytes: Read at most so many bytes, from the end.
    """
    if not (run / FILE).is_file():
        return []
    with open(run / FILE, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
        text = file.read().decode(errors="replace")
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("event"), str) and type(row.get("step")) is int:
            rows.append(row)
    return rows


def values_of(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """The numbers that rows have under a name, in order; what is absent or no finite number is passed over."""
    most = sys.float_info.max  # whole numbers of JSON may be larger, and no float then
    return [row[name] for row in rows if isinstance(row.get(name), int | float) and -most <= row[name] <= most]


def seconds_of(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Training time by the rows of a log; None where they do not tell of an end."""
    found = values_of((row for row in rows if row["event"] == "finished"), "seconds")
    return found[-1] if found else None
