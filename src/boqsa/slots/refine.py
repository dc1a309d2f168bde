"""Iterative refinement of slots, and three ways to send the gradient back. The paper's Algorithm 1.

A step maps slots to better slots. Applied T times to initial slots s0 it is an inner optimisation; what is trained
is the step and, with learned queries, s0. The three schemes differ only in what the last step is given
(paper section 3.2, spec 1.6; sg = stop gradient):

    unrolled   s_{T-1}                          gradient through all T steps (Slot Attention)
    implicit   sg(s_{T-1})                      gradient through the last step alone (I-SA); none reaches s0
    bilevel    sg(s_{T-1}) + s0 - sg(s0)        the same, and s0 receives the gradient of the last step's input (BO-QSA)

The value is the same in all three. The early steps of the last two need no graph, so memory and backward time are
those of one step, however many are run.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Gradient = Literal["unrolled", "implicit", "bilevel"]
Step = Callable[[Tensor], tuple[Tensor, Tensor]]


def refine(
    step: Step, init: Float[Tensor, "*slots"], *, iterations: int, gradient: Gradient
) -> tuple[Float[Tensor, "*slots"], Tensor]:
    """Apply `step` to `init` `iterations` times; `gradient` says how the backward pass sees it.

    Args:
        step: `step(slots) -> (slots, attention)`. Any module or closure; slots keep their shape.
        init: Initial slots, of any shape; for this package (batch, slots, slot size).
        iterations: All steps, the last one included; at least 1. The paper's "T steps, then one more" is T + 1 here.
        gradient: "unrolled", "implicit" or "bilevel", see the top of this file.

    Returns:
        The final slots and the attention of the last step.

    Raises:
        ValueError: if `iterations` is below 1 or `gradient` is none of the three.

    Example: bi-level soft k-means, a step that this package does not know:

        >>> points, centres = torch.randn(100, 2), torch.randn(3, 2, requires_grad=True)
        >>> def k_means_step(centres):
        ...     shares = torch.cdist(points, centres).neg().softmax(dim=1)
        ...     return (shares.T @ points) / shares.sum(0)[:, None], shares
        >>> found, shares = refine(k_means_step, centres, iterations=10, gradient="bilevel")
        >>> found.sum().backward()  # centres.grad is now the gradient with respect to the last step's input
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; at least one step is needed, pass iterations >= 1.")
    if gradient not in get_args(Gradient):
        raise ValueError(f"gradient is {gradient!r}; pass one of {', '.join(map(repr, get_args(Gradient)))}.")

    slots = init
    if gradient == "unrolled":
        for _ in range(iterations - 1):
            slots, _ = step(slots)
        return step(slots)

    with torch.no_grad():
        for _ in range(iterations - 1):
            slots, _ = step(slots)
    # Under autocast, weights cast without a graph stay in a cache; the last step would take them from there and
    # the weights would silently get no gradient.
    torch.clear_autocast_cache()

    slots = slots.detach()
    if gradient == "bilevel":
        slots = slots + (init - init.detach())  # adds exactly zero: a straight-through gradient to the queries
    return step(slots)
