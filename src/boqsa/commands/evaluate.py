"""`boqsa evaluate RUN`: score every checkpoint of a run and write its report."""

from collections.abc import Mapping
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
    generate: int = 32
    """Transformer models: decode so many images from their slots alone and report the error; 0 does without."""
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
        generated=chosen.generate,
        device=chosen.device,
        command=" ".join(["boqsa evaluate", *arguments]),
    )
    if chosen.json:
        print_json(metrics)
    else:
        show_scores(metrics)
        print(f"pictures and explanations: {chosen.run}/report.html")
    return 0


COLUMNS = {
    "ari_fg": "ARI-FG",
    "msc_fg": "MSC-FG",
    "ari": "ARI",
    "background_in_two_slots": "background in 2",
    "ap": "AP",
    "pq": "PQ",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "mbo": "mBO",
    "hungarian_iou": "matched IoU",
    "iou": "oracle slot IoU",
    "dice": "Dice",
    "border_iou": "off-border slot IoU",
    "border_dice": "Dice",
    "fixed_iou": "fixed slot IoU",
    "fixed_dice": "Dice",
}
"""The metrics that fit on a terminal; `metrics.json` and the report have all."""


def columns_of(measured: Mapping[str, Any]) -> list[str]:
    """Which of the columns a table of these scores has; mBO is MSC-FG, and not shown twice."""
    return [name for name in COLUMNS if name in measured and not (name == "mbo" and "msc_fg" in measured)]


def show_scores(metrics: dict[str, Any]) -> None:
    """Tables of the scores and of the errors, and in words what the baselines are and whether the slots work."""
    from boqsa.reports import MASKS, main_masks

    names = columns_of(main_masks(metrics["scores"]["last"]))
    rows: list[list[Any]] = []
    for checkpoint, scores in metrics["scores"].items():
        for source in MASKS:
            if source in scores:
                label = f"{checkpoint}, {source.removesuffix('_masks')}"
                rows.append([label, *(scores[source][name] for name in names)])
    for name, scores in metrics["baselines"].items():
        rows.append([_title(name), *(scores.get(column, "") for column in names)])
    where = metrics["dataset"]
    if names:
        title = ", ".join(
            [
                f"{where['name']}, {where['split']}: {where['images']} images",
                *(["part of the published set"] if where["partial"] else []),
                *([where["leak"]] if where["leak"] else []),
            ]
        )
        print_table(title, ("checkpoint, masks", *(COLUMNS[name] for name in names)), rows)
    for name, scores in metrics["baselines"].items():
        print(f"{_title(name)}: {scores['what']}")
    _show_errors(metrics["scores"]["last"])
    diagnostics = metrics["scores"]["last"]["diagnostics"]
    if diagnostics["verdict"] != "healthy" or diagnostics["warnings"]:
        print(f"state of the slots: {diagnostics['verdict']}")
        for warning in diagnostics["warnings"]:
            print(f"  {warning}")


def _title(baseline: str) -> str:
    from boqsa.reports.explanations import BASELINES

    return BASELINES.get(baseline, baseline)


def _show_errors(scores: Mapping[str, Any]) -> None:
    from boqsa.reports.explanations import RECONSTRUCTIONS

    for name, title in RECONSTRUCTIONS.items():
        if name not in scores:
            continue
        errors = dict(scores[name])
        images = f", first {errors.pop('images')} images" if "images" in errors else ""
        shown = "dVAE" if name == "reconstruction" and "tokens" in scores else title.lower()
        print(f"{shown} (last{images}): " + ", ".join(f"{error} {value:.5g}" for error, value in errors.items()))
    if "tokens" in scores:
        tokens = scores["tokens"]
        print(f"tokens: {tokens['used']} of {tokens['vocabulary']} used, perplexity {tokens['perplexity']:.1f}")
