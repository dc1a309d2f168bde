"""What a person sees of a sweep: a live table on a terminal, one line an event elsewhere; on stderr."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from boqsa.training.log import FILE
from boqsa.training.sweep.engine import Event
from boqsa.training.sweep.plan import PlannedRun

_TAIL_BYTES = 65_536
_SHOWN = ("ari_fg", "iou", "ap", "ari")
"""The first of these that a run has is its headline."""
_STATES = {
    "skipped": "finished before",
    "started": "running",
    "elsewhere": "at another process",
    "finished": "finished",
    "retried": "started again",
    "failed": "failed",
    "stopped": "stopped",
    "left": "in the queue",
}


class SweepDisplay:
    """Shows the runs of a sweep while `run_plan` works; `event` is its callback.

    Args:
        sweep: Folder of the sweep.
        runs: Its plan.
        console: Where to write; by default stderr.
    """

    def __init__(self, sweep: Path, runs: Sequence[PlannedRun], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._sweep, self._runs = sweep, runs
        self._states = {run.name: "waiting" for run in runs}
        self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=1, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def event(self, event: Event) -> None:
        """Take note of something that happened."""
        self._states[event.run.name] = _STATES[event.kind]
        if self.console.is_terminal and event.kind not in ("failed", "retried"):
            return  # the table says it
        done = sum(state in ("finished", "finished before") for state in self._states.values())
        last = event.text.splitlines()[-1] if event.text else ""
        line = f"{event.run.name}: {_STATES[event.kind]}" + (f" ({last})" if last else "")
        scores = "".join(f"  {text}" for text in _scores(self._sweep, event.run)) if event.kind == "finished" else ""
        self.console.print(f"[{done}/{len(self._runs)}] {line}{scores}", highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(title=str(self._sweep), title_justify="left")
        for column, side in (
            ("run", "left"),
            ("state", "left"),
            ("step", "right"),
            ("loss", "right"),
            ("score", "left"),
        ):
            table.add_column(column, justify="right" if side == "right" else "left", no_wrap=column != "run")
        for run in self._runs:
            rows = last_rows(run.folder(self._sweep))
            step = next((row for row in reversed(rows) if "loss" in row and row["event"] == "step"), None)
            loss = step["loss"] if step and isinstance(step["loss"], float) else None
            table.add_row(
                run.name,
                self._states[run.name],
                f"{rows[-1]['step'] if rows else 0}/{run.recipe.train.steps}",
                "" if loss is None else f"{loss:.5f}",
                " ".join(_scores(self._sweep, run)),
            )
        return table


def last_rows(run: Path) -> list[dict[str, Any]]:
    """The whole rows at the end of a run's log, without reading all of it."""
    try:
        with open(run / FILE, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:  # not made yet
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the first or last one may be half a row
            continue
        if isinstance(row, dict) and "event" in row and "step" in row:
            rows.append(row)
    return rows


def _scores(sweep: Path, run: PlannedRun) -> list[str]:
    """Held-out loss and headline metric of the last evaluation, in words."""
    rows = last_rows(run.folder(sweep))
    row: Mapping[str, Any] = next((row for row in reversed(rows) if row["event"] == "evaluation"), {})
    name = next((name for name in _SHOWN if name in row), None)
    shown = [("held-out loss", row.get("loss"), 5), (name, row.get(name or ""), 3)]
    return [f"{label} {value:.{digits}f}" for label, value, digits in shown if isinstance(value, float)]
