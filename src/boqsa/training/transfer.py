"""Score a trained model on data sets that it never saw (the paper's transfer between Dogs, Cars and others)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from boqsa.atomic import write_text
from boqsa.data import CATALOG, Manifest, PackedDataset
from boqsa.data.catalog import no_such_set
from boqsa.errors import BoqsaError, InputError, as_typed
from boqsa.inference.run import read_recipe
from boqsa.plain import without_nan
from boqsa.recipes import DataRecipe, EvaluateRecipe, Recipe
from boqsa.training.evaluation import headline
from boqsa.training.results import GENERATED, evaluate_run, metrics_file, open_for

FILE = "transfer.json"

_PROTOCOLS = {
    "foreground": EvaluateRecipe(task="foreground", select_by="iou"),
    "multi-object": EvaluateRecipe(task="multi_object", select_by="ari_fg"),
}
"""Of the task of a data set, where the run's own protocol is for another."""


def transfer(
    run: str | Path,
    names: list[str],
    *,
    root: str | Path | None = None,
    split: str | None = None,
    generated: int = GENERATED,
    device: str = "cpu",
    command: str = "",
) -> dict[str, Any]:
    """Score a run on other packed data sets, its own test first where that is at hand.

    A set is scored by the run's own metric protocol, unless its manifest names another task; then by that task's.
    Every set is looked at before the first is scored.

    Args:
        run: Run folder.
        names: Data sets: names of the catalog, or of folders in `root`.
        root: Folder that holds a packed folder of each name, or the packed folder itself if there is one name. Not
            needed for the built-in "scenes".
        split: Of all sets; None means the test split.
        generated, device, command: As in `evaluate_run`, which writes its files for every set.

    Returns:
        What is written to RUN/transfer.json: `rows`, one for each set, with its scores by checkpoint `last`, and
        `own_left_out`, why the run's own data was not scored, or None.

    Raises:
        InputError, RunError, RecipeError: if a set is missing, has no masks or views alone, or another image size
            than the model; or if the run cannot be used.
    """
    run = Path(run)
    recipe = read_recipe(run)
    split = split or recipe.data.test_split
    if not names:
        raise InputError("no data set is named; pass --to NAME, one of `boqsa data list`.")
    targets = []
    for name in dict.fromkeys(names):  # a name given twice counts once
        data = replace(recipe.data, name=name, root=_root(name, root, alone=len(names) == 1))
        targets.append(_target(recipe, data, split))
    rows, own_left_out = [], None
    try:
        own = _own(recipe, split)
    except BoqsaError as error:
        own_left_out = str(error)
    else:  # first, by the run's own protocol, and once
        targets = [own, *(target for target in targets if not _is_same(target[1], own[1]))]
    for data, dataset, protocol in targets:
        metrics = evaluate_run(
            run, data=data, split=split, protocol=protocol, generated=generated, device=device, command=command
        )
        rows.append(
            {
                "dataset": data.name,
                "split": split,
                "own": own_left_out is None and _is_same(dataset, own[1]),
                "task": protocol.task,
                "own_protocol": protocol == recipe.evaluate,
                "images": metrics["dataset"]["images"],
                "leak": metrics["dataset"]["leak"],
                "scores": headline(metrics["scores"]["last"]),
                "reconstruction": metrics["scores"]["last"].get("reconstruction", {}),
                "metrics": metrics_file(run, recipe, data, dataset).name,
            }
        )
    found = {
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "checkpoint": "last",
        "rows": rows,
        "own_left_out": own_left_out,
        "command": command,
    }
    write_text(run / FILE, json.dumps(without_nan(found), indent=2))
    return found


def _root(name: str, root: str | Path | None, *, alone: bool) -> str | None:
    """The packed folder of a data set."""
    if name == "scenes":
        return None
    if Path(name).name != name or name in ("", "."):
        raise InputError(f"{name!r} is not the name of a data set; pass its folder with --data.root.")
    if root is None and name not in CATALOG:
        own = f"For one of your own, pass --data.root DIR, the folder that holds a packed folder {name}."
        raise InputError(f"{no_such_set(name)} {own}")
    if root is None:
        raise InputError(f"where is {name}? Pass --data.root DIR, the folder that holds a packed folder {name}.")
    folder = Path(root) / name
    if folder.is_dir():
        return str(folder)
    if alone and (Path(root) / "manifest.json").is_file():
        return str(root)
    if name not in CATALOG:
        raise InputError(f"there is no folder {folder}, and {no_such_set(name)}")
    raise InputError(
        f"there is no folder {folder}. Make it with `boqsa data prepare {name} SOURCE {as_typed(folder)}`, or give one "
        "name and its packed folder."
    )


def _own(recipe: Recipe, split: str) -> tuple[DataRecipe, PackedDataset, EvaluateRecipe]:
    dataset = open_for(recipe, recipe.data, split)
    if not dataset.has_masks:
        raise InputError(f"{dataset.path}, split {split}, has no masks, so there is nothing to score.")
    return recipe.data, dataset, recipe.evaluate


def _target(recipe: Recipe, data: DataRecipe, split: str) -> tuple[DataRecipe, PackedDataset, EvaluateRecipe]:
    dataset = open_for(recipe, data, split)
    if not dataset.has_masks:
        raise InputError(
            f"{dataset.path}, split {split}, has no masks, so there is nothing to score; name another set."
        )
    return data, dataset, _protocol(recipe, dataset.manifest)


def _protocol(recipe: Recipe, manifest: Manifest) -> EvaluateRecipe:
    own = recipe.evaluate
    if manifest.task not in _PROTOCOLS:
        raise InputError(
            f"the data set {manifest.name} is for the task {manifest.task!r}, which has no masks to score."
        )
    if (own.task == "foreground") == (manifest.task == "foreground"):
        return own  # instances are scored on the sets of many objects
    return replace(_PROTOCOLS[manifest.task], batch_size=own.batch_size)


def _is_same(one: PackedDataset, other: PackedDataset) -> bool:
    return one.manifest.fingerprint == other.manifest.fingerprint
