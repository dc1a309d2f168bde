"""Does a slot index take the same kind of object in every image? (Paper 5.4, Figures 4 and 6; claims of binding.)

The paper shows pictures. Here every true object is matched to the slot that covers it best: the one with the largest
IoU of the arg-max segmentation, if that is at least 0.5. That gives pairs (slot index, attribute of the object), and
the normalised mutual information of the two: I(slot; attribute) over the mean of both entropies, 0 (independent) to 1
(each tells the other). Few pairs give more than 0 by chance, and the objects of one image take different slots; so it
is compared with the same pairs after the slot indices of each image are permuted: that keeps both, and loses the index.

The attributes are those of `boqsa.data.attributes`.

Shapes: N images, M objects of all images, H W pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.data.attributes import Objects, seen_objects, with_true_attributes
from boqsa.data.raycast import SceneParameters
from boqsa.errors import InputError
from boqsa.metrics.contingency import contingency_table, pairwise_iou
from boqsa.reproduce.outputs import INSTALL_SCIKIT_LEARN, outputs

LEAST_IOU = 0.5


class Binding(NamedTuple):
    """How much a slot index says about an attribute of the object it takes."""

    attribute: str
    mutual_information: float
    """Normalised, 0 to 1; NaN where all pairs have one class, or one slot."""
    baseline: float
    """Its mean over permutations of the slot indices within each image."""
    baseline_low: float
    """Their 2.5th percentile."""
    baseline_high: float
    """Their 97.5th percentile."""
    pairs: int
    """Objects that a slot covers with `LEAST_IOU` or more."""
    objects: int
    """True objects, matched or not."""
    classes: int
    """Of the attribute, among the pairs."""
    slots: int
    """Slot indices among the pairs."""


def binding(
    model: nn.Module,
    data: PackedDataset,
    *,
    count: int = 0,
    scenes: SceneParameters | None = None,
    iterations: int | None = None,
    permutations: int = 100,
    seed: int = 0,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> list[Binding]:
    """Measure the binding of a model on a split, its own or another data set's.

    Args:
        model: Takes images, returns `Output`; its `masks` are what is judged.
        data: A split with masks, of the model's image size.
        count: Only the first so many images; 0 means all.
        scenes: Of built-in scenes: `boqsa.data.builtin.scene_parameters` of the same images, for the true attributes.
        iterations: Slot-attention steps; None means the trained number.
        permutations: For the baseline.
        seed: Of the permutations.
        batch_size: Images at a time.
        device: Where the model is.

    Returns:
        One entry an attribute.

    Raises:
        InputError: if the split has no masks or scikit-learn is not installed.
        ValueError: if images have another size than the model, or `scenes` are others.
    """
    if not data.has_masks:
        raise InputError(f"{data.path} ({data.split}) has no masks; binding needs the true objects.")
    sample = data.batch(range(min(count, len(data)) if count else len(data)))
    image, mask = sample["image"], sample["mask"]
    passes = outputs(model, image, iterations=iterations, batch_size=batch_size, device=device)
    found = [(output.segmentation().cpu(), output.masks.shape[1]) for output in passes]
    objects = seen_objects(image, mask)
    if scenes is not None:
        objects = with_true_attributes(objects, scenes)
    segmentation = torch.cat([labels for labels, _ in found])
    return bindings(segmentation, mask, objects, num_slots=found[0][1], permutations=permutations, seed=seed)


def bindings(
    segmentation: Int[Tensor, "N H W"],
    mask: Int[Tensor, "N H W"],
    objects: Objects,
    *,
    num_slots: int,
    permutations: int = 100,
    seed: int = 0,
) -> list[Binding]:
    """Measure the binding of label maps; arguments as for `binding`.

    Args:
        segmentation: Slot that owns each pixel, 0 to `num_slots` - 1.
        mask: True labels: 0 background, above it objects, below it ignored.
        objects: Of `mask`.
        num_slots: K, the number of slots that are permuted.
        permutations: At least 1.
        seed: Of the permutations.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; expected at least 1.")
    slot = covering_slots(segmentation, mask, objects)
    paired = slot >= 0
    generator = np.random.default_rng(seed)
    shuffled = []
    for _ in range(permutations):
        order = generator.permuted(np.tile(np.arange(num_slots), (len(mask), 1)), axis=1)  # (N, K)
        shuffled.append(order[objects.image[paired], slot[paired]])
    return [_binding(name, slot, classes, paired, shuffled) for name, classes in objects.attributes.items()]


def _binding(
    name: str,
    slot: Int[np.ndarray, "M"],
    classes: Int[np.ndarray, "M"],
    paired: Bool[np.ndarray, "M"],
    shuffled: list[Int[np.ndarray, "P"]],
) -> Binding:
    own, attribute = slot[paired], classes[paired]
    chance = np.array([_mutual_information(other, attribute) for other in shuffled])
    low, high = np.percentile(chance, [2.5, 97.5])
    return Binding(
        attribute=name,
        mutual_information=_mutual_information(own, attribute),
        baseline=float(chance.mean()),
        baseline_low=float(low),
        baseline_high=float(high),
        pairs=len(own),
        objects=len(slot),
        classes=len(np.unique(attribute)),
        slots=len(np.unique(own)),
    )


def _mutual_information(slot: Int[np.ndarray, "P"], attribute: Int[np.ndarray, "P"]) -> float:
    try:
        from sklearn.metrics import normalized_mutual_info_score
    except ImportError:
        raise InputError(f"mutual information is missing: {INSTALL_SCIKIT_LEARN}.") from None
    if len(np.unique(slot)) < 2 or len(np.unique(attribute)) < 2:
        return float("nan")
    return float(normalized_mutual_info_score(slot, attribute, average_method="arithmetic"))


def covering_slots(
    segmentation: Int[Tensor, "N H W"], mask: Int[Tensor, "N H W"], objects: Objects
) -> Int[np.ndarray, "M"]:
    """The slot that covers each object best by IoU, ties to the lower one; -1 where that IoU is below `LEAST_IOU`.

    At 0.5 or more a slot serves one object alone, but for two that share it half and half to the pixel.
    """
    slots = np.full(len(objects.image), -1)
    for index, (image, label) in enumerate(zip(objects.image, objects.label, strict=True)):
        labels = mask[image : image + 1]  # (1, H, W)
        this = torch.where(labels < 0, -1, (labels == int(label)).long())
        iou = pairwise_iou(contingency_table(segmentation[image : image + 1], this))[0, :, 1]  # (K,)
        if iou.max() >= LEAST_IOU:
            slots[index] = int(iou.argmax())
    return slots
