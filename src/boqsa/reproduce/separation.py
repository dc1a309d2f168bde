"""Do slots keep their index? Initial slots, and the slots after one iteration (paper 5.3, Figure 3).

The paper shows a t-SNE picture of both, coloured by slot. `slot_plane` gives its coordinates; `separation` puts into
numbers what a reader is meant to see: whether the updated slots of an index lie together, and whether each lies
nearest to the initial slot that it came from. Distances are Euclidean, on the slots as they are.

Shapes: N images, K slots, D slot size.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from boqsa.errors import InputError
from boqsa.reproduce.outputs import INSTALL_SCIKIT_LEARN, outputs

_PERPLEXITY = 30.0
"""Of t-SNE: its usual one. Fewer than 91 points get a third of their number."""


class FirstStep(NamedTuple):
    """Where slots start and where the first iteration takes them."""

    initial: Float[np.ndarray, "N K D"]
    """Equal for all images where queries are learned."""
    updated: Float[np.ndarray, "N K D"]


class Separation(NamedTuple):
    """How well the slots of different indices are told apart after one iteration."""

    initial_silhouette: float
    """Of the initial slots, grouped by slot index: 1 where queries are learned, about 0 where slots are samples."""
    silhouette: float
    """Of the updated slots, grouped by slot index: -1 to 1. About 0 or below where the index means nothing."""
    nearest_query_accuracy: float
    """Share of the updated slots whose nearest initial slot of the same image has the same index, 0 to 1.

    Read it beside the silhouette: an iteration that moves slots little gives a high share to sampled slots as well."""
    chance: float
    """What the accuracy is where updated slots have nothing to do with the initial ones: 1 / K, on average."""
    images: int
    slots: int


def first_step(
    model: nn.Module, image: UInt8[Tensor, "N 3 H W"], *, batch_size: int = 16, device: torch.device | str = "cpu"
) -> FirstStep:
    """Run a model for one iteration, whatever number it was trained with.

    Args:
        model: Takes images, returns `Output`.
        image: The first N images of a split; sampled slots are those of evaluation for these places.
        batch_size: Images at a time; changes no result.
        device: Where the model is.
    """
    steps = [
        (output.initial_slots.detach().float().cpu().numpy(), output.slots.float().cpu().numpy())
        for output in outputs(model, image, iterations=1, batch_size=batch_size, device=device)
    ]
    return FirstStep(*(np.concatenate(part) for part in zip(*steps, strict=True)))


def slot_plane(
    initial: Float[np.ndarray, "N K D"], updated: Float[np.ndarray, "N K D"], *, seed: int = 0
) -> Float[np.ndarray, "2 N K 2"]:
    """Lay initial and updated slots out in one plane by t-SNE.

    Equal slots are one point and are embedded once: N copies of a learned query would push one another around.

    Args:
        initial: Slots before the first iteration.
        updated: Slots after it.
        seed: Of t-SNE; equal input and seed give equal coordinates on a machine.

    Returns:
        Coordinates of the initial slots (index 0) and of the updated ones (index 1), without a unit.

    Raises:
        ValueError: if the shapes differ, there are fewer than four different slots, or one is not finite.
        InputError: if scikit-learn is not installed.
    """
    _check(initial, updated)
    both = np.stack([initial, updated])  # (2, N, K, D)
    points, place = np.unique(both.reshape(-1, both.shape[-1]), axis=0, return_inverse=True)
    if len(points) < 4:
        raise ValueError(f"t-SNE has {len(points)} different slots to lay out; pass more images, for at least 4.")
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise InputError(f"t-SNE is missing: {INSTALL_SCIKIT_LEARN}.") from None
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    laid_out: Float[np.ndarray, "2 N K 2"] = plane[place.ravel()].reshape(*both.shape[:3], 2).astype(np.float64)
    return laid_out


def separation(initial: Float[np.ndarray, "N K D"], updated: Float[np.ndarray, "N K D"]) -> Separation:
    """Put into numbers how well slots keep their index over the first iteration.

    Args:
        initial: Slots before the first iteration.
        updated: Slots after it.

    Raises:
        ValueError: if the shapes differ, there are fewer than two images or two slots, or a slot is not finite.
        InputError: if scikit-learn is not installed.
    """
    _check(initial, updated)
    images, slots, size = updated.shape
    if images < 2 or slots < 2:
        raise ValueError(f"got {images} images of {slots} slots; separation needs two of each at least.")
    try:
        from sklearn.metrics import silhouette_score
    except ImportError:
        raise InputError(f"the silhouette is missing: {INSTALL_SCIKIT_LEARN}.") from None
    index = np.tile(np.arange(slots), images)
    before, after = (silhouette_score(part.reshape(-1, size).astype(np.float64), index) for part in (initial, updated))
    distance = np.linalg.norm(updated[:, :, None] - initial[:, None], axis=-1)  # (N, K updated, K initial)
    nearest = distance.argmin(axis=-1)  # (N, K)
    accuracy = (nearest == np.arange(slots)).mean()
    return Separation(float(before), float(after), float(accuracy), 1 / slots, images, slots)


def _check(initial: Float[np.ndarray, "N K D"], updated: Float[np.ndarray, "N K D"]) -> None:
    if initial.ndim != 3 or initial.shape != updated.shape or 0 in initial.shape:
        raise ValueError(
            f"initial slots have shape {initial.shape} and updated ones {updated.shape}; expected (N, K, D) twice."
        )
    if not (np.isfinite(initial).all() and np.isfinite(updated).all()):
        raise ValueError("some slots are not finite numbers; check whether the model has diverged.")
