"""`boqsa evaluate RUN`: score every checkpoint of a run and write its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json, print_table


@dataclass(frozen=True)
class Evaluate:
    """Score every checkpoint of a run on a split; writes metrics.json, pictures and report.html into the run."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    dataset: str | None = None
    """Another data set of the catalog to score on."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Its packed folder, or where the run's own data is now."""
    split: str | None = None
    """Split to score; by default the recipe's test split."""
    iterations: int | None = None
    """Slot-attention steps; by default the trained number."""
    device: str = "cpu"
    """Where to evaluate."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Evaluate, arguments, command="evaluate")

    from dataclasses import replace

    from boqsa.inference.run import read_recipe
    from boqsa.training.results import evaluate_run

    data = read_recipe(chosen.run).data
    if chosen.dataset is not None:
        data = replace(data, name=chosen.dataset, root=None)
    if chosen.root is not None:
        data = replace(data, root=chosen.root)
    metrics = evaluate_run(
        chosen.run,
        data=data,
        split=chosen.split,
        iterations=chosen.iterations,
        device=chosen.device,
        command=" ".join(["boqsa evaluate", *arguments]),
    )
    if chosen.json:
        print_json(metrics)
    else:
        show_scores(metrics)
        print(f"pictures and explanations: {chosen.run}/report.html")
    return 0


_COLUMNS = {
    "ari_fg": "ARI-FG",
    "msc_fg": "MSC-FG",
    "ari": "ARI",
    "background_in_two_slots": "background in 2",
    "iou": "IoU",
    "dice": "Dice",
}
"""The metrics that fit on a terminal; `metrics.json` and the report have all."""


def show_scores(metrics: dict[str, Any]) -> None:
    """A table: one row for each checkpoint and mask source, a column for each main metric."""
    measured = metrics["scores"]["last"].get("decoder_masks", {})
    names = [name for name in _COLUMNS if name in measured]
    rows: list[list[Any]] = []
    for checkpoint, scores in metrics["scores"].items():
        for source in ("decoder_masks", "attention_masks"):
            if source in scores:
                label = f"{checkpoint}, {source.removesuffix('_masks')}"
                rows.append([label, *(scores[source][name] for name in names)])
    for name, scores in metrics["baselines"].items():
        rows.append([name.replace("_", "-"), *(scores.get(column, "") for column in names)])
    where = metrics["dataset"]
    if names:
        title = ", ".join(
            [
                f"{where['name']}, {where['split']}: {where['images']} images",
                *(["part of the published set"] if where["partial"] else []),
                *([where["leak"]] if where["leak"] else []),
            ]
        )
        print_table(title, ("checkpoint, masks", *(_COLUMNS[name] for name in names)), rows)
    errors = metrics["scores"]["last"]["reconstruction"]
    print("reconstruction (last): " + ", ".join(f"{name} {value:.5g}" for name, value in errors.items()))
