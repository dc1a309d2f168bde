"""The numbers of the paper's Tables 1-8 and 14-19, as printed and in the units of our rows.

`paper.json` beside this file holds them as printed: fractions in one table, percent in the next. A cell that the paper
prints with an error, or that could not be read with certainty, is `doubtful`, and its `note` says why.

Squared errors. The paper sums "per-pixel errors" over pixels (A.3.4) and says neither in which range images are nor
what becomes of channels. What ran is known of the authors' mixture code: mean over channels of images in [-1, 1], times
the number of pixels, which is 4/3 of our `mse_per_image` (spec 4.2). So mixture rows that the authors ran are
multiplied by 3/4; transformer rows and rows quoted from the CLEVRTEX benchmark are `mse_per_image` as they stand. That
is inferred.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from boqsa.errors import InputError

BEST_RUN_TABLES = (5, 6)
"""Tables that report the best run, and no mean (section 5.2)."""

_RUN_BY_THE_AUTHORS = ("BO-QSA (mixture)", "I-SA", "Slot-Attention (mixture)")
"""Mixture rows of Tables 2 and 3 that came out of the authors' code; the others of Table 2 are the benchmark's."""


class OurUnits(NamedTuple):
    """A number of the paper as our rows have it: scores as fractions, squared errors as `mse_per_image`."""

    metric: str
    """A name of `boqsa.training.results.HEADLINE` or `mse_per_image`; the paper's own where we have no such metric."""
    value: float
    spread: float | None
    decimals: int
    """Digits after the point that the printed precision is worth."""
    conversion: str
    """What was done to the printed number, in words; empty if nothing."""


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One number of a table."""

    table: int
    dataset: str
    """Name in `boqsa.data.CATALOG`; of a transfer `source->target`."""
    method: str
    metric: str
    """The paper's metric, in lower case: `ari_fg`, `mse`, ..."""
    value: float
    """As printed, in `unit`."""
    spread: float | None
    """As printed; None where the table has none."""
    spread_kind: str | None
    """What the caption calls it: variance, though its size suggests a standard deviation."""
    unit: str
    """fraction, percent, percent_relative (a gain), squared_error, squared_error_sum, lpips or db."""
    higher_is_better: bool
    doubtful: bool
    note: str
    """What a reader of the number should know; empty if nothing."""
    decimals: int
    """Digits after the point, as printed."""
    trials: int | None
    """Runs behind a mean, where the caption says so."""

    @property
    def printed(self) -> str:
        """As it stands in the table, as `0.70 ± 0.04`; the plus sign of a gain is left out."""
        value = f"{self.value:.{self.decimals}f}"
        return value if self.spread is None else f"{value} ± {self.spread:.{self.decimals}f}"

    @property
    def our_metric(self) -> str:
        """The metric by the name that it has in our rows."""
        return _our_metric(self.metric)

    def in_our_units(self) -> OurUnits:
        """The number as our rows have it. Exact: 82.5 percent is 0.825 and no neighbour of it."""
        factor, shift, conversion = Decimal(1), 0, ""
        if self.unit.startswith("percent"):
            factor, shift, conversion = Decimal("0.01"), 2, "percent divided by 100"
        elif self.metric == "mse" and self.method in _RUN_BY_THE_AUTHORS:
            factor = Decimal("0.75")
            conversion = "times 3/4, from the mean over channels of [-1, 1] images times pixels that the code prints"
        value, spread = (self._scaled(number, factor) for number in (self.value, self.spread))
        assert value is not None
        return OurUnits(self.our_metric, value, spread, self.decimals + shift, conversion)

    def _scaled(self, number: float | None, factor: Decimal) -> float | None:
        return None if number is None else float(Decimal(f"{number:.{self.decimals}f}") * factor)


def paper_cells(table: int) -> tuple[PaperCell, ...]:
    """The numbers of a table, in the order of its printed rows.

    Raises:
        InputError: if the table has no results (9-13 are settings) or does not exist.
    """
    tables = _tables()
    if table not in tables:
        raise InputError(
            f"the paper has no results in a Table {table}; those with results are "
            f"{', '.join(str(number) for number in tables)}."
        )
    return tables[table]


def paper_dataset(dataset: str, condition: str = "") -> str:
    """The paper's name for what a row was scored on: with `trained_on=dogs` the data set cars is `dogs->cars`."""
    for part in condition.split(";"):
        name, _, value = part.partition("=")
        if name == "trained_on":
            return f"{value}->{dataset}"
    return dataset


def _our_metric(metric: str) -> str:
    return "mse_per_image" if metric == "mse" else metric


@cache
def _tables() -> dict[int, tuple[PaperCell, ...]]:
    text = (files("boqsa.reproduce") / "paper.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)  # the package's own file, which tests read; nothing is checked here
    return {table["table"]: _cells(table, content) for table in content["tables"]}


def _cells(table: dict[str, Any], content: dict[str, Any]) -> tuple[PaperCell, ...]:
    doubts, notes = content["doubts"], content["notes"]
    return tuple(
        PaperCell(
            table=table["table"],
            dataset=dataset,
            method=method,
            metric=metric,
            value=float(value),
            spread=None if spread is None else float(spread),
            spread_kind=table["spread_kind"],
            unit=table["units"][metric],
            higher_is_better=metric not in content["lower_is_better"],
            doubtful=any(name in doubts for name in remarks),
            note="; ".join((doubts | notes)[name] for name in remarks),
            decimals=len(value.partition(".")[2]),
            trials=table["trials"],
        )
        for dataset, method, metric, value, spread, *remarks in table["cells"]
    )
