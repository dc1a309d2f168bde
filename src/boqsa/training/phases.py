"""What a step of a radiance model does, as a pure function of its number: stages, losses, turns (uorf 7.2, 8).

A step is one batch of scenes, as in the published code, whether the model or the discriminator learns from it.
"""

import math
from typing import Literal, NamedTuple

from boqsa.recipes import TrainRecipe

Turn = Literal["model", "discriminator", "nobody"]


class Phase(NamedTuple):
    """What holds at a step."""

    turn: Turn
    """Who learns. While the discriminator gets a start, the model's steps are left out: nobody's."""
    size: int
    """Height and width that views are rendered at."""
    crop: int
    """Side of the square of them that the step renders; `size` for all of it."""
    local: bool
    """Whether objects are kept in their box."""
    perceptual: float
    """Weight of that loss; 0 for none."""
    adversarial: float
    """Weight of that loss; 0 for none."""
    density_noise: float
    """Standard deviation."""


def phase_at(settings: TrainRecipe, step: int) -> Phase:
    """What the step of this number does, counted from 0."""
    of = settings.radiance
    is_fine = bool(of.fine_from) and step >= of.fine_from
    size = of.fine_size if is_fine else of.coarse_size
    has_adversary = bool(of.adversarial_weight)
    return Phase(
        turn=_turn(settings, step),
        size=size,
        crop=of.crop if is_fine and not of.rays else size,
        local=step < of.local_until,
        perceptual=of.perceptual_weight if step >= of.perceptual_from else 0.0,
        adversarial=of.adversarial_weight if has_adversary and step >= of.adversarial_from else 0.0,
        density_noise=of.density_noise if step < of.density_noise_until else 0.0,
    )


def model_steps(settings: TrainRecipe, step: int) -> int:
    """How many of the first `step` steps were the model's."""
    of = settings.radiance
    if not of.adversarial_weight or step <= of.discriminator_from:
        return step
    later = max(step, of.adversarial_from)  # from where on it has every step of even number
    return of.discriminator_from + (later + 1) // 2 - (of.adversarial_from + 1) // 2


def discriminator_steps(settings: TrainRecipe, step: int) -> int:
    """How many of the first `step` steps were the discriminator's: those of odd number from `discriminator_from` on."""
    of = settings.radiance
    if not of.adversarial_weight or step <= of.discriminator_from:
        return 0
    return step // 2 - of.discriminator_from // 2


def rate_factor(settings: TrainRecipe, step: int) -> float:
    """Of the model's learning rate (uorf 8.2): a warm-up from 0, then a decay that is counted from its end, and that
    stops where the fine stage begins."""
    of = settings.radiance
    if of.fine_from:
        step = min(step, of.fine_from)
    return _warmed_up_then_halved(model_steps(settings, step), settings)


def discriminator_rate_factor(settings: TrainRecipe, step: int) -> float:
    """Of the discriminator's: the same in its own steps, all through."""
    return _warmed_up_then_halved(discriminator_steps(settings, step), settings)


def _warmed_up_then_halved(step: int, settings: TrainRecipe) -> float:
    if step < settings.warmup_steps:
        return step / settings.warmup_steps
    return math.pow(0.5, (step - settings.warmup_steps) / settings.half_life_steps) if settings.half_life_steps else 1.0


def _turn(settings: TrainRecipe, step: int) -> Turn:
    of = settings.radiance
    if not of.adversarial_weight or step < of.discriminator_from:
        return "model"
    if step % 2:
        return "discriminator"
    return "model" if step >= of.adversarial_from else "nobody"
