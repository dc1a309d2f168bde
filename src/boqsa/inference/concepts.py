"""What each slot stands for: where it binds, how strongly, what lies there, and which slots are alike.

A learned query takes the same kind of thing in every image (paper 5.4), but which, nobody told it: concepts "need to be
mined by humans" (appendix C). This counts what a human needs for that. `boqsa.reports.concepts` shows it, and
`boqsa.inference.names` keeps what people make of it.

A *region* is what one slot owns of one image, if that is at least 1/128 of the image. How strongly a slot binds it:

    strength = confidence x likeness

confidence is the mean of the slot's mask where it is the largest one; likeness the cosine similarity of the slot vector
to the mean of all vectors of this slot that have a region, or 0 if it is negative. So an undecided mask does not count
as strong, nor does a sharp one of a thing that this slot rarely takes.

Pictures pass by one at a time. What is kept of each is a vector and a few numbers a slot: for a thousand images of
eight slots of 64 numbers 2 MB.

Shapes: N images, K slots, D slot size, H W image pixels, h w pixels of the masks, C classes of an attribute.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, UInt8

from boqsa.data.attributes import HUES, Objects, hue_class
from boqsa.inference.segment import Segmentation
from boqsa.models.adaptive import BORDER_SHARE, LEAST_AREA

_BORDER_WIDTH = 1 / 16
"""Of the shorter side, as in `boqsa.metrics.label_free`."""
_LEAST_SURPRISE, _LEAST_DIFFERENCE = 4.0, 0.1
"""What stands out: so many standard errors above the share of the whole set, and so much."""

_MOST_CHANCE = 0.02
"""Of normalised mutual information, above which it is not told: it would say more of the few objects than of slots."""

PIXEL_CLASSES = {"pixel_colour": HUES, "truth": ("background", "object")}
"""What pixels can be: the hue of their colour, as `boqsa.data.attributes` has it, and what the masks say."""


class Region(NamedTuple):
    """What one slot owns of one image."""

    image: int
    """Index, in the order that images were taken in."""
    slot: int
    value: float
    """Its strength; for the regions nearest to a slot the cosine similarity to the mean of that slot. 0 to 1."""


class Neighbour(NamedTuple):
    """Another slot."""

    slot: int
    similarity: float
    """Cosine similarity of the mean slot vectors, -1 to 1."""


class Notable(NamedTuple):
    """A class that is more frequent with a slot than in the whole set."""

    attribute: str
    label: int
    """Of the class."""
    share: float
    """With this slot, 0 to 1."""
    of_all: float
    """In the whole set."""


class Concept(NamedTuple):
    """What is known of one slot."""

    slot: int
    images: int
    """With a region of this slot."""
    area: float
    """Mean share of these images that it owns; NaN where there are none."""
    confidence: float
    """Mean over its regions, 1/K to 1; NaN where there are none."""
    border: float
    """Mean share of the border that it owns, over all images: a frame as wide as a sixteenth of the shorter side."""
    is_background: bool
    """Whether that is a quarter or more, and not less than its mean share of all images: it keeps to the border."""
    mean_mask: Float32[np.ndarray, "h w"]
    """Over the images with a region; zeros where there are none."""
    place: int
    """Cell of a 3x3 grid over the image, row by row, that holds the centre of its mean mask; -1 where there is none."""
    pixels: Mapping[str, Int64[np.ndarray, "C"]]
    """Its pixels by class, see `PIXEL_CLASSES`."""
    on_objects: int
    """Regions that share more pixels with a true object than with the background or with another one."""
    iou: float
    """Mean IoU of these regions and their objects; NaN where there are none."""
    attributes: Mapping[str, Int64[np.ndarray, "C"]]
    """These objects by class."""
    notable: Sequence[Notable]
    """What stands out of the attributes of its objects, the largest difference first; of its pixels if nothing does, or
    if most of its regions lie on no object."""
    neighbours: Sequence[Neighbour]
    """All other slots with regions, the most alike first."""
    strongest: Sequence[Region]
    """The regions that it binds most strongly."""
    spread: Sequence[Region]
    """Others of its regions, evenly from strong to the weakest one: what the strongest do not show."""
    nearest: Sequence[Region]
    """Regions of other slots nearest to the mean of this one, at most one an image."""


class Concepts(NamedTuple):
    """What is known of all slots, and what the whole set is like."""

    images: int
    pixels: Mapping[str, Int64[np.ndarray, "C"]]
    """All pixels by class."""
    objects: int
    """True objects; 0 also where there are no masks."""
    attributes: Mapping[str, Int64[np.ndarray, "C"]]
    """All true objects by class."""
    information: Mapping[str, float]
    """How much a slot's number says about an attribute of the object that its region lies on: normalised mutual
    information, 0 (nothing) to 1 (each tells the other); NaN where there is but one class, or one slot with objects, or
    so few objects that chance alone would give more than 0.02."""
    slots: Sequence[Concept]


class ConceptFinder:
    """Takes in what a model found, image by image; `compute` gives the concepts of its slots."""

    def __init__(self) -> None:
        self._area: list[Float64[np.ndarray, "K"]] = []
        self._border: list[Float64[np.ndarray, "K"]] = []
        self._confidence: list[Float32[np.ndarray, "K"]] = []
        self._slots: list[Float32[np.ndarray, "K D"]] = []
        self._label: list[Int64[np.ndarray, "K"]] = []  # that each slot shares most pixels with; -1 for none
        self._iou: list[Float64[np.ndarray, "K"]] = []
        self._mask_sum: Any = 0  # (K, h, w)
        self._pixels: dict[str, Any] = {}  # (K, C)

    def update(self, found: Segmentation, true: Int[np.ndarray, "H W"] | None = None) -> None:
        """Take in an image.

        Args:
            found: What the model made of it, without a crop.
            true: True labels: 0 background, above it objects, below it ignored. Of all images, or of none.
        """
        num_slots = len(found.slots)
        area = found.share
        self._area.append(area)
        self._border.append(_border_share(found.labels, num_slots))
        self._confidence.append(found.confidence)
        self._slots.append(found.slots)
        self._mask_sum = self._mask_sum + np.where((area >= LEAST_AREA)[:, None, None], found.masks, 0)
        self._count("pixel_colour", found.labels, hue_class(found.picture.reshape(-1, 3) / 255), num_slots)
        if true is not None:
            seen = true >= 0
            self._count("truth", found.labels[seen], np.minimum(true[seen], 1), num_slots)
            label, iou = _overlapped(found.labels[seen], true[seen], num_slots)
            self._label.append(label)
            self._iou.append(iou)

    def _count(
        self, kind: str, labels: UInt8[np.ndarray, "..."], classes: Int[np.ndarray, "..."], num_slots: int
    ) -> None:
        """Add pixels by their slot and their class."""
        many = len(PIXEL_CLASSES[kind])
        pairs = labels.ravel().astype(np.int64) * many + classes.ravel()
        counted = np.bincount(pairs, minlength=num_slots * many).reshape(num_slots, many)
        self._pixels[kind] = self._pixels.get(kind, 0) + counted

    def compute(
        self, objects: Objects | None = None, *, classes: Mapping[str, Sequence[str]] | None = None, examples: int = 8
    ) -> Concepts:
        """The concepts, in the order of slots.

        Args:
            objects: The true objects of all images, where there are masks.
            classes: What the classes of each attribute of `objects` are called, in order; attributes that are not
                named are left out.
            examples: Most regions of each kind to name.

        Raises:
            ValueError: if no image was taken in.
        """
        if not self._area:
            raise ValueError("no image was taken in.")
        classes = classes or {}
        area, border, confidence = np.stack(self._area), np.stack(self._border), np.stack(self._confidence)  # (N, K)
        vectors = np.stack(self._slots)  # (N, K, D)
        has_region = area >= LEAST_AREA
        times = has_region.sum(axis=0)  # (K,)
        means = (vectors * has_region[..., None]).sum(axis=0) / np.maximum(times, 1)[:, None]  # (K, D)
        # To the mean of the slot in the last axis: (N, K of the region, K of the mean).
        likeness = _directions(vectors) @ _directions(means).T
        own = np.einsum("nkk->nk", likeness)
        strength = np.where(has_region, confidence * own.clip(min=0), -1)
        between = _directions(means) @ _directions(means).T
        taken = self._objects_taken(objects, has_region)  # (N, K)
        attributes = {} if objects is None else {name: objects.attributes[name] for name in classes}
        of_all = {name: np.bincount(values, minlength=len(classes[name])) for name, values in attributes.items()}
        all_pixels = {kind: counted.sum(axis=0) for kind, counted in self._pixels.items()}
        found = []
        for slot, count in enumerate(times):
            here = has_region[:, slot]
            order = np.argsort(-strength[:, slot], kind="stable")[:count]
            own_pixels = {kind: counted[slot] for kind, counted in self._pixels.items()}
            rows = taken[here, slot]
            on_objects = rows >= 0
            tells_objects = 2 * on_objects.sum() >= count
            own_objects = {
                name: np.bincount(values[rows[on_objects]], minlength=len(classes[name]))
                for name, values in attributes.items()
            }
            found.append(
                Concept(
                    slot=slot,
                    images=int(count),
                    area=_mean(area[here, slot]),
                    confidence=_mean(confidence[here, slot]),
                    border=float(border[:, slot].mean()),
                    is_background=bool(border[:, slot].mean() >= max(BORDER_SHARE, area[:, slot].mean())),
                    mean_mask=(self._mask_sum[slot] / max(count, 1)).astype(np.float32),
                    place=_place(self._mask_sum[slot]),
                    pixels=own_pixels,
                    on_objects=int(on_objects.sum()),
                    iou=_mean(np.stack(self._iou)[here, slot][on_objects]) if self._iou else float("nan"),
                    attributes=own_objects,
                    notable=(_notable(own_objects, of_all, int(on_objects.sum())) if tells_objects else [])
                    or _notable(own_pixels, all_pixels, int(count)),
                    neighbours=[
                        Neighbour(int(other), float(between[slot, other]))
                        for other in np.argsort(-between[slot], kind="stable")
                        if other != slot and count and times[other]
                    ],
                    strongest=_regions(order[:examples], slot, strength),
                    spread=_regions(_evenly(order[examples:], examples), slot, strength),
                    nearest=_nearest(likeness[..., slot], has_region, slot, examples) if count else [],
                )
            )
        number = 0 if objects is None else len(objects.image)
        information = {name: _information(np.stack([one.attributes[name] for one in found])) for name in attributes}
        return Concepts(len(area), all_pixels, number, of_all, information, found)

    def _objects_taken(self, objects: Objects | None, has_region: Bool[np.ndarray, "N K"]) -> Int64[np.ndarray, "N K"]:
        """The row in `objects` of the object that each region lies on; -1 where it lies on none."""
        taken = np.full(has_region.shape, -1)
        if objects is None or not self._label:
            return taken
        rows = {
            (image, label): row for row, (image, label) in enumerate(zip(objects.image, objects.label, strict=True))
        }
        labels = np.stack(self._label)
        for image, slot in np.argwhere(has_region & (labels > 0)):
            taken[image, slot] = rows.get((image, labels[image, slot]), -1)
        return taken


def _border_share(labels: UInt8[np.ndarray, "H W"], num_slots: int) -> Float64[np.ndarray, "K"]:
    """Share of the border that each slot owns."""
    edge = max(1, int(min(labels.shape) * _BORDER_WIDTH))
    is_border = np.ones(labels.shape, dtype=bool)
    is_border[edge:-edge, edge:-edge] = False
    share: Float64[np.ndarray, "K"] = np.bincount(labels[is_border], minlength=num_slots) / is_border.sum()
    return share


def _place(mask: Float[np.ndarray, "h w"]) -> int:
    """The cell of a 3x3 grid that holds the centre of a mask; -1 if it is empty."""
    if not mask.any():
        return -1
    down, across = (
        int(3 * np.average((np.arange(length) + 0.5) / length, weights=mask.sum(axis=1 - axis)))
        for axis, length in enumerate(mask.shape)
    )
    return 3 * down + across


def _overlapped(
    labels: UInt8[np.ndarray, "P"], true: Int[np.ndarray, "P"], num_slots: int
) -> tuple[Int64[np.ndarray, "K"], Float64[np.ndarray, "K"]]:
    """The true label that each slot shares most pixels with, the lower one of two, and the IoU with it; -1 for none."""
    names, index = np.unique(true, return_inverse=True)
    if not len(names):
        return np.full(num_slots, -1), np.zeros(num_slots)
    pairs = labels.astype(np.int64) * len(names) + index
    shared = np.bincount(pairs, minlength=num_slots * len(names)).reshape(num_slots, len(names))
    most = shared.argmax(axis=1)
    common = shared.max(axis=1)
    union = shared.sum(axis=1) + shared.sum(axis=0)[most] - common
    return np.where(common > 0, names[most], -1), common / np.maximum(union, 1)


def _directions(vectors: Float[np.ndarray, "*M D"]) -> Float64[np.ndarray, "*M D"]:
    """The same vectors of length 1; zeros stay."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    directions: Float64[np.ndarray, "*M D"] = vectors / np.where(length > 0, length, 1)
    return directions


def _mean(values: Float[np.ndarray, "M"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _regions(images: Int[np.ndarray, "M"], slot: int, value: Float[np.ndarray, "N K"]) -> list[Region]:
    return [Region(int(image), slot, float(value[image, slot])) for image in images]


def _evenly(order: Int[np.ndarray, "M"], count: int) -> Int[np.ndarray, "m"]:
    """At most so many of these at even distances, the last one among them."""
    if len(order) <= count:
        return order
    steps = np.arange(1, count + 1) * len(order) // count - 1
    return order[steps]


def _nearest(
    likeness: Float[np.ndarray, "N K"], has_region: Bool[np.ndarray, "N K"], slot: int, count: int
) -> list[Region]:
    """Regions of other slots by their similarity to the mean of a slot, at most one an image."""
    others = has_region.copy()
    others[:, slot] = False
    likeness = np.where(others, likeness, -np.inf)
    best = likeness.argmax(axis=1)  # (N,)
    value = likeness.max(axis=1)
    order = [image for image in np.argsort(-value, kind="stable") if value[image] > 0][:count]
    return [Region(int(image), int(best[image]), float(value[image])) for image in order]


def _information(counts: Int64[np.ndarray, "K C"]) -> float:
    """Mutual information of slot and class over the mean of their entropies, of the pairs counted here.

    Of n independent pairs it is (slots - 1) (classes - 1) / 2n on the mean, before it is normalised (Miller 1955).
    """
    number = counts.sum()
    joint = counts / max(number, 1)
    slots, labels = joint.sum(axis=1), joint.sum(axis=0)
    mean_entropy = (_entropy(slots) + _entropy(labels)) / 2
    used = np.count_nonzero(slots), np.count_nonzero(labels)
    if min(used) < 2 or (used[0] - 1) * (used[1] - 1) / (2 * number) > _MOST_CHANCE * mean_entropy:
        return float("nan")
    return max(0.0, (2 * mean_entropy - _entropy(joint)) / mean_entropy)


def _entropy(shares: Float[np.ndarray, "..."]) -> float:
    """In nats."""
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def _notable(
    own: Mapping[str, Int64[np.ndarray, "C"]], of_all: Mapping[str, Int64[np.ndarray, "C"]], drawn: int
) -> list[Notable]:
    """The classes that are well above their share in the whole set, if that is no chance.

    As if so many were drawn at random from the whole set: the share of a class is then binomial. The pixels of an image
    are not drawn one by one, so of pixels the images count.
    """
    found = []
    for attribute, counts in own.items():
        if not drawn or not counts.sum():
            continue
        share, expected = counts / counts.sum(), of_all[attribute] / of_all[attribute].sum()
        error = np.sqrt(expected * (1 - expected) / drawn)
        difference = share - expected
        found += [
            Notable(attribute, int(label), float(share[label]), float(expected[label]))
            for label in np.flatnonzero((difference >= _LEAST_DIFFERENCE) & (difference > _LEAST_SURPRISE * error))
        ]
    return sorted(found, key=lambda one: one.of_all - one.share)
