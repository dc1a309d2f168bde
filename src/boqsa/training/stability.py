"""Is the refinement of slots stable? How much one more step of slot attention can enlarge a small change of the slots.

The paper's first section names the instability of an iteration that is trained through itself. Its measure here is the
largest singular value of the Jacobian J of one step, slots -> slots, with respect to the slots, where the refinement
ends. Below 1 the step is a contraction there: whatever two starts differ by shrinks. Above 1 at least one direction is
enlarged by the step, and a gradient unrolled through many steps can grow with it. That does not prove that the
iteration diverges: what grows in one step can shrink in the next, and healthy models have values well above 1.

Found by power iteration on J' J: only products with J and J' are needed, never the matrix, which has as many rows as an
image has slots times their width. It approaches the value from below, from a start that depends on the shape alone.

Shapes: B images, K slots, D slot size.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boqsa.models import Noise, Output
from boqsa.slots import SlotAttention
from boqsa.slots.attention import FoldedTokens, KeysValues

ITERATIONS = 20
"""Of the power iteration: four digits on trained demos, a few percent on untrained models."""


def update_spectral_norm(
    model: nn.Module,
    image: Tensor,
    *,
    noise: Noise | None = None,
    iterations: int | None = None,
) -> float | None:
    """Largest factor by which one more step enlarges a small change of the final slots, mean over images.

    Args:
        model: With a `slot_encoder`, as every model of this package has; its training flag must be off.
        image: A few images, (B, 3, H, W), or their features, as the model takes them.
        noise: Of the forward pass, for slots that are samples.
        iterations: Slot-attention steps before the one that is looked at; None means the trained number.

    Returns:
        At least 0; None for a model without slot attention of this package.
    """
    encoder = getattr(model, "slot_encoder", None)
    if encoder is None:
        return None
    prepared: list[KeysValues | FoldedTokens] = []
    hook = encoder.register_forward_pre_hook(lambda _, inputs: prepared.append(inputs[0]))
    try:
        with torch.no_grad():
            output: Output = model(image, noise=noise, iterations=iterations)
    finally:
        hook.remove()
    # On the CPU, for the fused GRU of a GPU has no forward derivative; in double precision, for that costs little.
    attention = copy.deepcopy(encoder.slot_attention).to("cpu", torch.float64).requires_grad_(False)
    tokens = type(prepared[0])(*(part.to("cpu", torch.float64) for part in prepared[0]))
    return float(step_spectral_norms(attention, tokens, output.slots.to("cpu", torch.float64)).mean())


def step_spectral_norms(
    attention: SlotAttention, prepared: KeysValues | FoldedTokens, slots: Float[Tensor, "B K D"]
) -> Float[Tensor, "B"]:
    """Spectral norm of the Jacobian of one step at `slots`, an image at a time: images do not touch each other."""

    def step(slots: Tensor) -> Tensor:
        return attention.step(prepared, slots)[0]

    transposed = torch.func.vjp(step, slots)[1]
    # J' u is linear in u, so its own transpose is J. torch.func.jvp would do, after compiling its rules for seconds.
    forward = torch.func.vjp(lambda change: transposed(change)[0], torch.zeros_like(slots))[1]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(slots.shape[1:], generator=generator, dtype=slots.dtype).expand_as(slots)
    norms = torch.zeros(len(slots), dtype=slots.dtype)
    for _ in range(ITERATIONS):
        direction = direction / direction.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None]
        (product,) = forward(direction)
        norms = product.flatten(1).norm(dim=1)  # (B,)
        (direction,) = transposed(product)
    return norms
