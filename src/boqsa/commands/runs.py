"""`boqsa runs DIR`: the runs below a folder, side by side."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from boqsa.commands.arguments import parse, print_json, print_table

if TYPE_CHECKING:
    from boqsa.training.runs import RunSummary


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder and up to two levels below, with what sets them apart and what they reached."""

    folder: tyro.conf.Positional[Path] = Path(".")
    """Folder to look in."""
    sort: str | None = None
    """Column or metric to sort by, the best first: ari_fg, iou, loss, best_metric, images_per_second, ..."""
    recipe: str | None = None
    """Only runs of this recipe."""
    state: Literal["finished", "running", "stopped", "diverged", "damaged"] | None = None
    """Only runs in this state."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Runs, arguments, command="runs")

    from boqsa.training.runs import sort_runs, summarise

    found = summarise(chosen.folder)
    shown = [
        summary
        for summary in found
        if chosen.recipe in (None, summary.recipe) and chosen.state in (None, summary.state)
    ]
    if chosen.sort is not None and shown:
        shown = sort_runs(shown, chosen.sort)
    if chosen.json:
        print_json([asdict(summary) for summary in shown])
        return 0
    metrics = sorted({summary.metric for summary in shown if summary.metric is not None})
    if chosen.sort in {name for summary in shown for name in summary.last} - {"loss", *metrics}:
        metrics = [chosen.sort, *metrics]
    heads = ["run", "recipe", "seed", "step", "state", "loss (best)", *(f"{name} (best)" for name in metrics)]
    hidden = len(found) - len(shown)
    title = f"{len(shown)} runs in {chosen.folder}" + (f", {hidden} not shown" if hidden else "")
    rows = [_row(summary, metrics) for summary in shown]
    print_table(title, [*heads, "verdict", "images/s"], rows, first_whole=True)
    for summary in shown:
        if summary.reason:
            print(f"{summary.run}: {summary.reason}")
    _show_differences(shown)
    return 0


def _row(summary: "RunSummary", metrics: list[str]) -> list[Any]:
    scores = [
        _last_and_best(summary.last.get(name), summary.best_metric if name == summary.metric else None, digits=3)
        for name in metrics
    ]
    of_all = "" if summary.steps in (None, summary.step) else f"/{summary.steps}"
    return [
        summary.run,
        summary.recipe,
        "" if summary.seed is None else summary.seed,
        f"{summary.step}{of_all}",
        summary.state,
        _last_and_best(summary.last.get("loss"), summary.best_loss, digits=5),
        *scores,
        summary.verdict or "",
        "" if summary.images_per_second is None else round(summary.images_per_second),
    ]


def _last_and_best(last: float | None, best: float | None, *, digits: int) -> str:
    if last is None:
        return ""
    return f"{last:.{digits}f}" + ("" if best is None else f" ({best:.{digits}f})")


def _show_differences(shown: "list[RunSummary]") -> None:
    """Below the table, for recipes are too long for columns: what sets the runs of a recipe of one name apart."""
    for summary in shown:
        if summary.differs:
            print(f"{summary.run}: {', '.join(f'{name} {value}' for name, value in summary.differs.items())}")
