"""Stages, losses and turns by the number of a step, against the published schedules (uorf 7.2, 8, 9, 12.10)."""

from dataclasses import replace

import pytest

from boqsa.recipes import RadianceTrainRecipe, TrainRecipe, get_recipe
from boqsa.training.phases import (
    discriminator_rate_factor,
    discriminator_steps,
    model_steps,
    phase_at,
    rate_factor,
)


def settings(name: str) -> TrainRecipe:
    return get_recipe(name).train


def adversarial(begin: int = 4, both: int = 9) -> TrainRecipe:
    of = RadianceTrainRecipe(adversarial_weight=0.01, discriminator_from=begin, adversarial_from=both, fine_from=0)
    return TrainRecipe(warmup_steps=2, half_life_steps=4, radiance=of)


@pytest.mark.parametrize(
    ("step", "size", "crop", "local", "perceptual"),
    [
        (0, 64, 64, True, 0.0),
        (99_999, 64, 64, True, 0.0),
        (100_000, 64, 64, True, 0.006),
        (300_000, 64, 64, False, 0.006),
        (600_000, 128, 64, False, 0.006),
        (1_199_999, 128, 64, False, 0.006),
    ],
)
@pytest.mark.parametrize("name", ["clevr567_radiance", "room_chair_radiance", "room_diverse_radiance"])
def test_the_three_schedules_agree_in_steps(
    name: str, step: int, size: int, crop: int, local: bool, perceptual: float
) -> None:
    phase = phase_at(settings(name), step)
    assert (phase.size, phase.crop, phase.local, phase.perceptual) == (size, crop, local, perceptual)
    assert settings(name).steps == 1_200_000


def test_half_schedules_halve_every_threshold_but_the_discriminators() -> None:
    whole, half = settings("room_diverse_radiance"), settings("room_diverse_radiance_half")
    assert half.steps == 600_000
    for step in (0, 49_999, 50_000, 150_000, 300_000):
        ours, theirs = phase_at(half, step), phase_at(whole, 2 * step)
        assert (ours.size, ours.local, ours.perceptual) == (theirs.size, theirs.local, theirs.perceptual)
    assert half.radiance.discriminator_from == whole.radiance.discriminator_from == 20 * 5_000
    assert half.radiance.adversarial_from == whole.radiance.adversarial_from == 25 * 5_000
    assert half.half_life_steps == whole.half_life_steps == 200_000


def test_the_rate_warms_up_from_0_falls_and_stays_in_the_fine_stage() -> None:
    train = settings("clevr567_radiance")
    assert rate_factor(train, 0) == 0
    assert rate_factor(train, 500) == 0.5
    assert rate_factor(train, 1_000) == 1
    assert rate_factor(train, 201_000) == pytest.approx(0.5)
    assert rate_factor(train, 600_000) == rate_factor(train, 1_000_000) == pytest.approx(0.125, rel=0.01)
    assert 3e-4 * rate_factor(train, 600_000) == pytest.approx(3.8e-5, rel=0.01)


def test_the_rate_counts_the_models_own_steps() -> None:
    train = settings("room_diverse_radiance")
    assert model_steps(train, 600_000) == 100_000 + 95 * 2_500
    assert 3e-4 * rate_factor(train, 900_000) == pytest.approx(9.3e-5, rel=0.01)
    assert 3e-4 * rate_factor(settings("clevr567_radiance_half"), 500_000) == pytest.approx(1.06e-4, rel=0.01)
    assert 3e-4 * rate_factor(settings("room_diverse_radiance_half"), 500_000) == pytest.approx(1.6e-4, rel=0.02)


@pytest.mark.parametrize(("begin", "both"), [(4, 9), (4, 8), (5, 8), (5, 9), (6, 6)])
def test_turns_and_their_counts(begin: int, both: int) -> None:
    train, of_model, of_discriminator = adversarial(begin, both), 0, 0
    for step in range(20):
        assert (model_steps(train, step), discriminator_steps(train, step)) == (of_model, of_discriminator)
        turn = phase_at(train, step).turn
        if step < begin:
            assert turn == "model"
        elif step % 2:
            assert turn == "discriminator"
        else:
            assert turn == ("model" if step >= both else "nobody")
        of_model += turn == "model"
        of_discriminator += turn == "discriminator"


def test_the_adversarial_loss_begins_when_the_model_learns_again() -> None:
    train = adversarial()
    assert [phase_at(train, step).adversarial for step in (0, 8, 9)] == [0, 0, 0.01]
    assert discriminator_rate_factor(train, 5) == 0
    assert discriminator_rate_factor(train, 7) == 0.5
    without = replace(train, radiance=replace(train.radiance, adversarial_weight=0.0))
    assert {phase_at(without, step).turn for step in range(20)} == {"model"}


def test_random_rays_have_no_crop_and_noise_ends() -> None:
    of = RadianceTrainRecipe(rays=8, perceptual_weight=0.0, fine_from=5, density_noise=0.5, density_noise_until=3)
    train = TrainRecipe(radiance=of)
    assert (phase_at(train, 5).size, phase_at(train, 5).crop) == (128, 128)
    assert [phase_at(train, step).density_noise for step in (2, 3)] == [0.5, 0]
