"""What can be had without learning: k-means, halves, a disc in the middle, and the model before it was trained.

Each is scored as the model is, photographs under the same oracle choice of slot. Where a baseline has variants, the
best over the set is taken, by labels: that flatters the baseline, and its `what` says so.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from scipy.cluster.vq import kmeans2
from torch import Tensor

from boqsa.inference.load import build_model
from boqsa.metrics import BestSlotOverlap, adjusted_rand_index, segmentation_covering
from boqsa.recipes import EvaluateRecipe, Recipe
from boqsa.training.evaluation import ImageSplit, evaluate, headline

POSITION_WEIGHTS = (0.5, 1.0, 2.0)
"""Tried in turn; the best is reported."""
FOREGROUND_POSITION_WEIGHTS = (0.0, *POSITION_WEIGHTS)
"""The same on photographs, where colour alone may do best."""
RADII = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the disc of `centre_prior`, in halves of the image's shorter side."""
IMAGES = 200
"""Images that k-means is scored on, from the first."""


def baselines(
    split: ImageSplit,
    recipe: Recipe,
    protocol: EvaluateRecipe,
    *,
    iterations: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, Any]]:
    """The baselines of a task by name, each with its scores and `what` it is.

    multi_object: `k_means`, and of a radiance model `untrained`. foreground: `half_splits`, `centre_prior`, `k_means`,
    `untrained`. instances: `untrained`.

    Args:
        split: Images with masks.
        recipe: Whose slots are counted, and whose model is made anew.
        protocol: How the model is scored.
        iterations: Slot-attention steps of the untrained model; None means those of the recipe.
        device: Where to evaluate the untrained model.
    """
    if protocol.task == "multi_object" and recipe.model.kind != "radiance":
        return {"k_means": _k_means_of_objects(split, recipe.model.num_slots)}
    untrained = _untrained(split, recipe, protocol, iterations=iterations, device=device)
    if protocol.task == "multi_object":
        return {"k_means": _k_means_of_objects(split, recipe.model.num_slots), "untrained": untrained}
    if protocol.task == "instances":
        return {"untrained": untrained}
    return {
        "half_splits": _half_splits(split),
        "centre_prior": _centre_prior(split),
        "k_means": _k_means_of_foreground(split, recipe.model.num_slots),
        "untrained": untrained,
    }


def halves(height: int, width: int) -> dict[str, Int[Tensor, "height width"]]:
    """An image cut in two equal halves: 0 left and 1 right, or 0 above and 1 below."""
    rows, columns = torch.arange(height), torch.arange(width)
    return {
        "left and right": (columns >= width / 2).long().expand(height, width),
        "top and bottom": (rows >= height / 2).long()[:, None].expand(height, width),
    }


def centre_disc(height: int, width: int, radius: float) -> Int[Tensor, "height width"]:
    """1 in a disc around the middle, 0 outside; `radius` in halves of the shorter side."""
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    distance = (rows.square()[:, None] + columns.square()).sqrt()
    return (distance <= radius * min(height, width) / 2).long()


def k_means_segmentation(
    images: UInt8[Tensor, "B 3 H W"], *, clusters: int, position_weight: float, seed: int = 0
) -> Int[Tensor, "B H W"]:
    """Cluster the pixels of each image by (red, green, blue, row, column), each standardised.

    Args:
        images: uint8 RGB.
        clusters: As many as the model has slots.
        position_weight: Scale of row and column against the colours.
        seed: Of the k-means++ start.
    """
    size = images.shape[-2:]
    rows, columns = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    position = np.stack([rows.ravel(), columns.ravel()], axis=1)
    position *= position_weight / position.std()
    labels = []
    for index, image in enumerate(images.numpy()):
        colour = image.reshape(3, -1).T.astype(np.float64)  # (H W, 3)
        colour = (colour - colour.mean(axis=0)) / np.maximum(colour.std(axis=0), 1e-6)
        features = np.concatenate([colour, position], axis=1)
        generator = np.random.default_rng([seed, index])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that lost its last pixel stays empty
            warnings.simplefilter("ignore", RuntimeWarning)  # fewer colours than clusters: 0 / 0 in the start
            _, label = kmeans2(features, clusters, minit="++", rng=generator)
        labels.append(label.reshape(size))
    return torch.from_numpy(np.stack(labels).astype(np.int64))


def _k_means_of_objects(split: ImageSplit, clusters: int) -> dict[str, Any]:
    sample = split.batch(range(min(IMAGES, len(split))))
    best: dict[str, Any] = {}
    for weight in POSITION_WEIGHTS:
        labels = k_means_segmentation(sample["image"], clusters=clusters, position_weight=weight)
        score = float(adjusted_rand_index(labels, sample["mask"], foreground_only=True).nanmean())
        if score > best.get("ari_fg", -1.0):
            covering = float(segmentation_covering(labels, sample["mask"], foreground_only=True).nanmean())
            best = {"ari_fg": score, "msc_fg": covering, "position_weight": weight}
    what = (
        f"k-means on colour and position, {clusters} clusters, first {len(sample['image'])} images, "
        "best of three position weights"
    )
    return {**best, "what": what}


def _k_means_of_foreground(split: ImageSplit, clusters: int) -> dict[str, Any]:
    sample = split.batch(range(min(IMAGES, len(split))))
    scores = {}
    for weight in FOREGROUND_POSITION_WEIGHTS:
        overlap = BestSlotOverlap()
        overlap.update(k_means_segmentation(sample["image"], clusters=clusters, position_weight=weight), sample["mask"])
        scores[weight] = _overlap(overlap)
    weight, best = _best(scores)
    what = (
        f"k-means on colour and position, {clusters} clusters, first {len(sample['image'])} images; oracle slot; "
        f"best position weight of {_listed(scores)}, chosen by labels"
    )
    return {**best, "position_weight": weight, "what": what}


def _half_splits(split: ImageSplit) -> dict[str, Any]:
    scores = _of_fixed_maps(split, halves)
    cut, best = _best(scores)
    what = f"every image cut in two equal halves; oracle slot; {cut}, the better of {_listed(scores)}, chosen by labels"
    return {**best, "cut": cut, "what": what}


def _centre_prior(split: ImageSplit) -> dict[str, Any]:
    scores = _of_fixed_maps(
        split, lambda height, width: {radius: centre_disc(height, width, radius) for radius in RADII}
    )
    radius, best = _best(scores)
    what = (
        "a disc in the middle of every image, and its outside; oracle slot; radius of "
        f"{radius} half sides, the best of {_listed(scores)}, chosen by labels"
    )
    return {**best, "radius": radius, "what": what}


def _untrained(
    split: ImageSplit,
    recipe: Recipe,
    protocol: EvaluateRecipe,
    *,
    iterations: int | None,
    device: torch.device | str,
) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_model(recipe).to(device)
    scores = headline(evaluate(model, split, protocol, iterations=iterations, device=device))
    choice = "; oracle slot, and the choices without labels" if protocol.task == "foreground" else ""
    return {**scores, "what": f"the same model with fresh weights of the recipe's seed, same protocol{choice}"}


def _of_fixed_maps(
    split: ImageSplit, make: Callable[[int, int], Mapping[Any, Int[Tensor, "H W"]]]
) -> dict[Any, dict[str, float]]:
    """IoU and Dice of label maps that are the same for all images, by the name of the map."""
    height, width = split.batch([0])["image"].shape[-2:]
    maps = make(height, width)
    overlaps = {name: BestSlotOverlap() for name in maps}
    for first in range(0, len(split), IMAGES):
        true = split.batch(range(first, min(first + IMAGES, len(split))))["mask"]
        for name, labels in maps.items():
            overlaps[name].update(labels.expand(len(true), height, width), true)
    return {name: _overlap(overlap) for name, overlap in overlaps.items()}


def _overlap(metric: BestSlotOverlap) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute()._asdict().items()}


def _best(scores: Mapping[Any, dict[str, float]]) -> tuple[Any, dict[str, float]]:
    return max(scores.items(), key=lambda entry: entry[1]["iou"])


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, names))
