"""Learning rate, query perturbation and temperature as pure functions of the step (spec 1.8, 3.4, 5)."""

import math
from typing import NamedTuple


def learning_rate_factor(step: int, *, warmup_steps: int, half_life_steps: int) -> float:
    """min(step / warm-up, 1) x 0.5^(step / half-life): the decay runs from step 0, beside the warm-up.

    A warm-up of 0 steps is none, and so is a half-life of 0.
    """
    warmup = min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    return warmup * (math.pow(0.5, step / half_life_steps) if half_life_steps else 1.0)


def query_sigma(step: int, *, sigma_steps: int) -> float:
    """Half a cosine from 1 to 0 over `sigma_steps`, then 0; always 0 if `sigma_steps` is 0."""
    if step >= sigma_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * step / sigma_steps))


def gumbel_tau(step: int, *, tau_start: float, tau_end: float, tau_steps: int) -> float:
    """Temperature of the Gumbel-softmax: half a cosine from `tau_start` to `tau_end`, then `tau_end`."""
    return tau_end + (tau_start - tau_end) * query_sigma(step, sigma_steps=tau_steps)


class Plateau(NamedTuple):
    """How the held-out loss has gone, and the factor on all learning rates that follows (baselines 3.10)."""

    best: float = math.inf
    """Lowest held-out loss so far."""
    waited: int = 0
    """Evaluations in a row that were not lower, since the last one that was or the last halving."""
    factor: float = 1.0
    """0.5^(number of halvings)."""

    def after(self, loss: float, *, patience: int) -> "Plateau":
        """With one more held-out loss; a patience of 0 never halves. NaN is not lower than anything."""
        if loss < self.best:
            return self._replace(best=loss, waited=0)
        if patience and self.waited + 1 >= patience:
            return self._replace(waited=0, factor=self.factor / 2)
        return self._replace(waited=self.waited + 1)
