"""Learning rate and query perturbation as pure functions of the step (spec 1.8, 5.1)."""

import math


def learning_rate_factor(step: int, *, warmup_steps: int, half_life_steps: int) -> float:
    """min(step / warm-up, 1) x 0.5^(step / half-life): the decay runs from step 0, beside the warm-up."""
    warmup = min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    return warmup * math.pow(0.5, step / half_life_steps)


def query_sigma(step: int, *, sigma_steps: int) -> float:
    """Half a cosine from 1 to 0 over `sigma_steps`, then 0; always 0 if `sigma_steps` is 0."""
    if step >= sigma_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * step / sigma_steps))
