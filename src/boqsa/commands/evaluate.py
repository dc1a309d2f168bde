"""`boqsa evaluate RUN`: score every checkpoint of a run and write its report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from boqsa.commands.arguments import parse, print_json, print_table
from boqsa.errors import InputError, RecipeError


@dataclass(frozen=True)
class Evaluate:
    """Score every checkpoint of a run on a split; writes metrics.json, pictures and report.html into the run."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    dataset: str | None = None
    """Another data set to score on, by its name."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Its packed folder, or where the run's own data is now."""
    scene_objects: tuple[int, int] | None = None
    """Built-in scenes of so many objects in place of the run's own: the fewest and the most, each 1 to 6, as in 2 4."""
    split: str | None = None
    """Split to score; by default the recipe's test split."""
    iterations: int | None = None
    """Slot-attention steps; by default the trained number."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """Radiance models: weights of AlexNet and of the heads of LPIPS, in one file or two; without them that metric is
    not computed."""
    adaptive: bool = False
    """Score the slots that each image needs, too: without labels, empty ones are left out, and of several that explain
    one object one stays. Tells how well they count. Not for radiance models."""
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

    from boqsa.commands.console import progress_bar
    from boqsa.inference.run import read_recipe
    from boqsa.training.results import evaluate_run

    data = read_recipe(chosen.run).data
    if chosen.dataset is not None:
        data = replace(data, name=chosen.dataset, root=None)
    if chosen.root is not None:
        data = replace(data, root=chosen.root)
    if chosen.scene_objects is not None:
        if data.name != "scenes":
            raise InputError(f"--scene-objects is for the built-in scenes, not for {data.name}; leave it out.")
        try:
            data = replace(data, scene_objects=chosen.scene_objects, scene_count=1)  # none is trained on
        except RecipeError:
            fewest, most = chosen.scene_objects
            raise InputError(
                f"--scene-objects is {fewest} {most}; give the fewest and the most, each 1 to 6, as in "
                "--scene-objects 2 4."
            ) from None
    with progress_bar("scoring") as progress:
        metrics = evaluate_run(
            chosen.run,
            data=data,
            split=chosen.split,
            iterations=chosen.iterations,
            generated=chosen.generate,
            lpips=chosen.lpips,
            adaptive=chosen.adaptive,
            device=chosen.device,
            command=shlex.join(["boqsa", "evaluate", *arguments]),
            progress=progress,
        )
    if chosen.json:
        print_json(metrics)
    else:
        show_scores(metrics)
        print(f"pictures and explanations: {chosen.run / metrics['report']}")
    return 0


_COLUMNS = {
    "multi_object": {
        "ari_fg": "ARI-FG",
        "msc_fg": "MSC-FG",
        "ari": "ARI",
        "background_in_two_slots": "background in 2",
        "hungarian_iou": "matched IoU",
        "mbo_class": "mBO of classes",
    },
    "views": {
        "ari": "ARI",
        "ari_fg": "ARI-FG",
        "nv_ari": "NV-ARI",
        "nv_ari_last": "last view",
        "nv_ari_fg": "NV-ARI-FG",
    },
    "instances": {
        "ap": "AP",
        "pq": "PQ",
        "precision": "precision",
        "recall": "recall",
        "mbo": "mBO",
        "mbo_class": "mBO of classes",
        "hungarian_iou": "matched IoU",
    },
}
"""The metrics that fit on a terminal, by task; `metrics.json` and the report have all."""

_CHOICES = {
    "oracle slot": ("iou", "dice"),
    "largest intersection": ("intersection_iou", "intersection_dice"),
    "off-border slot": ("border_iou", "border_dice"),
    "fixed slot": ("fixed_iou", "fixed_dice"),
}
"""Of foreground extraction: which slot is the foreground. The first two are chosen by labels, the others without."""


def score_table(
    task: str, title: str, heads: Sequence[str], entries: Sequence[tuple[list[Any], Mapping[str, Any]]]
) -> None:
    """A table of scores: a row for each entry, and for foreground tasks for each choice of slot that it has.

    Args:
        task: Of the recipe.
        title: Of the table.
        heads: Of the columns before the scores.
        entries: The cells of these columns, and scores by name; a score may be missing.
    """
    if task == "foreground":
        rows = [
            [*cells, choice, scores[iou], scores[dice]]
            for cells, scores in entries
            for choice, (iou, dice) in _CHOICES.items()
            if iou in scores
        ]
        print_table(title, (*heads, "foreground is", "IoU", "Dice"), rows, first_whole=True)
        return
    columns = dict(_COLUMNS["views" if any("nv_ari" in scores for _, scores in entries) else task])
    if not any("mbo_class" in scores for _, scores in entries):  # few sets know classes
        columns.pop("mbo_class", None)
    rows = [[*cells, *(scores.get(name, "") for name in columns)] for cells, scores in entries]
    print_table(title, (*heads, *columns.values()), rows, first_whole=True)


def show_scores(metrics: dict[str, Any]) -> None:
    """Tables of the scores and of the errors, and in words what the baselines are and whether the slots work."""
    from boqsa.reports import MASKS

    entries: list[tuple[list[Any], Mapping[str, Any]]] = []
    for checkpoint, scores in metrics["scores"].items():
        for source in MASKS:
            if source in scores:
                entries.append(([f"{checkpoint}, {source.removesuffix('_masks')}"], scores[source]))
    entries += [([_title(name)], scores) for name, scores in metrics["baselines"].items()]
    where = metrics["dataset"]
    title = ", ".join(
        [
            f"{where['name']}, {where['split']}: {where['images']} images",
            *(["masks of {}x{} pixels".format(*where["mask_size"])] if "mask_size" in where else []),
            *(["part of the published set"] if where["partial"] else []),
            *([where["leak"]] if where["leak"] else []),
        ]
    )
    if not entries:
        print(f"{title}, no masks to score")
    else:
        score_table(metrics["task"], title, ["checkpoint, masks"], entries)
    for name, scores in metrics["baselines"].items():
        print(f"{_title(name)}: {scores['what']}")
    for sentence in metrics.get("damaged", {}).values():
        print(sentence)
    _show_errors(metrics["scores"]["last"])
    if counts := metrics["scores"]["last"].get("object_count"):
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in counts.items())
        print(f"objects counted wrong by (mean absolute error): {shown}")
    diagnostics = metrics["scores"]["last"]["diagnostics"]
    if diagnostics["verdict"] != "healthy" or diagnostics["warnings"]:
        print(f"state of the slots: {diagnostics['verdict']}")
        for warning in diagnostics["warnings"]:
            print(f"  {warning}")


def _error(name: str, value: float | None) -> str:
    return f"{name} not computed" if value is None else f"{name} {value:.5g}"


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
        print(f"{shown} (last{images}): " + ", ".join(_error(*entry) for entry in errors.items()))
    if "tokens" in scores:
        tokens = scores["tokens"]
        print(f"tokens: {tokens['used']} of {tokens['vocabulary']} used, perplexity {tokens['perplexity']:.1f}")
