"""Learning rate and sigma against hand-computed values (spec 1.8, 5.1)."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.training.schedules import learning_rate_factor, query_sigma


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (50, 0.5 * 2**-0.25), (100, 2**-0.5), (200, 0.5), (400, 0.25)]
)
def test_warm_up_and_decay_run_together(step: int, expected: float) -> None:
    assert learning_rate_factor(step, warmup_steps=100, half_life_steps=200) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate_factor(0, warmup_steps=0, half_life_steps=10) == 1.0


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
