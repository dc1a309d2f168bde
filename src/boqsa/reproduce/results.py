"""From looks to the rows of an item's CSV, beside those that are there already.

A file keeps what was not asked for this time: other seeds, other data sets. What it holds of a setting that the item
has no more goes, and is named: seeds of two settings are no sample of either.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boqsa.reproduce.experiment import Experiment
from boqsa.reproduce.measure import Found, images_of, masks_of_kind, short_fingerprint
from boqsa.reproduce.plan import Look, setting_of, test_split
from boqsa.reproduce.protocol import Protocol, parse
from boqsa.reproduce.rows import Row, read_rows

DIVERGED = "is not a number"
"""What a run says that stopped as its loss or gradient was none."""


def rows_of(look: Look, found: Found) -> list[Row]:
    """The rows that a look gives: every metric of its test, of every checkpoint that has it."""
    data, recipe = look.test.data, look.run.recipe
    return [
        Row(
            method=look.method,
            dataset=data.name,
            metric=metric,
            condition=look.test.condition,
            seed=recipe.seed,
            selection=selection,
            protocol=Protocol(
                data=data.name,
                variant=found.variant,
                split=data.test_split,
                images=images_of(look.test, metric, found.images),
                image_size=data.image_size,
                slots=found.slots,
                masks=found.masks,
                metric=metric,
                recipe=setting_of(recipe),
            ).text,
            value=values[metric],
        )
        for selection, values in found.values.items()
        for metric in look.test.metrics
        if metric in values
    ]


def failed_rows(looks: Sequence[Look], failed: Mapping[str, str]) -> list[Row]:
    """Runs that diverged count among those that failed, and have no other number.

    A run that ended otherwise, by a full disk or a kill, says nothing about its method and has no row.

    Args:
        looks: Of any runs.
        failed: Last words of those that failed, by the run's name.
    """
    rows = []
    for look in looks:
        if "failed" not in look.test.metrics or DIVERGED not in failed.get(look.run.name, ""):
            continue
        recipe, dataset = look.run.recipe, test_split(look.test)
        stopped = Found(
            images=len(dataset),
            variant=short_fingerprint(dataset),
            slots=look.test.num_slots or recipe.model.num_slots,
            masks=masks_of_kind(recipe.model.kind),
            values={"last": {"failed": 1.0}},
        )
        rows += rows_of(look, stopped)
    return rows


class Merged(NamedTuple):
    """The rows of an item's file."""

    rows: list[Row]
    left_out: list[str]
    """Methods and data sets whose earlier rows were of another setting, in words."""


def merged(experiment: Experiment, rows: Sequence[Row], path: Path) -> Merged:
    """New rows, and those of the file that were not asked for and still belong to the item.

    Args:
        experiment: The item, whole: with all of its data sets.
        rows: What was found this time.
        path: The file, which need not exist.

    Raises:
        InputError: if the file is damaged.
    """
    settings = {
        (arm.method, test.data.name, test.condition): setting_of(arm.recipe)
        for arm in experiment.arms
        for test in arm.tests
    }
    new = {_key(row) for row in rows}
    kept: list[Row] = []
    left_out: dict[str, None] = {}
    for row in read_rows(path) if path.is_file() else []:
        if _key(row) in new:
            continue
        place = (row.method, row.dataset, row.condition)
        if settings.get(place) == parse(row.protocol).recipe:
            kept.append(row)
        else:
            left_out[f"{row.method} on {row.dataset}"] = None
    return Merged([*rows, *kept], list(left_out))


def _key(row: Row) -> tuple[object, ...]:
    """What a new look replaces: all that an earlier one found there, whatever its metrics and selections."""
    return row.method, row.dataset, row.condition, row.seed
