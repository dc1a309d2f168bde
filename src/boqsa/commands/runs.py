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
    if chosen.sort is not None:
        shown = sort_runs(shown, chosen.sort)
    if chosen.json:
        print_json([asdict(summary) for summary in shown])
        return 0
    recipes = {summary.recipe for summary in shown if summary.recipe}
    metrics = {name for summary in shown for name in summary.last} - {"loss", *(summary.metric for summary in shown)}
    more = [chosen.sort] if chosen.sort in metrics else []
    title = (
        f"{len(shown)} run{'' if len(shown) == 1 else 's'}"
        + (f" of {next(iter(recipes))}" if len(recipes) == 1 else "")
        + f" in {chosen.folder}"
    )
    if len(shown) < len(found):
        title += f", {len(found) - len(shown)} not shown"
    heads = ["run", "seed", "step", "state", "loss (best)", *more, "score (best)", "slots", "images/s"]
    print_table(title, heads, [_row(summary, more) for summary in shown], first_whole=True, full_width=True)
    for summary in shown:
        if line := _below(summary, name_recipe=len(recipes) > 1):
            print(f"{summary.run}: {line}")
    return 0


def _row(summary: "RunSummary", more: list[str]) -> list[Any]:
    of_all = "" if summary.steps in (None, summary.step) else f"/{summary.steps}"
    score = summary.last.get(summary.metric or "")
    return [
        summary.run,
        "" if summary.seed is None else summary.seed,
        f"{summary.step}{of_all}",
        summary.state,
        _last_and_best(summary.last.get("loss"), summary.best_loss, digits=4),
        *(summary.last.get(name, "") for name in more),
        "" if score is None else f"{summary.metric} {_last_and_best(score, summary.best_metric, digits=3)}",
        summary.verdict or "",
        "" if summary.images_per_second is None else round(summary.images_per_second),
    ]


def _last_and_best(last: float | None, best: float | None, *, digits: int) -> str:
    if last is None:
        return ""
    return f"{last:.{digits}f}" + ("" if best is None else f" ({best:.{digits}f})")


def _below(summary: "RunSummary", *, name_recipe: bool) -> str:
    """What is too long for a column: why a run is damaged, its recipe, and what sets it apart."""
    parts = [summary.reason] if summary.reason else []
    parts += [summary.recipe] if name_recipe and summary.recipe else []
    return ", ".join([*parts, *(f"{name} {_short(value)}" for name, value in summary.differs.items())])


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
