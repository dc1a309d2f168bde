"""What a person sees of a sweep: a live table on a terminal, one line an event elsewhere; on stderr."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from boqsa.training.log import read_log
from boqsa.training.sweep.engine import Event
from boqsa.training.sweep.plan import PlannedRun

_TAIL_BYTES = 65_536
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
        scores = ""
        if event.kind == "finished":
            rows = read_log(event.run.folder(self._sweep), last_bytes=_TAIL_BYTES)
            scores = "".join(f"  {text}" for text in _scores(event.run, rows))
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
            rows = read_log(run.folder(self._sweep), last_bytes=_TAIL_BYTES)
            step = next((row for row in reversed(rows) if "loss" in row and row["event"] == "step"), None)
            loss = step["loss"] if step and isinstance(step["loss"], float) else None
            table.add_row(
                run.name,
                self._states[run.name],
                f"{rows[-1]['step'] if rows else 0}/{run.recipe.train.steps}",
                "" if loss is None else f"{loss:.5f}",
                " ".join(_scores(run, rows)),
            )
        return table


def _scores(run: PlannedRun, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Held-out loss and main metric of the last evaluation, in words."""
    row: Mapping[str, Any] = next((row for row in reversed(rows) if row["event"] == "evaluation"), {})
    metric = run.recipe.evaluate.select_by
    shown = [("held-out loss", row.get("loss"), 5), (metric, row.get(metric), 3)]
    return [f"{label} {value:.{digits}f}" for label, value, digits in shown if isinstance(value, float)]
