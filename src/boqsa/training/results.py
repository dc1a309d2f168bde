"""Score a run and tell it: metrics.json, pictures and report.html of a run folder.

Checkpoints are reported by name (spec 4.6): `last` and `best_loss` were chosen without labels, `best_<metric>` with
labels of the validation split. The headline is `last`, with the decoder's masks.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boqsa.atomic import write_text
from boqsa.data import PackedDataset
from boqsa.errors import RunError
from boqsa.inference.load import load
from boqsa.inference.run import CHECKPOINTS, MANIFEST, read_manifest, read_recipe
from boqsa.metrics import adjusted_rand_index, segmentation_covering
from boqsa.plain import without_nan
from boqsa.recipes import DataRecipe, Recipe
from boqsa.reports import save_png, segmentation_grid, write_report
from boqsa.training.baseline import POSITION_WEIGHTS, k_means_segmentation
from boqsa.training.data import open_split
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import evaluate
from boqsa.training.log import read_log
from boqsa.training.machine import machine_facts

HEADLINE = ("ari", "ari_fg", "msc_fg", "iou", "dice")
PICTURES = 12
BASELINE_IMAGES = 200


def evaluate_run(
    run: str | Path,
    *,
    data: DataRecipe | None = None,
    split: str | None = None,
    iterations: int | None = None,
    device: str = "cpu",
    command: str = "",
) -> dict[str, Any]:
    """Score every checkpoint of a run on a split and write metrics, pictures and report into the run folder.

    Args:
        run: Run folder.
        data: Another data set to score on; None means the run's own.
        split: None means the test split of the data.
        iterations: Slot-attention steps; None means the trained number.
        device: Where to evaluate.
        command: What the user typed, for the report.

    Returns:
        What is written to `metrics.json`, or to `metrics_<data>_<split>.json` where it is not the run's own test
        (with another number of iterations the name says so).

    Raises:
        RunError, InputError, RecipeError: if the run, its checkpoints or the data cannot be used.
    """
    run = Path(run)
    recipe = read_recipe(run)
    names = [path.parent.name for path in sorted((run / CHECKPOINTS).glob(f"[!.]*/{MANIFEST}"))]
    if "last" not in names:
        raise RunError(f"{run} has no checkpoint yet; go on with `boqsa train --resume {run}`.")
    data = data or recipe.data
    split = split or data.test_split
    dataset = open_split(replace(data, image_size=recipe.data.image_size), split)
    if dataset.image_size != (recipe.data.image_size,) * 2:
        raise RunError(
            f"{dataset.path} holds {dataset.image_size[0]}x{dataset.image_size[1]} images, the model takes "
            f"{recipe.data.image_size}x{recipe.data.image_size}; prepare the data at that size."
        )
    began = time.monotonic()
    scores = {}
    for name in ["last", *(name for name in names if name != "last")]:
        model = load(run, checkpoint=name).to(device)
        scores[name] = evaluate(model, dataset, recipe.evaluate, iterations=iterations, device=device)
        scores[name]["step"] = read_manifest(run / CHECKPOINTS / name)["step"]
    headline = scores["last"].get("decoder_masks", {})
    metrics = {
        **{name: headline[name] for name in HEADLINE if name in headline},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "seed": recipe.seed,
        "iterations": iterations or recipe.model.iterations,
        "dataset": {
            "name": dataset.manifest.name,
            "split": split,
            "images": len(dataset),
            "fingerprint": dataset.manifest.fingerprint,
            "partial": dataset.manifest.partial,
            "leak": dataset.manifest.leak,
        },
        "scores": scores,
        "baselines": _baselines(dataset, recipe) if dataset.has_masks else {},
        "training": _training_facts(run),
        "machine": machine_facts(torch.device(device)),
        "evaluation_seconds": round(time.monotonic() - began, 1),
        "command": command,
    }
    _write(run, metrics, dataset, iterations=iterations, suffix=_suffix(recipe, data, split, iterations))
    return metrics


def _suffix(recipe: Recipe, data: DataRecipe, split: str, iterations: int | None) -> str:
    """Nothing for the run's own test, wherever its data lies now; else what tells the scores apart."""
    parts = []
    if replace(data, root=None) != replace(recipe.data, root=None) or split != recipe.data.test_split:
        parts += [data.name, split]
    if iterations is not None:
        parts.append(f"iterations{iterations}")
    return "".join(f"_{part}" for part in parts)


def _write(run: Path, metrics: dict[str, Any], dataset: PackedDataset, *, iterations: int | None, suffix: str) -> None:
    write_text(run / f"metrics{suffix}.json", json.dumps(without_nan(metrics), indent=2))
    sample = dataset.batch(range(min(PICTURES, len(dataset))))
    with torch.inference_mode():
        output = load(run)(sample["image"], iterations=iterations)
    picture = segmentation_grid(
        sample["image"],
        output.masks,
        true=sample.get("mask"),
        rows=PICTURES,
        slot_reconstructions=output.slot_reconstructions,
        reconstruction=output.reconstruction,
    )
    (run / "pictures").mkdir(exist_ok=True)
    save_png(run / "pictures" / f"segmentation{suffix}.png", picture)
    log = read_log(run)
    recipe = read_recipe(run)
    diagnostics = metrics["scores"]["last"]["diagnostics"]
    state, warnings = verdict(
        diagnostics, step=metrics["scores"]["last"]["step"], warmup_steps=recipe.train.warmup_steps
    )
    diagnostics |= {"verdict": state, "warnings": warnings}
    write_report(
        run / f"report{suffix}.html",
        recipe_json=recipe.to_json(),
        metrics=metrics,
        log=log,
        pictures={"segmentation": picture},
        next_steps=next_steps(run, recipe),
    )


def next_steps(run: Path, recipe: Recipe) -> list[str]:
    """Commands worth typing after a run."""
    return [
        f"boqsa segment {run} PICTURE --out found",
        f"boqsa train {recipe.name} --out other-run --model.gradient unrolled --model.queries shared_gaussian",
        f"boqsa evaluate {run} --iterations 1",
    ]


def _baselines(dataset: PackedDataset, recipe: Recipe) -> dict[str, Any]:
    """K-means at its best position weight, on the first images: chosen by labels, so it flatters the baseline."""
    if recipe.evaluate.task != "multi_object":
        return {}
    sample = dataset.batch(range(min(BASELINE_IMAGES, len(dataset))))
    best: dict[str, Any] = {}
    for weight in POSITION_WEIGHTS:
        labels = k_means_segmentation(sample["image"], clusters=recipe.model.num_slots, position_weight=weight)
        score = float(adjusted_rand_index(labels, sample["mask"], foreground_only=True).nanmean())
        if score > best.get("ari_fg", -1.0):
            covering = float(segmentation_covering(labels, sample["mask"], foreground_only=True).nanmean())
            best = {"ari_fg": score, "msc_fg": covering, "position_weight": weight}
    best["what"] = (
        f"k-means on colour and position, {recipe.model.num_slots} clusters, first {len(sample['image'])} images, "
        "best of three position weights"
    )
    return {"k_means": best}


def _training_facts(run: Path) -> dict[str, Any]:
    rows = read_log(run)
    steps = [row for row in rows if row["event"] == "step"]
    rates = sorted(row["images_per_second"] for row in steps)
    return {
        "steps": steps[-1]["step"] if steps else 0,
        "seconds": next((row["seconds"] for row in reversed(rows) if row["event"] == "finished"), None),
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "started_on": next((row for row in rows if row["event"] == "started"), None),
    }
