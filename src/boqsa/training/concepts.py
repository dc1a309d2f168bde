"""The concepts of a run: look at a split, count what each slot binds, and write the page on which people name slots.

The model is asked as `boqsa segment` asks it, so that what the page shows of a slot is what the slot will do there:
slots that are samples start from the same numbers for every image, and a features model looks at the pictures through
its encoder, so that the set needs no features.

Images are read twice: once to count, and of those that are shown once more to draw them. So no more than a batch of
them is in memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boqsa.atomic import write_text
from boqsa.data import PackedDataset
from boqsa.data.attributes import CLASSES, Objects, classified_objects, measured_objects, with_true_attributes
from boqsa.data.builtin import scene_parameters
from boqsa.data.scenes import SceneSettings
from boqsa.errors import InputError
from boqsa.inference.concepts import PIXEL_CLASSES, ConceptFinder, Concepts, Region
from boqsa.inference.load import require_device
from boqsa.inference.names import read_names
from boqsa.inference.run import checkpoint_folder, read_manifest, read_recipe, refuse_links
from boqsa.inference.segment import Segmentation, Segmenter
from boqsa.plain import without_nan
from boqsa.recipes import DataRecipe, FeaturesRecipe
from boqsa.reports.concepts import RegionPictures, concepts_html
from boqsa.reports.regions import mean_mask_picture, region_cut_out, region_in_place
from boqsa.training.data import open_split
from boqsa.training.results import open_for, suffix_of

IMAGES, EXAMPLES = 1_000, 8
"""Unless other numbers are asked."""

_OF_SCENES = ("kind", "true_colour", "size", "true_position")
_SEEN = ("colour", "size", "position")
_MOST_LABELS = 12
"""Of a set whose labels are counted, too: some sets number the walls and the floor, or the levels of a stack. More
labels are numbers of objects."""

_KINDS_OF_REGIONS = ("strongest", "spread", "nearest")
_SAMPLED = (
    "The slots of this model are samples of one Gaussian: a slot's number stands for nothing but the order in which "
    "they were drawn. What follows holds for one draw, that of `boqsa segment`, which starts from the same numbers "
    "every time."
)


def find_concepts(
    run: str | Path,
    *,
    data: DataRecipe | None = None,
    split: str | None = None,
    images: int = IMAGES,
    examples: int = EXAMPLES,
    checkpoint: str = "last",
    iterations: int | None = None,
    encoder: str | Path | None = None,
    device: str = "cpu",
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Find what each slot of a run binds, and write `concepts.html` and `concepts.json` into the run folder.

    Args:
        run: Run folder.
        data: Another data set to look at; None means the run's own.
        split: None means the test split of the data.
        images: Only the first so many; 0 means all.
        examples: Most regions of each kind that the page shows of a slot.
        checkpoint: "last", "best_loss" or "best_<metric>".
        iterations: Slot-attention steps; None means the trained number.
        encoder: Of a features model: where its encoder is, as for `Segmenter.from_pretrained`.
        device: Where the model is.
        command: What the user typed, for the page.
        progress: Called with (images done, images in all).

    Returns:
        What `concepts.json` holds, with NaN for None, and `page`, the path of the page. Of another data set, split or
        number of iterations than the run's own both files have it in their names, as `metrics.json` does.

    Raises:
        RunError, InputError, RecipeError: if the run, its names, its checkpoint, its encoder or the data cannot be
            used.
    """
    folder = Path(run)
    recipe = read_recipe(folder)
    refuse_links(folder)
    require_device(device)
    for name, value, least in (("number of images", images, 0), ("number of examples", examples, 1)):
        if value < least:
            raise InputError(f"the {name} is {value}; it must be at least {least}.")
    names = read_names(folder, recipe.model.num_slots)
    step = read_manifest(checkpoint_folder(folder, checkpoint))["step"]
    segmenter = Segmenter.from_pretrained(
        folder, checkpoint=checkpoint, iterations=iterations, encoder=encoder, device=device
    )
    data = data or recipe.data
    split = split or data.test_split
    takes_features = isinstance(recipe.model, FeaturesRecipe)
    dataset = open_split(data, split) if takes_features else open_for(recipe, data, split)
    count = min(images, len(dataset)) if images else len(dataset)
    size = recipe.evaluate.batch_size

    finder = ConceptFinder()
    measured = []
    for indices, sample, batch in _looked(segmenter, dataset, range(count), size):
        true = sample["mask"].numpy() if dataset.has_masks else None
        for index, found in enumerate(batch):
            finder.update(found, None if true is None else true[index])
        if dataset.has_masks:
            measured.append(measured_objects(sample["image"], sample["mask"], first=indices[0]))
        if progress is not None:
            progress(indices[-1] + 1, count)
    objects = _objects(measured, dataset, data, count) if dataset.has_masks else None
    classes = _classes(objects, data)
    concepts = finder.compute(objects, classes=classes, examples=examples)

    name = suffix_of(folder, recipe, data, dataset, iterations)
    plain = {
        "run": str(run),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "checkpoint": checkpoint,
        "step": step,
        "iterations": iterations or recipe.model.iterations,
        "dataset": {
            "name": dataset.manifest.name,
            "split": split,
            "fingerprint": dataset.manifest.fingerprint,
        },
        "warning": _SAMPLED if recipe.model.queries == "shared_gaussian" else "",
        "command": command,
        "numbers": f"concepts{name}.json",
        "classes": {**classes, **{kind: list(PIXEL_CLASSES[kind]) for kind in concepts.pixels}},
        **_plain(concepts, dataset.names()),
    }
    shown = [region for one in concepts.slots for region in (*one.strongest, *one.spread, *one.nearest)]
    page = concepts_html(
        plain,
        names=names,
        mean_masks=[mean_mask_picture(one.mean_mask, one.slot) for one in concepts.slots],
        regions=_draw(segmenter, dataset, shown, size),
    )
    write_text(folder / f"concepts{name}.json", json.dumps(without_nan(plain), indent=2))
    write_text(folder / f"concepts{name}.html", page)
    return {**plain, "page": str(folder / f"concepts{name}.html")}


def _looked(
    segmenter: Segmenter, dataset: PackedDataset, indices: Sequence[int], size: int
) -> Iterator[tuple[Sequence[int], Mapping[str, Any], Iterator[Segmentation]]]:
    """Batches of a split with what the model finds in them."""
    columns = ["image", "mask"] if dataset.has_masks else ["image"]
    for first in range(0, len(indices), size):
        chosen = indices[first : first + size]
        sample = dataset.batch(chosen, columns=columns)
        pictures = list(sample["image"].permute(0, 2, 3, 1).numpy())  # (H, W, 3) each
        yield chosen, sample, segmenter.predict_batch(pictures)


def _objects(measured: Sequence[Any], dataset: PackedDataset, data: DataRecipe, count: int) -> Objects:
    """The true objects of the images, with what the renderer knows of them if it has drawn them, else with their label:
    the place of its number among those that occur."""
    objects = classified_objects(np.concatenate(measured), dataset.image_size)
    if _knows_scenes(data):
        fewest, most = data.scene_objects
        settings = SceneSettings(image_size=data.image_size, min_objects=fewest, max_objects=most)
        scenes = scene_parameters(dataset, count, seed=data.scene_seed, settings=settings)
        return with_true_attributes(objects, scenes)
    place = np.unique(objects.label, return_inverse=True)[1]
    return objects._replace(attributes={**objects.attributes, "label": place})


def _knows_scenes(data: DataRecipe) -> bool:
    return data.name == "scenes" and data.scene_views == 1


def _classes(objects: Objects | None, data: DataRecipe) -> dict[str, list[str]]:
    """The attributes to count, with the names of their classes."""
    if objects is None:
        return {}
    if _knows_scenes(data):
        return {name: list(CLASSES[name]) for name in _OF_SCENES}
    labels = [str(label) for label in np.unique(objects.label)]
    own = {"label": labels} if 2 <= len(labels) <= _MOST_LABELS else {}
    return {**{name: list(CLASSES[name]) for name in _SEEN}, **own}


def _plain(concepts: Concepts, image_names: Sequence[str] | None) -> dict[str, Any]:
    """The same as nested lists and mappings, with the names of images and without mean masks."""

    def region(one: Region) -> dict[str, Any]:
        named = {} if image_names is None else {"name": image_names[one.image].encode(errors="replace").decode()}
        return {**one._asdict(), **named}

    def counts(found: Mapping[str, Any]) -> dict[str, list[int]]:
        return {name: values.tolist() for name, values in found.items()}

    return {
        "images": concepts.images,
        "objects": concepts.objects,
        "information": dict(concepts.information),
        "attributes": counts(concepts.attributes),
        "pixels": counts(concepts.pixels),
        "slots": [
            {
                **{name: value for name, value in one._asdict().items() if name != "mean_mask"},
                "mean_mask_most": float(one.mean_mask.max()),
                "place": CLASSES["position"][one.place] if one.images else "",
                "attributes": counts(one.attributes),
                "pixels": counts(one.pixels),
                "notable": [entry._asdict() for entry in one.notable],
                "neighbours": [entry._asdict() for entry in one.neighbours],
                **{kind: [region(entry) for entry in getattr(one, kind)] for kind in _KINDS_OF_REGIONS},
            }
            for one in concepts.slots
        ],
    }


def _draw(
    segmenter: Segmenter, dataset: PackedDataset, shown: Sequence[Region], size: int
) -> dict[tuple[int, int], RegionPictures]:
    """Pictures of regions by image and slot."""
    slots: dict[int, set[int]] = {}
    for region in shown:
        slots.setdefault(region.image, set()).add(region.slot)
    pictures = {}
    for indices, _, batch in _looked(segmenter, dataset, sorted(slots), size):
        for index, found in zip(indices, batch, strict=True):
            for slot in slots[index]:
                owned = found.labels == slot
                pictures[index, slot] = RegionPictures(
                    region_cut_out(found.picture, owned, slot), region_in_place(found.picture, owned, slot)
                )
    return pictures
