"""Look at trained runs: the scores of each test, written into the run folder so that no look is taken twice.

A look is valid as long as weights, data, settings, version and kind of device are those that it was taken with. Looks
are taken with the number of threads of the run, so that those on a CPU give the same bits again; and on a GPU where the
run is of one and there is one.
"""

import json
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from boqsa.atomic import write_text
from boqsa.cores import cores
from boqsa.data import PackedDataset
from boqsa.data.builtin import scene_parameters
from boqsa.data.scenes import SceneSettings
from boqsa.errors import BoqsaError, MachineError
from boqsa.inference.load import load
from boqsa.inference.run import CHECKPOINTS, MODEL, read_manifest, read_recipe, refuse_links
from boqsa.models.radiance.pretrained import digest, lpips_from
from boqsa.parent import end_with_the_parent
from boqsa.plain import read_json, without_nan
from boqsa.recipes import EvaluateRecipe
from boqsa.recipes.recipe import METRIC_OF_TASK
from boqsa.reproduce.binding import binding
from boqsa.reproduce.experiment import BINDING_PREFIX, Test
from boqsa.reproduce.plan import Look, test_split
from boqsa.reproduce.protocol import Masks
from boqsa.reproduce.separation import Separation, first_step, separation
from boqsa.training.diagnostics import verdict
from boqsa.training.evaluation import STABILITY_IMAGES, evaluate, headline
from boqsa.training.faults import scoring_told_in_words
from boqsa.training.results import whole_checkpoints
from boqsa.training.sweep.local import share_out, visible_gpus
from boqsa.training.sweep.worker import device_of

FOLDER = "looks"
"""Below the run folder."""

_FAILED = ("broken", "collapsed", "flat")
_BINDING_IMAGES = 500
_SEPARATION_IMAGES = 100


_DIED = "a process that scores died, perhaps for want of memory; give the command again with --workers 1."

_FORMAT = 1
"""Raise it when a look finds other numbers of the same weights and data: earlier ones must not be taken for new."""


class Found(NamedTuple):
    """What a look found."""

    images: int
    """Of the split."""
    variant: str
    """The content of the data set: its fingerprint, shortened."""
    slots: int
    masks: Masks
    values: dict[str, dict[str, float]]
    """By the checkpoint's selection, then by metric."""


def look_at(folder: Path, test: Test) -> Found:
    """What a test finds of a finished run, taken now or before.

    Raises:
        RunError, InputError, RecipeError: if the run or the data cannot be used, or something in the run is a link.
    """
    recipe = read_recipe(folder)
    refuse_links(folder)
    names, _ = whole_checkpoints(folder)
    if test.last_alone or test.probe != "scores":
        names = {"last": names["last"]}
    dataset = test_split(test)
    device = device_of(recipe)
    identity = {
        "format": _FORMAT,
        "torch": torch.__version__,
        "threads": recipe.train.threads,
        "recipe": recipe.hash,
        "weights": {name: _weights(folder, checkpoint) for name, checkpoint in names.items()},
        "data": dataset.manifest.fingerprint,
        "split": dataset.split,
        "task": test.task,
        "iterations": test.iterations,
        "num_slots": test.num_slots,
        "generated": test.generated,
        "probe": test.probe,
        **({"lpips": digest(*test.lpips)} if test.lpips else {}),
        **({"device": device} if device != "cpu" else {}),
    }
    path = folder / FOLDER / f"{_file_name(test)}.json"
    before = _read(path)
    if before is not None and before["identity"] == identity:
        return Found(**before["found"])
    protocol = replace(
        recipe.evaluate,
        task=test.task,  # type: ignore[arg-type]
        select_by=METRIC_OF_TASK[test.task],  # type: ignore[arg-type]
    )
    with _threads(recipe.train.threads):
        values = {
            name: _values(folder, checkpoint, test, dataset, protocol, device) for name, checkpoint in names.items()
        }
    found = Found(
        images=len(dataset),
        variant=short_fingerprint(dataset),
        slots=test.num_slots or recipe.model.num_slots,
        masks=masks_of_kind(recipe.model.kind),
        values=values,
    )
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(without_nan({"identity": identity, "found": found._asdict()}), indent=1))
    return found


def short_fingerprint(dataset: PackedDataset) -> str:
    """Enough of it to tell contents apart, and what a reader must know of it."""
    manifest = dataset.manifest
    notes = [*(["partial"] if manifest.partial else []), *(["leak"] if manifest.leak else [])]
    return " ".join([manifest.fingerprint[:8], *notes])


def images_of(test: Test, metric: str, images: int) -> int:
    """How many images of a split of so many a metric was taken on."""
    most = {"separation": _SEPARATION_IMAGES, "binding": _BINDING_IMAGES}.get(test.probe, images)
    if metric == "update_spectral_norm":
        most = STABILITY_IMAGES
    return min(images, test.generated if metric.endswith("_generated") else most)


def masks_of_kind(kind: str) -> Masks:
    """Whose masks are scored: a transformer model has none but those of attention."""
    return "attention" if kind == "transformer" else "decoder"


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Results are bit-identical only at an equal number of threads; 0 leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights(folder: Path, checkpoint: str) -> str:
    manifest = read_manifest(folder / CHECKPOINTS / checkpoint)
    return str(manifest["sha256"][MODEL])


def _file_name(test: Test) -> str:
    objects = "" if test.data.scene_objects == (2, 4) else f"-{test.data.scene_objects[0]}-{test.data.scene_objects[1]}"
    parts = [test.probe, test.data.name + objects]
    parts += [] if test.iterations is None else [f"iterations{test.iterations}"]
    parts += [] if test.num_slots is None else [f"slots{test.num_slots}"]
    parts += [f"generated{test.generated}"] if test.generated else []
    parts += ["lpips"] if test.lpips else []
    parts += ["last"] if test.last_alone else []
    return "_".join(parts)


def _read(path: Path) -> dict[str, Any] | None:
    """What an earlier look wrote; None if it cannot be used."""
    try:
        before: dict[str, Any] = read_json(path)
        Found(**before["found"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return before


def _values(
    folder: Path, checkpoint: str, test: Test, dataset: PackedDataset, protocol: EvaluateRecipe, device: str
) -> dict[str, float]:
    recipe = read_recipe(folder)
    model = load(folder, checkpoint=checkpoint).to(device)
    if test.probe == "separation":
        return _separation(model, dataset, device)
    if test.probe == "binding":
        return _binding(model, dataset, test, device)
    scores = evaluate(
        model,
        dataset,
        protocol,
        iterations=test.iterations,
        num_slots=test.num_slots,
        generated=test.generated if checkpoint == "last" else 0,
        lpips=lpips_from(test.lpips, size=protocol.radiance.size).to(device) if test.lpips else None,
        device=device,
    )
    state, _ = verdict(
        scores["diagnostics"],
        step=read_manifest(folder / CHECKPOINTS / checkpoint)["step"],
        warmup_steps=recipe.train.warmup_steps,
    )
    return {"failed": float(state in _FAILED), **flat_scores(scores)}


def separation_of(model: nn.Module, dataset: PackedDataset, device: torch.device | str = "cpu") -> Separation | None:
    """Of the first images of a split; None where slots are not numbers."""
    image = dataset.batch(range(min(_SEPARATION_IMAGES, len(dataset))))["image"]
    step = first_step(model, image, device=device)
    if not all(np.isfinite(slots).all() for slots in step):
        return None
    return separation(*step)


def _separation(model: nn.Module, dataset: PackedDataset, device: torch.device | str) -> dict[str, float]:
    found = separation_of(model, dataset, device)
    if found is None:
        return {}
    return {
        "initial_silhouette": found.initial_silhouette,
        "separation_silhouette": found.silhouette,
        "nearest_query_accuracy": found.nearest_query_accuracy,
    }


def _binding(model: nn.Module, dataset: PackedDataset, test: Test, device: torch.device | str) -> dict[str, float]:
    """Of every attribute; what has no value, as all objects are of one class, is left out."""
    count = min(_BINDING_IMAGES, len(dataset))
    scenes = None
    if test.data.name == "scenes":
        fewest, most = test.data.scene_objects
        settings = SceneSettings(image_size=test.data.image_size, min_objects=fewest, max_objects=most)
        scenes = scene_parameters(dataset, count, seed=test.data.scene_seed, settings=settings)
    values: dict[str, float] = {}
    for found in binding(model, dataset, count=count, scenes=scenes, device=device):
        values |= {
            f"{BINDING_PREFIX}matched": found.pairs / found.objects,
            f"{BINDING_PREFIX}{found.attribute}": found.mutual_information,
            f"{BINDING_PREFIX}{found.attribute}_chance": found.baseline,
            f"{BINDING_PREFIX}{found.attribute}_chance_high": found.baseline_high,
        }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def flat_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of `boqsa.training.evaluate` by one name each; those that are no number are left out."""
    values = {"loss": scores["loss"], **headline(dict(scores)), **scores.get("reconstruction", {})}
    values |= {f"nv_{name}" if name == "mse" else name: value for name, value in scores.get("novel_views", {}).items()}
    for way in ("teacher_forced", "generated"):
        errors = scores.get(f"reconstruction_{way}", {})
        values |= {f"{name}_{way}": value for name, value in errors.items() if name != "images"}
    values |= {name: value for name, value in scores["diagnostics"].items() if isinstance(value, int | float)}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float | np.floating) and math.isfinite(value)
    }


def take_looks(
    runs_folder: Path, looks: Sequence[Look], *, workers: int | None
) -> Iterator[tuple[Look, Found | BoqsaError]]:
    """Take looks at finished runs, several at a time in processes of their own; 0 workers takes them here.

    Looks of several items at one thing are taken once.

    Args:
        runs_folder: Where the runs are.
        looks: At finished runs.
        workers: Processes; the cores are divided where recipes name no number of threads. None: one for each GPU where
            looks are taken on GPUs, else as many as the cores have room for.

    Yields:
        Every look, those at one thing together, with what it found or why it could not be taken.
    """
    different: dict[tuple[str, Test], list[Look]] = {}
    for look in looks:
        different.setdefault((look.run.name, replace(look.test, condition="", metrics=())), []).append(look)
    groups = list(different.values())
    jobs = [(group[0].run.folder(runs_folder), group[0].test) for group in groups]
    if workers == 0:
        found = (_tried(*job, 0) for job in jobs)
        for group, one in zip(groups, found, strict=True):
            yield from ((look, one) for look in group)
        return
    gpus = visible_gpus() if any(device_of(look.run.recipe) == "cuda" for look in looks) else []
    workers, threads = share_out(cores(), len(gpus), len(jobs), workers=workers)
    spawn = multiprocessing.get_context("spawn")
    places = spawn.SimpleQueue()
    for worker in range(workers):
        places.put(gpus[worker % len(gpus)] if gpus else None)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(places,)) as pool:
        futures = [pool.submit(_tried, *job, threads) for job in jobs]
        try:
            for group, future in zip(groups, futures, strict=True):
                try:
                    one = future.result()
                except BrokenProcessPool:  # all that were waiting go with the one that died
                    one = MachineError(_DIED)
                yield from ((look, one) for look in group)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, those in work alone are waited for


def _begin(places: "SimpleQueue[str | None]") -> None:
    """Begin a process that takes looks, with a GPU of its own where there are GPUs."""
    end_with_the_parent()
    gpu = places.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # nothing has asked for a GPU yet


def _tried(folder: Path, test: Test, threads: int) -> Found | BoqsaError:
    """A look, or why it could not be taken; `threads` where the recipe names no number."""
    if threads:
        torch.set_num_threads(threads)
    try:
        with scoring_told_in_words(folder):
            return look_at(folder, test)
    except BoqsaError as error:
        return error
