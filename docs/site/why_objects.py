"""The pictures and the table of docs/why-objects.md, from runs of `boqsa reproduce table7 --datasets scenes`.

    python docs/site/why_objects.py RUNS-REPRODUCE/small docs/pictures

Which scenes are shown is fixed: the first of the test split that have four objects.

Shapes: B scenes, K slots, D slot size, H W pixels.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from boqsa.inference import load
from boqsa.inference.load import build_model
from boqsa.inference.run import read_recipe
from boqsa.models import MixtureModel
from boqsa.recipes import Recipe
from boqsa.reports.grid import Column, draw_columns, enlarge, match_to_slots, on_checks, pixels_of, whole_factor
from boqsa.reports.overlay import paint
from boqsa.reports.palette import slot_colours
from boqsa.training.data import open_split
from boqsa.training.evaluation import attention_masks

_OBJECTS = 4
_SHOWN = 6
_SEEDS = range(5)
_FOUND = 0.5
"""IoU from which on a slot counts as the object's."""
_GRADIENT_SCENES = 256


class FourObjects(NamedTuple):
    """All test scenes with four objects."""

    image: UInt8[Tensor, "B 3 H W"]
    true: Int[Tensor, "B H W"]
    """0 is the room."""


class WithoutItsSlot(NamedTuple):
    """What becomes of objects whose slot is taken away and the others refined anew, over all that were found."""

    objects: int
    error: float
    """Squared error on an object's pixels, images in [0, 1]: of its own slot among all five."""
    error_without: float
    """The same where its slot is missing."""
    to_another_object: float
    """Share of these objects that go, by most of their pixels, to the slot of another object, not of the room."""
    error_of_others: float
    """Squared error on the pixels of the scene's other objects, with all five slots."""
    error_of_others_without: float


def main(runs: Path, pictures: Path) -> None:
    """Write the pictures and print the tables."""
    recipe = read_recipe(_folder(runs, "bo_qsa", 0))
    scenes = four_objects(recipe)
    print(f"{len(scenes.image)} test scenes with {_OBJECTS} objects\n")
    whole, shared = _model(runs, "bo_qsa", 0), _model(runs, "bo_qsa", 2)
    sampled = _model(runs, "sa", 0)
    shown = FourObjects(scenes.image[:_SHOWN], scenes.true[:_SHOWN])
    draw_columns(settling(whole, shown.image[:1])).save(pictures / "why_settling.png")
    draw_columns(painting(whole, shown.image)).save(pictures / "why_painting.png")
    draw_columns(without_a_slot(whole, shown)).save(pictures / "why_without.png")
    draw_columns(painting(sampled, shown.image)).save(pictures / "why_sampled.png")
    draw_columns(painting(shared, shown.image)).save(pictures / "why_shared.png")
    for method in ("bo_qsa", "qsa"):
        print(f"{method}: objects, error -> without, to another object, error of others -> without; attention")
        for seed in _SEEDS:
            model = _model(runs, method, seed)
            print(seed, without_its_slot(model, scenes), round(spread(model, scenes.image), 3))
    print("gradient of the queries, norm by scheme, and cosine of the unrolled and the bi-level one")
    for seed in _SEEDS:
        recipe = read_recipe(_folder(runs, "bo_qsa", seed))
        torch.manual_seed(seed)
        fresh = build_model(recipe)
        assert isinstance(fresh, MixtureModel)
        print(
            seed,
            "fresh",
            gradients(fresh, scenes.image),
            "trained",
            gradients(_model(runs, "bo_qsa", seed), scenes.image),
        )


def _folder(runs: Path, method: str, seed: int) -> Path:
    (folder,) = runs.glob(f"scenes_mixture_32px_{method}_seed{seed}_*")
    return folder


def _model(runs: Path, method: str, seed: int) -> MixtureModel:
    model = load(_folder(runs, method, seed))
    assert isinstance(model, MixtureModel)
    return model


def four_objects(recipe: Recipe) -> FourObjects:
    """The test scenes of the recipe that have four objects."""
    split = open_split(recipe.data, "test")
    batch = split.batch(range(len(split)))
    has_four = torch.tensor([len(one.unique()) == _OBJECTS + 1 for one in batch["mask"]])
    return FourObjects(batch["image"][has_four], batch["mask"][has_four])


def settling(model: MixtureModel, image: UInt8[Tensor, "1 3 H W"]) -> list[Column]:
    """Attention of each slot after 1, 2, 3 and 5 iterations: a row each."""
    scale = whole_factor(image.shape[-2:])
    rows = (1, 2, 3, 5)
    with torch.inference_mode():
        outputs = [model(image, iterations=iterations) for iterations in rows]
    attention = torch.cat([output.attention for output in outputs])
    shares = attention_masks(attention, tuple(image.shape[-2:]))[:, :, 0].numpy()  # (rows, K, H, W)
    pixels = enlarge(pixels_of(image).repeat(len(rows), axis=0), scale)
    columns = [Column("image", pixels)]
    for slot, colour in enumerate(slot_colours(shares.shape[1])):
        tiles = on_checks(pixels, enlarge(shares[:, slot], scale))
        columns.append(Column(f"slot {slot + 1}", tiles, tuple(colour.tolist())))
    painted = pixels_of(torch.cat([output.reconstruction for output in outputs]))
    return [*columns, Column("reconstruction", enlarge(painted, scale))]


def painting(model: MixtureModel, image: UInt8[Tensor, "B 3 H W"]) -> list[Column]:
    """What each slot paints as far as its mask goes, and the sum."""
    scale = whole_factor(image.shape[-2:])
    torch.manual_seed(0)  # slots that are drawn
    with torch.inference_mode():
        output = model(image)
    columns = [Column("image", enlarge(pixels_of(image), scale))]
    shares = output.masks[:, :, 0].numpy()
    for slot, colour in enumerate(slot_colours(shares.shape[1])):
        own = enlarge(pixels_of(output.slot_reconstructions[:, slot]), scale)
        columns.append(
            Column(f"slot {slot + 1}", on_checks(own, enlarge(shares[:, slot], scale)), tuple(colour.tolist()))
        )
    return [*columns, Column("sum", enlarge(pixels_of(output.reconstruction), scale))]


def without_a_slot(model: MixtureModel, scenes: FourObjects) -> list[Column]:
    """Each scene with all slots, and with the slot of its largest object taken away and the others refined anew."""
    image, true = scenes
    scale = whole_factor(image.shape[-2:])
    with torch.inference_mode():
        output = model(image)
    found = output.segmentation()
    taken, repainted, refound = [], [], []
    for index, labels in enumerate(true):
        largest = int(labels[labels > 0].bincount().argmax())
        slot = int(found[index][labels == largest].bincount().argmax())
        keep = [other for other in range(model.num_slots) if other != slot]
        with torch.inference_mode():
            without = model(image[index : index + 1], which_slots=keep)
        taken.append(slot)
        repainted.append(without.reconstruction[0])
        refound.append(torch.tensor(keep)[without.segmentation()[0]])
    matched = np.stack([match_to_slots(a.numpy(), b.numpy()) for a, b in zip(true, found, strict=True)])
    marks = np.stack([_patch(slot, model.num_slots, matched.shape[1]) for slot in taken])
    return [
        Column("image", enlarge(pixels_of(image), scale)),
        Column("truth", enlarge(paint(matched), scale)),
        Column("five slots", enlarge(paint(found.numpy()), scale)),
        Column("reconstruction", enlarge(pixels_of(output.reconstruction), scale)),
        Column("taken away", enlarge(marks, scale)),
        Column("other four", enlarge(paint(torch.stack(refound).numpy()), scale)),
        Column("repainted", enlarge(pixels_of(torch.stack(repainted)), scale)),
    ]


def _patch(slot: int, slots: int, side: int) -> NDArray[np.uint8]:
    """A tile in the colour of a slot, on white."""
    tile = np.full((side, side, 3), 255, np.uint8)
    tile[side // 3 : -(side // 3), side // 3 : -(side // 3)] = slot_colours(slots)[slot]
    return tile


def without_its_slot(model: MixtureModel, scenes: FourObjects) -> WithoutItsSlot:
    """Take each found object's slot away in turn, refine the other four from their queries, and look what changed."""
    image, true = scenes
    target = image.float() / 255
    slots = model.num_slots
    others = [[kept for kept in range(slots) if kept != slot] for slot in range(slots)]
    with torch.inference_mode():
        whole = model(image)
        outputs = [model(image, which_slots=kept) for kept in others]
    found, error = whole.segmentation(), _error(whole.reconstruction, target)
    refound = [torch.tensor(kept)[output.segmentation()] for kept, output in zip(others, outputs, strict=True)]
    errors = [_error(output.reconstruction, target) for output in outputs]
    rows = []
    for index, labels in enumerate(true):
        room = _most(found[index], labels == 0)
        for label in range(1, _OBJECTS + 1):
            own, rest = labels == label, (labels > 0) & (labels != label)
            slot = _most(found[index], own)
            mask = found[index] == slot
            if slot == room or (mask & own).sum() / (mask | own).sum() < _FOUND:
                continue
            rows.append(
                (
                    error[index][own].mean(),
                    errors[slot][index][own].mean(),
                    float(_most(refound[slot][index], own) != room),
                    error[index][rest].mean(),
                    errors[slot][index][rest].mean(),
                )
            )
    return WithoutItsSlot(len(rows), *np.mean(np.array(rows, dtype=np.float64), axis=0).round(4).tolist())


def _error(reconstruction: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
    return (reconstruction - target).square().mean(dim=1)


def _most(found: Int[Tensor, "H W"], region: Bool[Tensor, "H W"]) -> int:
    """The slot that owns most of a region."""
    return int(found[region].bincount().argmax())


def spread(model: MixtureModel, image: UInt8[Tensor, "B 3 H W"]) -> float:
    """Mean entropy of a pixel's attention over slots, as a share of the largest possible: 0 is one slot a pixel."""
    with torch.inference_mode():
        attention = model(image).attention  # (B, K, N)
    entropy = torch.special.entr(attention).sum(dim=1).mean() / np.log(model.num_slots)
    return float(entropy)


def gradients(model: MixtureModel, image: UInt8[Tensor, "B 3 H W"]) -> dict[str, float]:
    """The gradient that the queries get under each scheme, from the same weights and the same scenes."""
    encoder = model.slot_encoder
    trained_with, found = encoder.gradient, {}
    for scheme in ("unrolled", "implicit", "bilevel"):
        encoder.gradient = scheme
        model.zero_grad()
        model(image[:_GRADIENT_SCENES]).loss.backward()
        gradient = encoder.queries.weight.grad
        found[scheme] = torch.zeros_like(encoder.queries.weight) if gradient is None else gradient
    encoder.gradient = trained_with
    alike = torch.cosine_similarity(found["unrolled"].flatten(), found["bilevel"].flatten(), dim=0)
    norms = {scheme: round(float(gradient.norm()), 5) for scheme, gradient in found.items()}
    return {**norms, "cosine": round(float(alike), 3)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
