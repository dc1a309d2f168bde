"""What stands where in a table of results: columns, their direction, and a method's scores in one of them.

Scores are averaged over seeds of one protocol and one way to choose the checkpoint. Whatever would mix two is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from boqsa.errors import InputError
from boqsa.reproduce.paper import PaperCell, paper_dataset
from boqsa.reproduce.protocol import Protocol, differences, parse
from boqsa.reproduce.rows import Row
from boqsa.training.results import HEADLINE
from boqsa.training.sweep import Spread

SELECTIONS = {
    "last": "checkpoint `last`",
    "best_loss": "checkpoint `best_loss`, chosen without labels",
    "labels": "checkpoint `best_<metric>`, chosen with labels of the validation split",
}
"""Ways to choose the checkpoint, in the order of the tables. All that `best_<metric>` is called is one way."""

_HIGHER = (
    *HEADLINE,
    *("nv_ari_last", "ssim", "psnr", "iou_gain", "dice_gain"),
    *("separation_silhouette", "initial_silhouette", "nearest_query_accuracy"),
)
_LOWER = ("mse", "loss", "lpips", "failed")
"""Or what begins so and goes on with an underscore, as mse_per_image."""


class Column(NamedTuple):
    """A metric on a data set."""

    dataset: str
    metric: str
    condition: str = ""
    paper: str | None = None
    """Data set of the paper whose numbers stand beside; None for none."""

    @property
    def title(self) -> str:
        """As a header has it: `scenes ari_fg (test_iterations=5) ↑`."""
        condition = f" ({self.condition.replace(';', ', ')})" if self.condition else ""
        return f"{self.dataset} {self.metric}{condition}{ {1: ' ↑', -1: ' ↓', 0: ''}[direction(self.metric)] }"

    @property
    def name(self) -> str:
        """As a sentence has it: the title without the arrow."""
        return self.title.rstrip(" ↑↓")

    @property
    def place(self) -> tuple[str, str]:
        """Data set and condition: columns that have them in common stand together."""
        return self.dataset, self.condition

    @property
    def digits(self) -> int:
        """After the point: scores have three."""
        if self.metric.startswith("mse_"):
            return 2
        return 5 if self.metric == "mse" else 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of a table, and what is claimed."""

    columns: tuple[Column, ...]
    first: str = ""
    """Method that is claimed to be better than all others; empty for no claim."""


class Score(NamedTuple):
    """A method in a column, with one way to choose the checkpoint."""

    by_seed: dict[int, float]
    protocol: Protocol

    @property
    def spread(self) -> Spread:
        """Mean and sample standard deviation over the seeds."""
        return Spread.of(list(self.by_seed.values()))

    def best(self, sign: int) -> float:
        """Of the best seed: the highest where `sign` is 1, the lowest where it is -1."""
        return max(self.by_seed.values(), key=lambda value: sign * value)


def direction(metric: str) -> int:
    """1 if higher is better, -1 if lower is, 0 where neither is said."""
    if metric in _HIGHER:
        return 1
    return -1 if any(metric == name or metric.startswith(f"{name}_") for name in _LOWER) else 0


def layout_of(
    rows: Sequence[Row],
    paper_cells: Sequence[PaperCell] = (),
    *,
    metrics: Sequence[str] = (),
    stand_ins: Mapping[str, str] | None = None,
    first: str = "",
) -> Layout:
    """The columns that rows and a table of the paper need: the paper's in its order, then those that it lacks.

    Args:
        rows: Ours.
        paper_cells: Of one table.
        metrics: Ours to show; none means those of the paper's table, and all if there is no table.
        stand_ins: Our data set -> the data set of the paper in whose place it was used.
        first: As `Layout.first`.
    """
    theirs = list(dict.fromkeys((cell.dataset, cell.our_metric) for cell in paper_cells))
    shown = list(metrics) or list(dict.fromkeys(metric for _, metric in theirs))
    ours = [
        Column(row.dataset, row.metric, row.condition, _paper_name(row, theirs, stand_ins or {}))
        for row in rows
        if not shown or row.metric in shown
    ]
    columns = []
    for dataset, metric in theirs:
        if metrics and metric not in metrics:
            continue
        there = [column for column in ours if (column.paper, column.metric) == (dataset, metric)]
        columns += there or [_of_the_paper(dataset, metric)]
    columns = list(dict.fromkeys([*columns, *ours]))
    places = list(dict.fromkeys(column.place for column in columns))
    return Layout(columns=tuple(sorted(columns, key=lambda column: places.index(column.place))), first=first)


def _paper_name(row: Row, theirs: Sequence[tuple[str, str]], stand_ins: Mapping[str, str]) -> str | None:
    """The first of the names that a row may have in the paper which the table has."""
    conditions = [part.split("=") for part in row.condition.split(";") if part]
    conditions = [[name, stand_ins.get(value, value)] for name, value in conditions]
    if any(name != "trained_on" for name, _ in conditions):  # the paper varies nothing else in its tables
        return None
    dataset = stand_ins.get(row.dataset, row.dataset)
    transfer = paper_dataset(dataset, ";".join("=".join(part) for part in conditions))
    datasets = [name for name, _ in theirs]
    return next((name for name in (transfer, dataset) if name in datasets and _fits(name, row)), None)


def _fits(name: str, row: Row) -> bool:
    """A column that names no source is of models trained on it, but for CLEVRTEX's test sets (Table 2)."""
    return "->" in name or not row.condition or name in ("clevrtex_outd", "clevrtex_camo")


def _of_the_paper(dataset: str, metric: str) -> Column:
    source, _, target = dataset.rpartition("->")
    return Column(target, metric, f"trained_on={source}" if source else "", dataset)


def ways_to_choose(rows: Sequence[Row]) -> list[str]:
    """The keys of `SELECTIONS` that rows have."""
    there = {_way(row.selection) for row in rows}
    return [way for way in SELECTIONS if way in there]


def scores_in(column: Column, way: str, rows: Sequence[Row]) -> dict[str, Score]:
    """Each method's scores in a column, in the order of the rows.

    Args:
        column: Which.
        way: A key of `SELECTIONS`.
        rows: Of any columns and selections.

    Raises:
        InputError: if scores of a method have two protocols or two selections, or a seed is there twice.
    """
    found: dict[str, tuple[Row, Score]] = {}
    for row in rows:
        if row[1:4] != column[:3] or _way(row.selection) != way:
            continue
        where = f"{row.method} on {column.name}"
        first, score = found.setdefault(row.method, (row, Score({}, parse(row.protocol))))
        if row.selection != first.selection:
            raise InputError(
                f"{where} was chosen by {first.selection} and by {row.selection}; results of two selections are not "
                "averaged, keep one of them."
            )
        if row.protocol != first.protocol:
            told = differences(score.protocol, parse(row.protocol)) or [
                "other recipes, or a part is known of one alone"
            ]
            raise InputError(
                f"{where} has seeds {first.seed} and {row.seed} of two protocols ({'; '.join(told)}), which are not "
                "averaged; score both alike."
            )
        if row.seed in score.by_seed:
            raise InputError(f"{where} has seed {row.seed} twice ({row.selection}); keep one of the two.")
        score.by_seed[row.seed] = row.value
    return {method: score for method, (_, score) in found.items()}


def _way(selection: str) -> str:
    return selection if selection in ("last", "best_loss") else "labels"
