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
    half_split             of the pixels that the larger of two slots does not own, the share that one straight
                           line through all images explains, 0 to 1; None with other numbers of slots
    loss_ratio             squared error of the reconstruction / that of painting each image in its mean colour;
                           1: nothing was learned. Of a transformer model it is the dVAE's, and says nothing of slots;
                           of a features model it is of features, over giving each image its mean feature
    slot_information       transformer models: nats a token that an image's own slots save the decoder, against the
                           slots of another image; near 0 it ignores them. None for mixtures, and where images come
                           one at a time. It depends a little on which images share a batch
    object_density         radiance models: share of their box where each object is dense at all, mean over images; one
                           that stays at 0 gets no gradient any more. None for all others
    object_share           radiance models: what each object has of all that is dense in the box, 0 to 1
    background_slots       slots that own over 10 % of the true background, mean over images; None without
                           labels
    model                  "mixture", "transformer", "radiance" or "features": which advice fits

Beside them stands `update_spectral_norm`, which is of the model rather than of its masks: see `stability`.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from boqsa.metrics import background_shares
from boqsa.models import Output
from boqsa.models.radiance import Occupancy

DEAD_SHARE = 0.001
BACKGROUND_SHARE = 0.1
UNDECIDED = 0.1
DIVERGED_RATIO = 2.0
HALVES = 0.6
"""Of `half_split`: with slots of equal size, a line that is right on 80 % of the pixels."""
_AGAINST_COLLAPSE = {
    "mixture": "fewer model.decoder-channels, or a lower train.learning-rate",
    "transformer": "a smaller model.slot-size, or a lower train.learning-rate",
    "radiance": "a longer train.warmup-steps, or train.radiance.density-noise; early on the background has everything",
    "features": "a lower train.learning-rate, or another encoder",
}
IGNORED = 0.01
"""Of `slot_information`, in nats a token."""


class Diagnostics(Metric):
    """Collects over batches, and over the processes of a job; `compute` gives the numbers above.

    Args:
        num_slots: Of the model.
        image_size: Height and width in pixels.
        model: Which kind it is.
        **metric_options: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    counts: Tensor
    mask_area: Tensor
    sharpness: Tensor
    cosine: Tensor
    error: Tensor
    flat_error: Tensor
    information: Tensor
    informed: Tensor
    density: Tensor
    share: Tensor
    background: Tensor
    with_background: Tensor
    images: Tensor

    def __init__(
        self,
        num_slots: int,
        image_size: tuple[int, int],
        *,
        model: Literal["mixture", "transformer", "radiance", "features"],
        **metric_options: Any,
    ) -> None:
        super().__init__(**metric_options)
        self._size, self._model = image_size, model
        sums: dict[str, tuple[int, ...]] = {
            "counts": (num_slots, image_size[0] * image_size[1]),  # how often slot k owns pixel p
            "mask_area": (num_slots,),
            **dict.fromkeys(("sharpness", "cosine", "error", "flat_error"), ()),
            **dict.fromkeys(("information", "informed", "background", "with_background", "images"), ()),
            **dict.fromkeys(("density", "share"), (num_slots - 1,)),  # of the objects of a radiance model
        }
        for name, shape in sums.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def like(cls, output: Output) -> "Diagnostics":
        """For outputs of the same model and image size."""
        _, slots, _, height, width = output.masks.shape
        if output.feature_reconstruction is not None:
            return cls(slots, (height, width), model="features")
        return cls(slots, (height, width), model="transformer" if output.slot_reconstructions is None else "mixture")

    def update(
        self,
        output: Output,
        image: Float[Tensor, "B 3 H W"] | Float[Tensor, "B N F"],
        true: Int[Tensor, "B H W"] | None,
        *,
        slot_information: Float[Tensor, ""] | None = None,
        occupancy: Occupancy | None = None,
    ) -> None:
        """Take in a batch: the model's output, what it reconstructs (the image in [0, 1], or features), true labels if
        there are any, and what takes the model to compute: the batch's `slot_information`, or the `occupancy` of its
        objects."""
        batch, slots = output.masks.shape[:2]
        labels = output.segmentation().flatten(1)  # (B, P)
        self.counts += torch.nn.functional.one_hot(labels, slots).sum(dim=0).T  # (K, P)
        self.mask_area += output.masks.mean(dim=(2, 3, 4)).sum(dim=0)
        self.sharpness += output.masks.amax(dim=1).mean().double() * batch
        self.cosine += _mean_cosine(output.initial_slots) * batch
        made = output.reconstruction if output.feature_reconstruction is None else output.feature_reconstruction
        assert made is not None
        self.error += (made - image).square().mean().double() * batch
        places = (1,) if output.reconstruction is None else (2, 3)  # what the mean is over: patches, or pixels
        self.flat_error += image.var(dim=places, correction=0).mean().double() * batch
        if slot_information is not None:
            self.information += slot_information.double() * batch
            self.informed += batch
        if occupancy is not None:
            self.density += occupancy.dense.sum(dim=0)
            self.share += occupancy.owned.sum(dim=0)
        if true is not None:
            shares = background_shares(labels.view(batch, *output.masks.shape[-2:]), true)  # (B, K)
            has_background = ~shares.isnan().any(dim=1)
            self.background += (shares > BACKGROUND_SHARE).sum(dim=1)[has_background].sum()
            self.with_background += has_background.sum()
        self.images += batch

    def compute(self) -> dict[str, Any]:
        """The numbers, as plain data.

        Raises:
            ValueError: if no batch was taken in.
        """
        if not self.images:
            raise ValueError("no images were seen; call update first.")
        share = self.counts.sum(dim=1) / self.counts.sum()  # (K,)
        slots = len(share)
        return {
            "slot_use_entropy": _entropy(share) / math.log(slots) if slots > 1 else 0.0,
            "dead_slots": int((share < DEAD_SHARE).sum()),
            "slot_share": share.tolist(),
            "mask_area": (self.mask_area / self.images).tolist(),
            "mask_sharpness": float(self.sharpness / self.images),
            "query_cosine": float(self.cosine / self.images),
            "position_information": _position_information(self.counts),
            "half_split": _half_split(self.counts, self._size) if slots == 2 else None,
            "loss_ratio": float(self.error / self.flat_error.clamp(min=1e-12)),
            "slot_information": float(self.information / self.informed) if self.informed else None,
            "object_density": (self.density / self.images).tolist() if self._model == "radiance" else None,
            "object_share": (self.share / self.images).tolist() if self._model == "radiance" else None,
            "background_slots": float(self.background / self.with_background) if self.with_background else None,
            "model": self._model,
        }


def verdict(numbers: dict[str, Any], *, step: int, warmup_steps: int) -> tuple[str, list[str]]:
    """One word for the state of a run, and a sentence for each thing that looks wrong.

    The thresholds are rules of thumb from looking at masks; they judge nothing in tests or scores.

    Args:
        numbers: From `Diagnostics.compute`.
        step: Finished optimiser steps.
        warmup_steps: Of the recipe; little moves in a few times as many.

    Returns:
        "broken", "collapsed", "flat", "half_split", "split_by_position", "slots_ignored" or "healthy", and the
        warnings.
    """
    slots = len(numbers["mask_area"])
    ratio = numbers["loss_ratio"]
    # 0: every slot has the same share of every pixel; 1: every pixel belongs to one slot.
    decided = (numbers["mask_sharpness"] - 1 / slots) / (1 - 1 / slots) if slots > 1 else 1.0
    largest = max(numbers["slot_share"])
    early = step < 10 * max(warmup_steps, 100)
    information = numbers["slot_information"]
    kind = numbers["model"]
    of_mean = "feature" if kind == "features" else "colour"
    if not math.isfinite(ratio) or not math.isfinite(information or 0.0):
        return "broken", [
            "Broken: the loss is not a number. Start again with a lower train.learning-rate, or with "
            "train.precision fp32."
        ]
    if ratio > DIVERGED_RATIO and not early:
        return "broken", [
            f"Broken: the squared error is {ratio:.1f} times that of giving each picture its mean {of_mean}. "
            "Training diverged; start again with a lower train.learning-rate, or a train.clip-norm above 0."
        ]
    ignored = _ignored(information, early=early)
    if slots > 1 and decided >= UNDECIDED and (largest > 0.95 or numbers["dead_slots"] >= slots - 1):
        return "collapsed", [
            f"Collapsed: one slot owns {largest:.0%} of all pixels. Try another seed, {_AGAINST_COLLAPSE[kind]}.",
            *ignored,
        ]
    if ratio > 0.9 or decided < UNDECIDED:
        painter = {"transformer": "the dVAE paints", "features": "the slots rebuild"}.get(kind, "the slots paint")
        what = (
            f"{painter} no better than one mean {of_mean} a picture"
            if ratio > 0.9
            else "every slot has about the same share of every pixel"
        )
        return "flat", [
            f"Flat: {what}. "
            + (
                "This is usual so early; nothing is broken. Wait."
                if early
                else "Some runs stay here for long. Give it more steps, or raise train.learning-rate."
            ),
            *ignored,
        ]
    state, warnings = "healthy", list[str]()
    if ignored:
        state, warnings = "slots_ignored", ignored
    split = _split_by_position(numbers)
    if split is not None:
        state, warnings = split[0], [split[1], *warnings]
    nowhere = sum(density < DEAD_SHARE for density in numbers["object_density"] or ())
    if nowhere:
        warnings.append(
            f"{nowhere} of {slots - 1} objects are dense nowhere in their box, and no gradient reaches a field that "
            f"is not. If this stays, start again: another seed, {_AGAINST_COLLAPSE[kind]}."
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


def _ignored(information: float | None, *, early: bool) -> list[str]:
    if early or information is None or information >= IGNORED:
        return []
    return [
        f"Slots ignored: an image's own slots save the decoder {information:.3f} nats a token, so the tokens before "
        "it are all it needs, and nothing asks the slots for objects. Give it more steps, another seed, or fewer "
        "model.blocks."
    ]


def _split_by_position(numbers: dict[str, Any]) -> tuple[str, str] | None:
    """The state and the warning if slots are regions of the picture, whatever is in it."""
    halves, information = numbers["half_split"] or 0.0, numbers["position_information"]
    if numbers["model"] == "mixture":
        ways_out = "Try a smaller model.slot-size or narrower model.decoder-channels, a longer train.sigma-steps"
    elif numbers["model"] == "features":
        ways_out = "Try a smaller model.slot-size, more steps"
    elif numbers["model"] == "radiance":
        ways_out = "Try more steps, another train.radiance.background-rate"
    else:
        ways_out = "Try a smaller model.slot-size, a train.least-crop below 1"
    ways_out += ", or another seed"
    if halves > HALVES:
        return "half_split", (
            "The two slots cut the picture in halves (left/right or top/bottom): one straight line, the same in "
            f"every picture, explains {halves:.0%} of what the smaller slot owns. {ways_out}, or a model.num-slots "
            "above 2. Only if the pictures are so built (sky over ground) may it be what they show: look at them."
        )
    if information > 0.5:
        return "split_by_position", (
            f"Split by position: where a pixel is explains {information:.0%} of which slot owns it. The slots cut "
            f"the picture in regions instead of finding objects. {ways_out}."
        )
    return None


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


def _half_split(counts: Float[Tensor, "2 P"], size: tuple[int, int]) -> float:
    """How much better one line through all images tells two slots apart than saying the larger one everywhere.

    Goodman and Kruskal's lambda, (right - larger share) / (1 - larger share): 1 where the slots are half planes, 0
    where the line does not help, as with a disc in the middle. The line is at a right angle to the direction in
    which the smaller slot's share grows, at its best place.
    """
    share = counts.sum(dim=1) / counts.sum()
    chance = float(share.max())
    if chance > 1 - 1e-9:
        return 0.0
    counts = counts.cpu()  # a GPU has no deterministic cumsum
    share = share.cpu()
    joint = counts / counts.sum()  # (2, P), sums to 1
    axes = [torch.linspace(-1, 1, side, dtype=counts.dtype, device=counts.device) for side in size]
    position = torch.cartesian_prod(*axes).T  # (2, P): row and column
    direction = position @ (joint[1] - share[1] * joint.sum(dim=0))  # covariance of slot 1 with row and column
    along = (direction[:, None] * position).sum(dim=0)  # (P,)
    ordered = (joint[1] - joint[0])[along.argsort()].cumsum(dim=0)  # what slot 1 gains below the line
    # Slot 1 on one side and slot 0 on the other, or the other way round.
    right = torch.stack([share[0] + ordered.max(), share[1] - ordered.min()]).max()
    return max(0.0, (float(right) - chance) / (1 - chance))


def _mean_cosine(slots: Float[Tensor, "B K D"]) -> Float[Tensor, ""]:
    count = slots.shape[1]
    if count < 2:
        return slots.new_zeros(())
    directions = torch.nn.functional.normalize(slots.double(), dim=-1)
    total = (directions @ directions.mT).sum(dim=(1, 2)) - count
    return total.mean() / (count * (count - 1))
