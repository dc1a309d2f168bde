"""Score a run and tell it: metrics.json, pictures and report.html of a run folder.

Checkpoints are reported by name (spec 4.6): `last` and `best_loss` were chosen without labels, `best_<metric>` with
labels of the validation split. The headline is `last`, with the decoder's masks, or attention's where a model has no
others.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boqsa.atomic import write_text
from boqsa.data import PackedDataset
from boqsa.errors import InputError, RunError, as_typed
from boqsa.inference.load import load, require_device
from boqsa.inference.run import (
    CHECKPOINTS,
    checkpoint_names,
    read_manifest,
    read_recipe,
    refuse_links,
    resumable_folders,
)
from boqsa.models.radiance.pretrained import digest, lpips_from
from boqsa.plain import without_nan
from boqsa.recipes import DataRecipe, EvaluateRecipe, Recipe
from boqsa.reports import save_png, write_report
from boqsa.training.baseline import baselines
from boqsa.training.data import open_split
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import evaluate, headline
from boqsa.training.features import require_input
from boqsa.training.log import read_log, seconds_of, values_of
from boqsa.training.machine import machine_facts
from boqsa.training.pictures import draw_scenes

HEADLINE = (
    *("ari", "ari_fg", "msc_fg", "nv_ari", "nv_ari_fg"),
    *("iou", "dice", "intersection_iou", "intersection_dice", "border_iou", "border_dice", "fixed_iou", "fixed_dice"),
    *("ap", "pq", "f1", "precision", "recall"),
)
PICTURES = 12
PICTURES_FOLDER = "pictures"
GENERATED = 32
"""Images that a transformer model decodes from slots alone, unless another number is asked."""


def evaluate_run(
    run: str | Path,
    *,
    data: DataRecipe | None = None,
    split: str | None = None,
    protocol: EvaluateRecipe | None = None,
    iterations: int | None = None,
    generated: int = GENERATED,
    lpips: Sequence[Path] = (),
    adaptive: bool = False,
    device: str = "cpu",
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every checkpoint of a run on a split and write metrics, pictures and report into the run folder.

    Args:
        run: Run folder.
        data: Another data set to score on; None means the run's own.
        split: None means the test split of the data.
        protocol: Another metric protocol than the run's own.
        iterations: Slot-attention steps; None means the trained number.
        generated: Of a transformer model: how many images to decode from their slots alone, with the weights of
            `last`; 0 means none, in the pictures neither.
        lpips: Of a radiance model: files of the weights that this metric needs.
        adaptive: Score the slots that each image needs, too; not of a radiance model.
        device: Where to evaluate.
        command: What the user typed, for the report.
        progress: Called with (images done, images in all), for each checkpoint from 0 on.

    Returns:
        What is written to `metrics.json`, or to `metrics_<data>_<split>.json` where it is not the run's own test
        (with another number of iterations the name says so).

    Raises:
        RunError, InputError, RecipeError: if the run, its checkpoints or the data cannot be used.
    """
    run = Path(run)
    recipe = read_recipe(run)
    refuse_links(run)
    if (run / PICTURES_FOLDER).exists() and not (run / PICTURES_FOLDER).is_dir():
        raise RunError(f"{run / PICTURES_FOLDER} is a file, and pictures of the scores go there; move it away.")
    names, damaged = whole_checkpoints(run)
    require_device(device)
    if iterations is not None and iterations < 1:
        raise InputError(f"iterations is {iterations}; it must be at least 1.")
    if generated < 0:
        raise InputError(f"the number of generated images is {generated}; it must be at least 0.")
    data = data or recipe.data
    split = split or data.test_split
    protocol = protocol or recipe.evaluate
    dataset = open_for(recipe, data, split)
    distance = lpips_from(lpips, size=protocol.radiance.size).to(device) if lpips else None
    began = time.monotonic()
    scores = {}
    for name, checkpoint in names.items():
        step = read_manifest(run / CHECKPOINTS / checkpoint)["step"]  # before: a run that still trains replaces it
        model = load(run, checkpoint=checkpoint).to(device)
        scores[name] = evaluate(
            model,
            dataset,
            protocol,
            iterations=iterations,
            generated=generated if name == "last" else 0,
            lpips=distance,
            adaptive=adaptive,
            device=device,
            progress=progress,
        )
        scores[name]["step"] = step
    diagnostics = scores["last"]["diagnostics"]
    state, warnings = verdict(diagnostics, step=scores["last"]["step"], warmup_steps=recipe.train.warmup_steps)
    diagnostics |= {"verdict": state, "warnings": warnings}
    main = headline(scores["last"])
    name = suffix_of(run, recipe, data, dataset, iterations)
    report = f"report{name}.html"
    metrics = {
        **{name: main[name] for name in HEADLINE if name in main},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "seed": recipe.seed,
        "task": protocol.task,
        "iterations": iterations or recipe.model.iterations,
        "dataset": {
            "name": dataset.manifest.name,
            "split": split,
            "images": len(dataset),
            "fingerprint": dataset.manifest.fingerprint,
            "partial": dataset.manifest.partial,
            "leak": dataset.manifest.leak,
            **({"mask_size": _mask_size(dataset, recipe, protocol)} if dataset.has_masks else {}),
        },
        "scores": scores,
        **({"damaged": damaged} if damaged else {}),
        "baselines": (
            baselines(dataset, recipe, protocol, iterations=iterations, device=device) if dataset.has_masks else {}
        ),
        "training": _training_facts(run),
        "machine": machine_facts(torch.device(device)),
        **({"lpips_sha256": digest(*lpips)} if lpips else {}),
        "evaluation_seconds": round(time.monotonic() - began, 1),
        "command": command,
        "report": report,
    }
    write_text(run / f"metrics{name}.json", json.dumps(without_nan(metrics), indent=2))
    last = load(run, checkpoint=names["last"])
    picture = draw_scenes(last, dataset, PICTURES, iterations=iterations, generates=generated > 0)
    (run / PICTURES_FOLDER).mkdir(exist_ok=True)
    save_png(run / PICTURES_FOLDER / f"segmentation{name}.png", picture)
    title = "segmentation" if recipe.model.kind == "mixture" else f"segmentation_{recipe.model.kind}"
    write_report(
        run / report,
        recipe_json=recipe.to_json(),
        metrics=metrics,
        log=read_log(run),
        pictures={title: picture},
        next_steps=next_steps(run, recipe),
    )
    return metrics


def whole_checkpoints(run: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The folder to score under each name, `last` first, and what is wrong with those that cannot be scored.

    Raises:
        RunError: if there is none for `last`.
    """
    none_yet = f"{run} has no checkpoint yet; go on with `boqsa train --resume {as_typed(run)}`."
    if not checkpoint_names(run, older=True):
        raise RunError(none_yet)
    whole: dict[str, str] = {}
    damaged: dict[str, str] = {}
    newest_first = [("last", path) for path in resumable_folders(run) if not path.name.startswith(".")]
    others = [(name, run / CHECKPOINTS / name) for name in checkpoint_names(run) if name != "last"]
    for name, folder in newest_first + others:
        if name in whole:  # an older one counts only where the newer one is damaged
            continue
        try:
            step = read_manifest(folder)["step"]
        except RunError as error:
            damaged[name] = str(error).split("; use another")[0]
            continue
        whole[name] = folder.name
        if name in damaged:
            damaged[name] += f"; {folder.name}, of step {step}, is scored in its place"
    if "last" not in whole:
        raise RunError(damaged.get("last", none_yet))
    return whole, damaged


def open_for(recipe: Recipe, data: DataRecipe, split: str) -> PackedDataset:
    """A split to score a recipe's model on.

    Raises:
        RecipeError, InputError: as `open_split`; or if its images have another size than the model takes, or lack the
            features that it takes.
    """
    dataset = open_split(replace(data, image_size=recipe.data.image_size), split)
    require_input(dataset, recipe)
    return dataset


def metrics_file(run: Path, recipe: Recipe, data: DataRecipe, dataset: PackedDataset) -> Path:
    """Where `evaluate_run` writes the scores of a split of some data, at the trained number of iterations."""
    return run / f"metrics{suffix_of(run, recipe, data, dataset, None)}.json"


def _mask_size(dataset: PackedDataset, recipe: Recipe, protocol: EvaluateRecipe) -> list[int]:
    """Height and width in pixels at which masks are scored: the true ones', but for views, which are rendered."""
    return [protocol.radiance.size] * 2 if recipe.model.kind == "radiance" else list(dataset.image_size)


def suffix_of(run: Path, recipe: Recipe, data: DataRecipe, dataset: PackedDataset, iterations: int | None) -> str:
    """Nothing for the run's own test, wherever its data lies now; else what tells the scores apart.

    Two folders of photographs share the name "folder", so the data is the run's own only if its content is what the
    log names, where there is a log.
    """
    trained_on = next((row.get("data") for row in read_log(run) if row["event"] == "started"), None)
    is_own = (
        replace(data, root=None) == replace(recipe.data, root=None)
        and dataset.split == recipe.data.test_split
        and (data.root is None or trained_on in (None, dataset.manifest.fingerprint))
    )
    objects = "" if data.scene_objects == recipe.data.scene_objects else "-{}-{}".format(*data.scene_objects)
    parts = [] if is_own else [data.name + objects, dataset.split]
    size = recipe.data.image_size
    if not is_own and dataset.image_size != (size, size):  # a features model, whose masks are scored at another size
        parts.append("{}x{}".format(*dataset.image_size))
    if iterations is not None:
        parts.append(f"iterations{iterations}")
    return "".join(f"_{part}" for part in parts)


def next_steps(run: Path, recipe: Recipe) -> list[str]:
    """Commands worth typing after a run."""
    return [
        f"boqsa segment {as_typed(run)} PICTURE --out found",
        f"boqsa train {recipe.name} --out other-run --model.gradient unrolled --model.queries shared_gaussian",
        f"boqsa evaluate {as_typed(run)} --iterations 1",
    ]


def _training_facts(run: Path) -> dict[str, Any]:
    rows = read_log(run)
    steps = [row for row in rows if row["event"] == "step"]
    rates = sorted(values_of(steps, "images_per_second"))
    return {
        "steps": steps[-1]["step"] if steps else 0,
        "seconds": seconds_of(rows),
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "started_on": next((row for row in rows if row["event"] == "started"), None),
    }
