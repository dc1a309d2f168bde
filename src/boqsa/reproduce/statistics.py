"""What scores over seeds can tell: intervals, differences between methods, and how many seeds a claim needs.

Everything rests on Student's t: scores over seeds are taken for a sample of a normal distribution. With three seeds
that cannot be checked, and runs that fail now and then are not normal at all: look at the scores themselves, too.
Intervals are not corrected for the number of comparisons that are made.

One run has no spread and so no interval. Seeds that agree to the last digit have none either: nothing can then be said
about the next seed, and the verdict is undecided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from boqsa.errors import InputError
from boqsa.training.sweep import Spread

LEVEL = 0.95
POWER = 0.80
_ROUNDING = 1e-12
"""A spread below this share of the scores is the rounding of floats: 0.7 - 0.6 and 0.6 - 0.5 differ by 1e-16."""
MOST_SEEDS = 1_000_000
"""Where `seeds_needed` gives up: nobody trains so many."""

BySeed = Mapping[int, float]
"""A method's score of each seed."""

Verdict = Literal["seen", "not seen", "undecided"]


@dataclass(frozen=True)
class Interval:
    """Where a mean lies, at `LEVEL` confidence."""

    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """As `-0.012 to +0.051`."""
        return f"{self.low:+.{digits}f} to {self.high:+.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A sum of methods' mean scores with signs, such as A - B."""

    mean: float
    interval: Interval | None
    """None where a spread is missing or zero."""
    seeds: tuple[int, ...]
    """Those that all methods share and that were paired; empty where methods were compared as independent samples."""
    n: tuple[int, ...]
    """Runs of each method that were used."""

    @property
    def is_paired(self) -> bool:
        return bool(self.seeds)

    @property
    def verdict(self) -> Verdict:
        """On the claim that it is above 0: seen if the whole interval is, not seen if the whole interval is below."""
        return verdict(self.interval)

    def text(self, digits: int = 3) -> str:
        """As `+0.050 (95 % interval +0.010 to +0.090, 3 paired seeds): seen`."""
        apart = f"{' and '.join(map(str, self.n))} runs, unpaired"
        runs = f"{len(self.seeds)} paired seeds" if self.is_paired else apart
        if self.interval is None:
            why = "one run of a method has no spread" if 1 in self.n else "the runs agree to the last digit"
            return f"{self.mean:+.{digits}f} ({runs}; no interval: {why}): {self.verdict}"
        return f"{self.mean:+.{digits}f} (95 % interval {self.interval.text(digits)}, {runs}): {self.verdict}"


def difference(one: BySeed, other: BySeed) -> Difference:
    """How much higher the first method scores; paired where they share two seeds or more, else Welch's.

    Paired: the t-interval of the differences seed by seed, over the common seeds; other seeds are left aside. Unpaired:
    standard error sqrt(s1^2/n1 + s2^2/n2), degrees of freedom by Welch and Satterthwaite.

    Raises:
        InputError: if a method has no run.
    """
    return contrast([(1, one), (-1, other)])


def contrast(terms: Sequence[tuple[float, BySeed]]) -> Difference:
    """A weighted sum of methods' mean scores, with its interval; paired or not as in `difference`.

    Args:
        terms: A weight and the scores by seed of each method.

    Raises:
        InputError: if there is no method, a method has no run, or a score is not finite.
    """
    if not terms or not all(scores for _, scores in terms):
        raise InputError("a method without a finished run cannot be compared; train and evaluate it first.")
    if not all(math.isfinite(value) for _, scores in terms for value in scores.values()):
        raise InputError("a score that is not a number cannot be compared; leave it out.")
    common = set.intersection(*(set(scores) for _, scores in terms))
    if len(common) > 1:
        seeds = tuple(sorted(common))
        by_seed = Spread.of([math.fsum(weight * scores[seed] for weight, scores in terms) for seed in seeds])
        largest = max(abs(weight * scores[seed]) for weight, scores in terms for seed in seeds)
        return Difference(
            mean=by_seed.mean, interval=_of_mean(by_seed, largest), seeds=seeds, n=(len(seeds),) * len(terms)
        )
    spreads = [(weight, Spread.of(list(scores.values()))) for weight, scores in terms]
    return Difference(
        mean=math.fsum(weight * spread.mean for weight, spread in spreads),
        interval=_welch(spreads),
        seeds=(),
        n=tuple(spread.n for _, spread in spreads),
    )


def interaction(grid: Mapping[tuple[str, str], BySeed], rows: tuple[str, str], columns: tuple[str, str]) -> Difference:
    """How much more the step between two columns gains in one row than in the other.

    For the grid of initial slots and gradient schemes, with rows ("learned", "shared_gaussian") and columns ("bilevel",
    "unrolled"): what bilevel gradients gain on learned queries, less what they gain on sampled slots.

    Args:
        grid: Scores by seed of each (row, column).
        rows: The row that is claimed to gain more, and the other.
        columns: After the step, and before it.

    Raises:
        InputError: if a cell of the grid is missing or has no run.
    """
    missing = [f"{row} with {column}" for row in rows for column in columns if not grid.get((row, column))]
    if missing:
        raise InputError(f"the grid has no finished run of {', '.join(missing)}; train and evaluate it first.")
    (one, other), (after, before) = rows, columns
    return contrast(
        [
            (1, grid[one, after]),
            (-1, grid[one, before]),
            (-1, grid[other, after]),
            (1, grid[other, before]),
        ]
    )


def verdict(interval: Interval | None) -> Verdict:
    """What an interval of a difference says about the claim that it is above 0."""
    if interval is None:
        return "undecided"
    if interval.low > 0:
        return "seen"
    return "not seen" if interval.high < 0 else "undecided"


def seeds_needed(one: Spread, other: Spread, difference: float) -> int | None:
    """Seeds of each method so that a two-sided 5 % test would see a difference with 80 % power.

    The least n of at least 2 with

        n >= (t(0.975, v) + t(0.80, v))^2 (s1^2 + s2^2) / difference^2,    v = (n - 1) (s1^2 + s2^2)^2 / (s1^4 + s2^4)

    where s1 and s2 are the observed standard deviations, taken for true, and v are Welch's degrees of freedom for two
    independent samples of n. A standard deviation of three runs is itself known to a factor of two or so, and so is n
    to a factor of four.

    Returns:
        None where it cannot be told: a method with one run, a difference of 0, or more than `MOST_SEEDS`.
    """
    if one.std is None or other.std is None or difference == 0:
        return None
    smaller, larger = sorted((one.std, other.std))
    if larger == 0:
        return 2
    ratio = smaller / larger  # at most 1, so that no square leaves the range of floats
    noise = larger / abs(difference)

    def is_enough(n: int) -> bool:
        freedom = (n - 1) * (1 + ratio**2) ** 2 / (1 + ratio**4)
        quantiles = float(stats.t.ppf((1 + LEVEL) / 2, freedom) + stats.t.ppf(POWER, freedom))
        return n >= quantiles * quantiles * (1 + ratio**2) * noise * noise

    low, high = 1, 2  # too few, and enough or not yet known: what is needed falls as n grows
    while not is_enough(high):
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high if high <= MOST_SEEDS else None


def _welch(spreads: Sequence[tuple[float, Spread]]) -> Interval | None:
    if any(spread.std is None for _, spread in spreads):
        return None
    parts = [(weight**2 * (spread.std or 0) ** 2 / spread.n, spread.n - 1) for weight, spread in spreads]
    variance = math.fsum(part for part, _ in parts)
    largest = max(abs(weight * spread.mean) for weight, spread in spreads)
    if variance <= (_ROUNDING * largest) ** 2:
        return None
    freedom = 1 / math.fsum((part / variance) ** 2 / of_part for part, of_part in parts)
    return _interval(math.fsum(weight * spread.mean for weight, spread in spreads), math.sqrt(variance), freedom)


def _of_mean(spread: Spread, largest: float) -> Interval | None:
    """The interval of a mean of numbers that were computed from others, the largest of which is given."""
    if spread.std is None or spread.std <= _ROUNDING * largest:
        return None
    return _interval(spread.mean, spread.std / math.sqrt(spread.n), spread.n - 1)


def _interval(mean: float, error: float, freedom: float) -> Interval:
    margin = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Interval(mean - margin, mean + margin)
