"""What the true objects of images are like, as classes that can be counted.

Three attributes are seen in any data set with masks:

    position   cell of a 3x3 grid over the image that holds the centroid, row by row
    size       third of all objects by visible pixels, the smallest first
    colour     hue of the mean colour: red, yellow, green, cyan, blue, magenta, each 60 degrees wide around its own; or
               grey, where the saturation is below 0.15 and the hue means little

and three are known of built-in scenes, whatever light and other objects make of them:

    kind           sphere, box, cylinder
    true_colour    hue of the paint, in the same classes
    true_position  cell of a 3x3 grid over the floor as the camera sees it, the back row first

Shapes: N images, M objects of all images, H W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from boqsa.data.raycast import SceneParameters

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta", "grey")
CLASSES = {
    "position": (
        *("top left", "top", "top right"),
        *("left", "centre", "right"),
        *("bottom left", "bottom", "bottom right"),
    ),
    "size": ("small", "medium", "large"),
    "colour": HUES,
    "kind": ("sphere", "box", "cylinder"),
    "true_colour": HUES,
    "true_position": (
        *("back left", "back", "back right"),
        *("left", "middle", "right"),
        *("front left", "front", "front right"),
    ),
}
"""What the classes of each attribute are called, in the order of their numbers."""

_GREY_BELOW = 0.15
_FLOOR_THIRD = 0.8
"""Objects of built-in scenes stand on a disc of radius 2.4 around the origin."""


class Objects(NamedTuple):
    """The true objects of some images, image by image and in order of their label."""

    image: Int[np.ndarray, "M"]
    label: Int[np.ndarray, "M"]
    """In the mask, above 0."""
    attributes: Mapping[str, Int[np.ndarray, "M"]]
    """The class of each object, from 0 up, by attribute."""


def seen_objects(image: UInt8[Tensor, "N 3 H W"], mask: Int[Tensor, "N H W"]) -> Objects:
    """The true objects with the attributes that image and mask show: position, size, colour."""
    height, width = mask.shape[1:]
    return classified_objects(measured_objects(image, mask), (height, width))


def measured_objects(
    image: UInt8[Tensor, "N 3 H W"], mask: Int[Tensor, "N H W"], *, first: int = 0
) -> Float[np.ndarray, "M 8"]:
    """The true objects of a batch in numbers, for `classified_objects` of all batches together.

    Args:
        image: The pictures.
        mask: Their true labels: 0 background, above it objects, below it ignored.
        first: Index of the first image of the batch.

    Returns:
        Index of the image, label, row and column of the centroid, visible pixels, mean red, green and blue (0 to 255).
    """
    rows = []
    for index, (pixels, labels) in enumerate(zip(image.numpy(), mask.numpy(), strict=True)):
        for label in np.unique(labels[labels > 0]):
            place = labels == label
            down, across = (axis.mean() for axis in np.nonzero(place))
            rows.append((first + index, label, down, across, place.sum(), *pixels[:, place].mean(axis=1)))
    return np.array(rows, dtype=np.float64).reshape(-1, 8)


def classified_objects(table: Float[np.ndarray, "M 8"], size: Sequence[int]) -> Objects:
    """Objects in classes.

    Args:
        table: Rows of `measured_objects`.
        size: Height and width of the images.
    """
    height, width = size
    down, across, pixels = table[:, 2], table[:, 3], table[:, 4]
    thirds = np.percentile(pixels, [100 / 3, 200 / 3]) if len(pixels) else np.zeros(2)
    return Objects(
        image=table[:, 0].astype(np.int64),
        label=table[:, 1].astype(np.int64),
        attributes={
            "position": 3 * _third((down + 0.5) / height) + _third((across + 0.5) / width),
            "size": np.digitize(pixels, thirds, right=True),
            "colour": hue_class(table[:, 5:] / 255),
        },
    )


def with_true_attributes(objects: Objects, scenes: SceneParameters) -> Objects:
    """Add what the renderer knows of the objects of built-in scenes: kind, true_colour, true_position.

    Raises:
        ValueError: if there are objects that `scenes` does not have.
    """
    if len(objects.image) and (
        objects.image.max() >= len(scenes.kind)
        or objects.label.max() > scenes.kind.shape[1]
        or (scenes.kind[objects.image, objects.label - 1] < 0).any()
    ):
        raise ValueError("the masks have objects that the scenes do not have; pass the scenes of these images.")
    own = objects.image, objects.label - 1  # label k of a mask is object k - 1 of its scene
    x, y = scenes.position[own][:, :2].T
    # Cameras stand at 225 degrees, within 8 of it, and look at the origin: (1, 1) leads away, (1, -1) to the right.
    right, near = (x - y) / 2**0.5, -(x + y) / 2**0.5
    edges = [-_FLOOR_THIRD, _FLOOR_THIRD]
    return objects._replace(
        attributes={
            **objects.attributes,
            "kind": scenes.kind[own].astype(np.int64),
            "true_colour": hue_class(scenes.colour[own]),
            "true_position": 3 * np.digitize(near, edges) + np.digitize(right, edges),
        }
    )


def hue_class(colour: Float[np.ndarray, "M 3"]) -> Int[np.ndarray, "M"]:
    """0 red, 1 yellow, 2 green, 3 cyan, 4 blue, 5 magenta, 6 grey; of RGB in 0 to 1."""
    red, green, blue = np.asarray(colour, dtype=np.float64).T
    largest = np.maximum(np.maximum(red, green), blue)
    span = largest - np.minimum(np.minimum(red, green), blue)
    safe = np.where(span > 0, span, 1)
    sixth = np.select(
        [largest == red, largest == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )  # hue in units of 60 degrees, 0 to 6
    is_grey = span < _GREY_BELOW * largest
    classes: Int[np.ndarray, "M"] = np.where(is_grey | (span == 0), 6, np.round(sixth).astype(np.int64) % 6)
    return classes


def _third(share: Float[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
    """Which third of 0 to 1."""
    thirds: Int[np.ndarray, "M"] = np.digitize(share, [1 / 3, 2 / 3])
    return thirds
