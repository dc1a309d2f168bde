"""From soft masks to one label a pixel: the slot with the largest mask owns the pixel (spec 4.1)."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor


def label_map(
    masks_or_labels: Float[Tensor, "B K 1 H W"] | Float[Tensor, "B K H W"] | Integer[Tensor, "B H W"],
) -> Integer[Tensor, "B H W"]:
    """Give the slot that owns each pixel; label maps pass through unchanged.

    Args:
        masks_or_labels: Floating-point masks, (batch, slots, 1, height, width) or (batch, slots, height,
            width), any scale; or integer label maps (batch, height, width).

    Returns:
        Integer labels, 0 to slots - 1 where masks were given. Ties go to the lower slot.

    Raises:
        ValueError: if the masks have another shape or hold NaN.
    """
    if not masks_or_labels.is_floating_point():
        return masks_or_labels
    masks = masks_or_labels
    if masks.ndim == 5 and masks.shape[2] == 1:
        masks = masks.squeeze(2)  # (B, K, H, W)
    if masks.ndim != 4 or masks.shape[1] == 0:
        raise ValueError(
            f"masks have shape {tuple(masks_or_labels.shape)}; expected (batch, slots, 1, height, width) or "
            "(batch, slots, height, width), or integer labels (batch, height, width)."
        )
    if masks.numel() == 0:
        return masks.new_zeros((masks.shape[0], *masks.shape[2:]), dtype=torch.int64)
    # The maximum carries any NaN of the slots: arg max alone would name the broken slot as the owner.
    largest, labels = masks.max(dim=1)  # (B, H, W)
    if largest.isnan().any():
        raise ValueError("masks hold NaN, so no slot owns those pixels; check whether the model has diverged.")
    return labels
