"""What every model takes and returns beside its weights: `Noise` in, `Output` out. Both are NamedTuples.

Shapes: B batch, K slots, N tokens, D slot size, H W image pixels, T iterations.
"""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Noise(NamedTuple):
    """Every random draw of a forward pass. None turns that draw off (sampled slots then use torch's own stream).

    The numbers are made outside the model, a sample at a time, from (seed, step, sample index); so a result does not
    depend on ranks, accumulation, recomputation or compilation.
    """

    queries: Float[Tensor, "B K D"] | None = None
    """Standard normal; perturbs learned queries, or is the sample of Gaussian ones."""
    drop_path: Float[Tensor, "B T"] | None = None
    """Uniform in [0, 1); one number a sample and slot-attention step."""
    gumbel_soft: Tensor | None = None
    """For transformer models."""
    gumbel_hard: Tensor | None = None
    """For transformer models."""
    patch_order: Float[Tensor, "B"] | None = None
    """For features models that decode in several orders: uniform in [0, 1), one number a sample."""


class Output(NamedTuple):
    """What a model made of a batch of images. Reconstructions are in [0, 1] units and not clamped."""

    reconstruction: Float[Tensor, "B 3 H W"] | None
    """None for features models, which paint no picture: theirs is `feature_reconstruction`."""
    slot_reconstructions: Float[Tensor, "B K 3 H W"] | None
    """What each slot would paint everywhere; None for transformer and features models."""
    masks: Float[Tensor, "B K 1 H W"]
    """Share of each pixel that each slot owns; sums to 1 over slots."""
    slots: Float[Tensor, "B K D"]
    initial_slots: Float[Tensor, "B K D"]
    """After perturbation."""
    attention: Float[Tensor, "B K N"]
    """Of the last step; sums to 1 over slots. Row-major over the feature grid."""
    losses: dict[str, Tensor]
    """Scalars by name, in the model's own convention."""
    dvae_log_probs: Tensor | None = None
    tokens: Tensor | None = None
    logits: Tensor | None = None
    feature_reconstruction: Float[Tensor, "B n F"] | None = None
    """Of features models: the features of each patch, row-major over the grid, made from the slots."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Sum of the losses: what training minimises."""
        total, *others = self.losses.values()
        for loss in others:
            total = total + loss
        return total

    def segmentation(self) -> Int[Tensor, "B H W"]:
        """Index of the slot that owns each pixel, 0 to K - 1; ties go to the lower index."""
        return self.masks.squeeze(2).argmax(dim=1)
