"""Learning rate, sigma, tau and patience against hand-computed values (spec 1.8, 3.4, 5; baselines 3.10)."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.training.schedules import Plateau, gumbel_tau, learning_rate_factor, query_sigma


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (50, 0.5 * 2**-0.25), (100, 2**-0.5), (200, 0.5), (400, 0.25)]
)
def test_warm_up_and_decay_run_together(step: int, expected: float) -> None:
    assert learning_rate_factor(step, warmup_steps=100, half_life_steps=200) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_factor(0, warmup_steps=0, half_life_steps=10) == 1.0


def test_without_half_life_the_rate_stays() -> None:
    assert learning_rate_factor(5, warmup_steps=10, half_life_steps=0) == 0.5
    assert learning_rate_factor(10**6, warmup_steps=10, half_life_steps=0) == 1.0


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (7_500, 0.55 + 0.45 * math.sqrt(0.5)), (15_000, 0.55), (30_000, 0.1), (10**6, 0.1)]
)
def test_tau_is_half_a_cosine_down_to_its_end(step: int, expected: float) -> None:
    tau = gumbel_tau(step, tau_start=1.0, tau_end=0.1, tau_steps=30_000)
    assert tau == pytest.approx(expected, rel=1e-12)


def test_tau_without_steps_is_its_end_from_the_start() -> None:
    assert gumbel_tau(0, tau_start=1.0, tau_end=0.2, tau_steps=0) == 0.2


def plateau(losses: list[float], *, patience: int) -> list[Plateau]:
    """The state after each loss."""
    states = [Plateau()]
    for loss in losses:
        states.append(states[-1].after(loss, patience=patience))
    return states[1:]


def test_rates_halve_after_patience_evaluations_in_a_row_without_a_lower_loss() -> None:
    states = plateau([5.0, 5.0, 6.0, 4.0, 4.5, 4.0, 4.1, 4.2, 4.2, 4.2, 3.0], patience=3)
    #                best  1    2   best  1    2  halved  1    2  halved best
    assert [state.factor for state in states] == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert [state.waited for state in states] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0]
    assert [state.best for state in states] == [5, 5, 5, 4, 4, 4, 4, 4, 4, 4, 3]


def test_no_patience_never_halves_and_nan_is_never_better() -> None:
    assert plateau([1.0] * 50, patience=0)[-1].factor == 1.0
    assert plateau([1.0, math.nan], patience=1)[-1] == Plateau(best=1.0, waited=0, factor=0.5)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (10, 0.5), (15, 0.5 - math.sqrt(0.125)), (20, 0.0)])
def test_sigma_is_half_a_cosine(step: int, expected: float) -> None:
    assert query_sigma(step, sigma_steps=20) == pytest.approx(expected, abs=1e-12)


def test_sigma_stays_zero_afterwards_and_without_steps() -> None:
    assert query_sigma(1000, sigma_steps=20) == 0.0
    assert query_sigma(0, sigma_steps=0) == 0.0


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 10_000), sigma_steps=st.integers(1, 5_000))
def test_sigma_falls_and_stays_in_range(step: int, sigma_steps: int) -> None:
    now, later = query_sigma(step, sigma_steps=sigma_steps), query_sigma(step + 1, sigma_steps=sigma_steps)
    assert 0.0 <= later <= now <= 1.0
