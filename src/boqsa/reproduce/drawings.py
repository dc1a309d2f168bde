"""From trained runs to the pictures of an item: which runs are shown, on which images, and under which name.

Pictures show the first seed that was asked for, and the first images of the test split: nothing is picked by eye.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from boqsa.inference.load import load
from boqsa.models import Output, TransformerModel
from boqsa.models.published import Model
from boqsa.reports import save_png
from boqsa.reproduce.experiment import Experiment, Test
from boqsa.reproduce.figures import (
    AttentionSet,
    Panel,
    attention_figure,
    grid_figure,
    iterations_figure,
    mask_errors_figure,
    plane_figure,
    slots_figure,
)
from boqsa.reproduce.measure import Found, separation_of
from boqsa.reproduce.outputs import outputs
from boqsa.reproduce.plan import Look, test_split
from boqsa.reproduce.rows import Row
from boqsa.reproduce.separation import first_step, slot_plane

Pairs = Sequence[tuple[Look, Found]]
Picture = UInt8[np.ndarray, "H W 3"]

_SHOWN = 8
"""Images of a picture."""
_IN_A_PLANE = 60
"""Images whose slots share a plane."""
_SCORE = {"multi_object": ("ari_fg", "ARI-FG"), "foreground": ("iou", "IoU"), "instances": ("ap", "AP")}


def draw(experiment: Experiment, pairs: Pairs, rows: Sequence[Row], runs_folder: Path, out: Path) -> list[Path]:
    """Draw every picture of an item that its runs allow.

    Args:
        experiment: The item.
        pairs: Its looks at finished runs.
        rows: Of its table, those of earlier commands too.
        runs_folder: Where the runs are.
        out: Where the pictures go, as ITEM_WHAT.png.

    Returns:
        What was written.
    """
    written = []
    for kind in experiment.figures:
        match kind:
            case "mask_errors":
                pictures = {"curves": mask_errors_figure(rows)}
            case "iterations":
                pictures = _iterations(pairs, rows)
            case _:
                pictures = _KINDS[kind](pairs, runs_folder)
        for what, picture in pictures.items():
            path = out / f"{experiment.item}_{what}.png"
            save_png(path, picture)
            written.append(path)
    return written


def _grid(pairs: Pairs, runs_folder: Path) -> dict[str, Picture]:
    pictures = {}
    for look in _of_first_seed(pairs):
        model = load(look.run.folder(runs_folder))
        image, true, output = _pass(model, look.test)
        reconstruction = output.reconstruction
        if isinstance(model, TransformerModel):  # the dVAE's sees no slots: show what the tokens are said to be
            with torch.inference_mode():
                reconstruction = model.teacher_forced(output).image
        pictures[f"{look.test.data.name}_{_plain(look.method)}"] = grid_figure(
            image, output.segmentation(), true=true, reconstruction=reconstruction
        )
    return pictures


def _iterations(pairs: Pairs, rows: Sequence[Row]) -> dict[str, Picture]:
    """Curves over all seeds of the table, those of earlier commands too."""
    pictures = {}
    for dataset in dict.fromkeys(look.test.data.name for look, _ in pairs):
        looks = [look for look, _ in pairs if look.test.data.name == dataset]
        metric, name = _SCORE[looks[0].test.task]
        scores: dict[str, dict[int, list[float]]] = {}
        for look in looks:
            count = look.test.iterations or look.run.recipe.model.iterations
            scores.setdefault(look.method, {})[count] = [
                row.value
                for row in rows
                if (row.method, row.dataset, row.metric, row.selection) == (look.method, dataset, metric, "last")
                and row.condition == look.test.condition
            ]
        trained = looks[0].run.recipe.model.iterations
        pictures[dataset] = iterations_figure(scores, score=f"{name} on {dataset}", trained=trained)
    return pictures


def _plane(pairs: Pairs, runs_folder: Path) -> dict[str, Picture]:
    panels: dict[str, dict[str, Panel]] = {}
    for look in _of_first_seed(pairs):
        dataset = test_split(look.test)
        model = load(look.run.folder(runs_folder))
        numbers = separation_of(model, dataset)
        if numbers is None:
            continue
        image = dataset.batch(range(min(_IN_A_PLANE, len(dataset))))["image"]
        panel = Panel(slot_plane(*first_step(model, image)), numbers)
        panels.setdefault(look.test.data.name, {})[look.method] = panel
    return {dataset: plane_figure(of_set) for dataset, of_set in panels.items()}


def _attention(pairs: Pairs, runs_folder: Path) -> dict[str, Picture]:
    pictures = {}
    by_run: dict[str, list[Look]] = {}
    for look in _of_first_seed(pairs):
        by_run.setdefault(look.run.name, []).append(look)
    for looks in by_run.values():
        sets = []
        for look in looks:
            image, _, output = _pass(load(look.run.folder(runs_folder)), look.test)
            sets.append(AttentionSet(look.test.data.name, image, output.attention))
        source = looks[0].run.recipe.data.name
        for target in sets[1:]:
            pictures[f"{source}_to_{target.title}"] = attention_figure(sets[0], target)
    return pictures


def _slots(pairs: Pairs, runs_folder: Path) -> dict[str, Picture]:
    pictures = {}
    for look in _of_first_seed(pairs):
        image, _, output = _pass(load(look.run.folder(runs_folder)), look.test)
        pictures[f"{look.test.data.name}_{_plain(look.method)}"] = slots_figure(image, output)
    return pictures


def _of_first_seed(pairs: Pairs) -> list[Look]:
    """The looks of the seed that stands first, each run and data set once."""
    if not pairs:
        return []
    seed = pairs[0][0].run.recipe.seed
    looks = {(look.run.name, look.test.data): look for look, _ in pairs if look.run.recipe.seed == seed}
    return list(looks.values())


def _pass(model: Model, test: Test) -> tuple[Tensor, Tensor | None, Output]:
    """The first images of a test, their true masks if there are some, and what a model makes of them."""
    dataset = test_split(test)
    sample = dataset.batch(range(min(_SHOWN, len(dataset))))
    (output,) = outputs(model, sample["image"], iterations=test.iterations, batch_size=_SHOWN)
    return sample["image"], sample.get("mask"), output


def _plain(method: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in method.lower())


_KINDS: Mapping[str, Callable[[Pairs, Path], dict[str, Picture]]] = {
    "grid": _grid,
    "plane": _plane,
    "attention": _attention,
    "slots": _slots,
}
