"""What is shown of a sweep, with a terminal and without."""

import io
from pathlib import Path

from rich.console import Console

from boqsa.training.sweep import Event, PlannedRun
from boqsa.training.sweep.display import SweepDisplay
from boqsa.training.sweep.worker import work_on


def test_one_plain_line_an_event(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0])
    console = Console(file=io.StringIO(), width=40)
    with SweepDisplay(sweep, runs, console) as display:
        display.event(Event(runs[0], "started", "12 steps"))
        display.event(Event(runs[0], "finished"))
        display.event(Event(runs[1], "failed", "a line\nthe last line [0]"))
    started, finished, failed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert started == f"[0/3] {runs[0].name}: running (12 steps)"
    assert finished.startswith(f"[1/3] {runs[0].name}: finished  held-out loss 0.")
    assert "  ari_fg " in finished
    assert failed == f"[1/3] {runs[1].name}: failed (the last line [0])"


def test_a_table_with_a_row_a_run_on_a_terminal(sweep: Path, runs: list[PlannedRun]) -> None:
    work_on(sweep, runs[0])
    output = io.StringIO()
    console = Console(file=output, width=160, force_terminal=True)
    with SweepDisplay(sweep, runs, console) as display:
        display.event(Event(runs[0], "finished"))
        display.event(Event(runs[1], "started", "12 steps"))
        console.print(display._table())
    shown = output.getvalue()
    rows = {run.name: next(line for line in shown.splitlines() if run.name in line and "│" in line) for run in runs}
    assert "finished" in shown
    assert "12/12" in rows[runs[0].name] or "12/12" in shown
    assert shown.count("0/12") >= 2
    assert "running" in shown
    assert "waiting" in shown
