"""Is it collapsed? What a run watches about itself, without labels, and says in words with what to try next.

Reconstruction loss does not tell: a model that cuts every picture in halves can reconstruct well. These
numbers do (spec 8.4 names the usual failures):

    slot_use_entropy       entropy of the share of pixels that each slot owns, 0 (one has all) to 1 (equal)
    dead_slots             slots that own less than 0.1 % of all pixels
    slot_share             share of all pixels that each slot owns, sums to 1
    mask_area              mean mask of each slot, sums to 1
    mask_sharpness         mean over pixels of the largest mask, 1/K (undecided) to 1
    query_cosine           mean cosine between the initial slots of an image, -1 to 1
    position_information   share of the label's entropy that the pixel's position explains, 0 to 1: finds
                           halves; on few images (under 20 or so) it says too much
    loss_ratio             loss / loss of painting each image in its mean colour; 1: nothing was learned
    background_slots       slots that own over 10 % of the true background, mean over images; None without
                           labels
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boqsa.metrics import background_shares
from boqsa.models import Output

DEAD_SHARE = 0.001
BACKGROUND_SHARE = 0.1
UNDECIDED = 0.1
DIVERGED_RATIO = 2.0


class Diagnostics:
    """Collects over batches; `compute` gives the numbers above."""

    def __init__(self) -> None:
        self._counts: Float[Tensor, "K P"] | None = None  # how often slot k owns pixel p
        self._mask_area: Float[Tensor, "K"] = torch.zeros(0)
        self._sharpness = self._cosine = self._loss = self._flat_loss = 0.0
        self._background: list[float] = []
        self._images = 0

    def update(self, output: Output, image: Float[Tensor, "B 3 H W"], true: Int[Tensor, "B H W"] | None) -> None:
        """Take in a batch: the model's output, the image in [0, 1], and true labels if there are any."""
        batch, count = output.masks.shape[:2]
        labels = output.segmentation().flatten(1)  # (B, P)
        owned = torch.nn.functional.one_hot(labels, count).sum(dim=0).T.double()  # (K, P)
        area = output.masks.mean(dim=(2, 3, 4)).sum(dim=0).double()
        self._counts = owned if self._counts is None else self._counts + owned
        self._mask_area = area if self._images == 0 else self._mask_area + area
        self._sharpness += float(output.masks.amax(dim=1).mean()) * batch
        self._cosine += _mean_cosine(output.initial_slots) * batch
        self._loss += float(output.loss) * batch
        # The published loss lives in [-1, 1] units: four times the squared error of [0, 1] ones.
        self._flat_loss += float(4 * image.var(dim=(2, 3), correction=0).mean()) * batch
        if true is not None:
            shares = background_shares(labels.view(batch, *output.masks.shape[-2:]), true)
            sharing = (shares > BACKGROUND_SHARE).sum(dim=1)[~shares.isnan().any(dim=1)]
            self._background += sharing.tolist()
        self._images += batch

    def compute(self) -> dict[str, Any]:
        """The numbers, as plain data.

        Raises:
            ValueError: if no batch was taken in.
        """
        if self._counts is None:
            raise ValueError("no images were seen; call update first.")
        share = self._counts.sum(dim=1) / self._counts.sum()  # (K,)
        slots = len(share)
        return {
            "slot_use_entropy": _entropy(share) / math.log(slots) if slots > 1 else 0.0,
            "dead_slots": int((share < DEAD_SHARE).sum()),
            "slot_share": share.tolist(),
            "mask_area": (self._mask_area / self._images).tolist(),
            "mask_sharpness": self._sharpness / self._images,
            "query_cosine": self._cosine / self._images,
            "position_information": _position_information(self._counts),
            "loss_ratio": self._loss / max(self._flat_loss, 1e-12),
            "background_slots": sum(self._background) / len(self._background) if self._background else None,
        }


def verdict(numbers: dict[str, Any], *, step: int, warmup_steps: int) -> tuple[str, list[str]]:
    """One word for the state of a run, and a sentence for each thing that looks wrong.

    The thresholds are rules of thumb from looking at masks; they judge nothing in tests or scores.

    Args:
        numbers: From `Diagnostics.compute`.
        step: Finished optimiser steps.
        warmup_steps: Of the recipe; little moves in a few times as many.

    Returns:
        "broken", "collapsed", "split_by_position", "flat" or "healthy", and the warnings.
    """
    slots = len(numbers["mask_area"])
    ratio = numbers["loss_ratio"]
    # 0: every slot has the same share of every pixel; 1: every pixel belongs to one slot.
    decided = (numbers["mask_sharpness"] - 1 / slots) / (1 - 1 / slots) if slots > 1 else 1.0
    largest = max(numbers["slot_share"])
    early = step < 10 * max(warmup_steps, 100)
    if not math.isfinite(ratio):
        return "broken", [
            "Broken: the loss is not a number. Start again with a lower train.learning-rate, or with "
            "train.precision fp32."
        ]
    if ratio > DIVERGED_RATIO and not early:
        return "broken", [
            f"Broken: the loss is {ratio:.1f} times that of painting each picture in its mean colour. "
            "Training diverged; start again with a lower train.learning-rate, or a train.clip-norm above 0."
        ]
    if slots > 1 and decided >= UNDECIDED and (largest > 0.95 or numbers["dead_slots"] >= slots - 1):
        return "collapsed", [
            f"Collapsed: one slot owns {largest:.0%} of all pixels. Try another seed, fewer "
            "model.decoder-channels, or a lower train.learning-rate."
        ]
    if ratio > 0.9 or decided < UNDECIDED:
        what = (
            "the slots paint no better than one mean colour a picture"
            if ratio > 0.9
            else "every slot has about the same share of every pixel"
        )
        return "flat", [
            f"Flat: {what}. "
            + (
                "This is usual so early; nothing is broken. Wait."
                if early
                else "Some runs stay here for long. Give it more steps, or raise train.learning-rate."
            )
        ]
    warnings = []
    state = "healthy"
    if numbers["position_information"] > 0.5:
        state = "split_by_position"
        warnings.append(
            f"Split by position: where a pixel is explains {numbers['position_information']:.0%} of which "
            "slot owns it. The slots cut the picture in regions instead of finding objects. Try a smaller "
            "model.slot-size or narrower model.decoder-channels, a longer train.sigma-steps, or another seed."
        )
    if numbers["dead_slots"]:
        warnings.append(
            f"{numbers['dead_slots']} of {slots} slots own next to nothing. Harmless if the pictures have "
            "fewer things than slots; otherwise train longer or use fewer slots."
        )
    if (numbers["background_slots"] or 0) > 2.5:
        warnings.append(
            f"The background is shared by {numbers['background_slots']:.1f} slots on average. ARI-FG does "
            "not show this, ARI does. Try fewer slots or a longer training."
        )
    if numbers["query_cosine"] > 0.95:
        warnings.append("The queries point in the same direction; check that model.gradient is bilevel.")
    return state, warnings


def _entropy(share: Float[Tensor, "K"]) -> float:
    return float(torch.special.entr(share).sum())


def _position_information(counts: Float[Tensor, "K P"]) -> float:
    """Mutual information of slot and pixel position, divided by the entropy of the slot; 0 if that is 0."""
    joint = counts / counts.sum()
    slot = joint.sum(dim=1)
    entropy = _entropy(slot)
    if entropy < 1e-9:
        return 0.0
    position = joint.sum(dim=0)
    information = entropy + _entropy(position) - _entropy(joint.flatten())
    return min(max(information / entropy, 0.0), 1.0)


def _mean_cosine(slots: Float[Tensor, "B K D"]) -> float:
    count = slots.shape[1]
    if count < 2:
        return 0.0
    directions = torch.nn.functional.normalize(slots.double(), dim=-1)
    total = (directions @ directions.mT).sum(dim=(1, 2)) - count
    return float(total.mean()) / (count * (count - 1))
