"""Statistics over seeds against scipy's own tests, against simulation, and where there is nothing to say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from boqsa.errors import InputError
from boqsa.reproduce.statistics import (
    Interval,
    contrast,
    difference,
    interaction,
    seeds_needed,
    verdict,
)
from boqsa.training.sweep import Spread

scores = st.dictionaries(st.integers(0, 20), st.floats(0, 1).map(lambda value: round(value, 4)), min_size=2, max_size=8)


def by_seed(values: list[float], first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy's, of differences that are nearly the same
@given(scores, scores)
def test_a_difference_is_scipys_paired_or_welchs(one: dict[int, float], other: dict[int, float]) -> None:
    found = difference(one, other)
    common = sorted(one.keys() & other.keys())
    if len(common) > 1:
        test = stats.ttest_rel([one[seed] for seed in common], [other[seed] for seed in common])
        assert found.seeds == tuple(common)
        assert found.mean == pytest.approx(math.fsum(one[seed] - other[seed] for seed in common) / len(common))
    else:
        test = stats.ttest_ind(list(one.values()), list(other.values()), equal_var=False)
        assert not found.is_paired
        assert found.n == (len(one), len(other))
    if found.interval is None:
        return
    expected = test.confidence_interval(0.95)
    if np.isfinite(expected).all() and expected.high - expected.low > 1e-9:
        assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected), rel=1e-6, abs=1e-9)
        if abs(test.pvalue - 0.05) > 1e-6:
            assert (found.verdict != "undecided") == (test.pvalue < 0.05)


@given(scores, scores)
def test_a_difference_turned_round_has_the_other_sign(one: dict[int, float], other: dict[int, float]) -> None:
    there, back = difference(one, other), difference(other, one)
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    if there.interval and back.interval:
        assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))
    opposite = {"seen": "not seen", "not seen": "seen", "undecided": "undecided"}
    assert back.verdict == opposite[there.verdict]


def test_pairing_sees_what_seeds_hide() -> None:
    # Seeds differ by tenths, methods by 0.01 on each of them.
    one, other = by_seed([0.2, 0.5, 0.8, 0.6]), by_seed([0.189, 0.491, 0.79, 0.59])
    assert difference(one, other).verdict == "seen"
    assert difference(one, by_seed(list(other.values()), first=10)).verdict == "undecided"


def test_seeds_that_only_one_method_has_are_left_aside() -> None:
    found = difference(by_seed([0.5, 0.6, 0.7]) | {9: 100.0}, by_seed([0.4, 0.5, 0.65]))
    assert (found.seeds, found.n) == ((0, 1, 2), (3, 3))
    assert found.mean == pytest.approx(0.25 / 3)


def test_one_common_seed_does_not_pair() -> None:
    found = difference({0: 0.5, 1: 0.6, 2: 0.4}, {2: 0.3, 3: 0.2})
    assert (found.seeds, found.n) == ((), (3, 2))
    assert found.mean == pytest.approx(0.25)


def test_one_run_and_equal_runs_say_nothing_about_the_next_seed() -> None:
    single = difference({0: 0.9}, {0: 0.1})
    assert (single.interval, single.verdict) == (None, "undecided")
    assert single.text() == "+0.800 (1 and 1 runs, unpaired; no interval: one run of a method has no spread): undecided"
    equal = difference(by_seed([0.75, 0.5, 0.25]), by_seed([0.5, 0.25, 0.0]))
    assert (equal.mean, equal.interval, equal.verdict) == (0.25, None, "undecided")
    assert equal.text() == "+0.250 (3 paired seeds; no interval: the runs agree to the last digit): undecided"
    assert difference({0: 0.9, 1: 0.9}, {2: 0.1, 3: 0.1}).verdict == "undecided"
    rounded = difference(by_seed([0.6, 0.7, 0.8]), by_seed([0.5, 0.6, 0.7]))  # equal but for the last bit
    assert (rounded.interval, rounded.verdict) == (None, "undecided")


def test_spread_in_one_method_alone_is_enough_for_welch() -> None:
    found = difference({0: 0.5, 1: 0.5}, {2: 0.1, 3: 0.2, 4: 0.3})
    assert found.interval is not None
    # The other method has all of the variance, so its two degrees of freedom: 0.3 ± 4.302653 * 0.1 / sqrt(3).
    assert found.interval.high - found.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, abs=1e-6)


def test_words() -> None:
    found = difference(by_seed([0.8, 0.82, 0.81]), by_seed([0.7, 0.71, 0.73]))
    # Differences 0.10, 0.11, 0.08: mean 0.096667, std 0.0152753, margin 4.302653 * 0.0152753 / sqrt(3) = 0.037946.
    assert found.text(4) == "+0.0967 (95 % interval +0.0587 to +0.1346, 3 paired seeds): seen"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.2, "seen"), (-0.2, -0.01, "not seen"), (-0.1, 0.2, "undecided"), (0.0, 0.2, "undecided")],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(low, high)) == expected


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # 95 % of 2,000 draws, with a binomial standard error of 0.5 %: four of them either way.
    generator = np.random.default_rng(0)
    held = {"paired": 0, "welch": 0}
    for _ in range(2000):
        shared = generator.normal(0, 0.3, 4)
        one = by_seed(list(0.1 + shared + generator.normal(0, 0.1, 4)))
        other = by_seed(list(shared + generator.normal(0, 0.1, 4)))
        apart = by_seed(list(generator.normal(0, 0.4, 6)), first=100)
        for name, found in (("paired", difference(one, other)), ("welch", difference(one, apart))):
            assert found.interval is not None
            held[name] += found.interval.low < 0.1 < found.interval.high
    assert all(0.93 < times / 2000 < 0.97 for times in held.values())


def power(n: int, one: float, other: float, shift: float) -> float:
    """Of Welch's test with n runs of each, from the noncentral t; exact where both spreads are equal."""
    freedom = (n - 1) * (one**2 + other**2) ** 2 / (one**4 + other**4)
    centre = shift / math.sqrt((one**2 + other**2) / n)
    if centre > 20:
        return 1.0  # scipy's noncentral t gives no number there
    limit = stats.t.ppf(0.975, freedom)
    return float(stats.nct.sf(limit, freedom, centre) + stats.nct.cdf(-limit, freedom, centre))


@pytest.mark.parametrize("one", [0.01, 0.03, 0.2])
@pytest.mark.parametrize("other", [0.01, 0.1])
@pytest.mark.parametrize("shift", [0.02, 0.1, -0.1, 0.5])
def test_seeds_needed_is_what_the_noncentral_t_says(one: float, other: float, shift: float) -> None:
    n = seeds_needed(Spread(3, 0.5, one), Spread(3, 0.6, other), shift)
    assert n is not None
    exact = next(n for n in itertools.count(2) if power(n, one, other, abs(shift)) >= 0.8)
    assert abs(n - exact) <= 1  # the two quantiles stand for the noncentral t


def test_seeds_needed_by_hand() -> None:
    # Cohen's d = 1: 17 each; d = 0.5: 64 each (Cohen 1988, two-sided 5 %, power 0.80).
    assert seeds_needed(Spread(3, 0, 0.1), Spread(3, 0, 0.1), 0.1) == 17
    assert seeds_needed(Spread(3, 0, 0.1), Spread(3, 0, 0.1), 0.05) == 64


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1))
def test_more_spread_or_a_smaller_difference_never_needs_fewer(one: float, other: float, shift: float) -> None:
    n = seeds_needed(Spread(3, 0, one), Spread(5, 0, other), shift)
    assert n is None or n >= 2
    assert seeds_needed(Spread(5, 0, other), Spread(3, 0, one), -shift) == n
    doubled = seeds_needed(Spread(3, 0, one), Spread(5, 0, other), shift / 2)
    assert n is None or doubled is None or doubled >= n


def test_seeds_needed_where_nothing_can_be_told() -> None:
    spread = Spread(3, 0.5, 0.1)
    assert seeds_needed(spread, Spread(1, 0.5, None), 0.1) is None
    assert seeds_needed(spread, spread, 0.0) is None
    assert seeds_needed(spread, spread, 1e-9) is None
    assert seeds_needed(Spread(3, 0.5, 0.0), Spread(3, 0.6, 0.0), 0.1) == 2
    assert seeds_needed(Spread(3, 0.5, 1e-200), Spread(3, 0.5, 1e-200), 1e-200) == 17


LEARNED = {"bilevel": [0.9, 0.92, 0.88, 0.91], "unrolled": [0.6, 0.65, 0.62, 0.6]}
SAMPLED = {"bilevel": [0.7, 0.72, 0.69, 0.71], "unrolled": [0.68, 0.71, 0.7, 0.69]}


def grid(first: int = 0, step: int = 0) -> dict[tuple[str, str], dict[int, float]]:
    cells = [("learned", column, values) for column, values in LEARNED.items()]
    cells += [("sampled", column, values) for column, values in SAMPLED.items()]
    return {(row, column): by_seed(values, first + step * at) for at, (row, column, values) in enumerate(cells)}


def columns(cells: dict[str, list[float]]) -> list[tuple[float, ...]]:
    return list(zip(*cells.values(), strict=True))


def test_an_interaction_of_paired_seeds_is_the_interval_of_the_contrast_of_each() -> None:
    found = interaction(grid(), ("learned", "sampled"), ("bilevel", "unrolled"))
    of_seed = [
        learned[0] - learned[1] - (sampled[0] - sampled[1])
        for learned, sampled in zip(*map(columns, (LEARNED, SAMPLED)), strict=True)
    ]
    expected = stats.ttest_1samp(of_seed, 0).confidence_interval(0.95)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert (found.verdict, found.seeds) == ("seen", (0, 1, 2, 3))
    turned = interaction(grid(), ("sampled", "learned"), ("bilevel", "unrolled"))
    assert turned.mean == pytest.approx(-found.mean)


def test_an_interaction_of_other_seeds_in_each_cell_adds_their_variances() -> None:
    found = interaction(grid(step=10), ("learned", "sampled"), ("bilevel", "unrolled"))
    values = [*LEARNED.values(), *SAMPLED.values()]
    parts = np.array([np.var(cell, ddof=1) / 4 for cell in values])
    freedom = parts.sum() ** 2 / (parts**2 / 3).sum()
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(parts.sum())
    assert found.interval is not None
    assert (found.mean, found.n) == (pytest.approx(0.285 - 0.01), (4, 4, 4, 4))
    assert found.interval.high - found.mean == pytest.approx(margin)


def test_a_hole_in_the_grid_is_named() -> None:
    cells = grid()
    del cells["sampled", "unrolled"]
    with pytest.raises(InputError, match="the grid has no finished run of sampled with unrolled; train"):
        interaction(cells, ("learned", "sampled"), ("bilevel", "unrolled"))


def test_nothing_and_no_number_are_refused() -> None:
    with pytest.raises(InputError, match="without a finished run"):
        difference({}, {0: 0.5})
    with pytest.raises(InputError, match="not a number"):
        contrast([(1.0, {0: 0.5, 1: math.nan})])
