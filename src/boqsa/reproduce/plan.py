"""From experiments to the runs that they need, each once, whoever asks for it; and to the data that these need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boqsa.data import PackedDataset
from boqsa.errors import BoqsaError, InputError
from boqsa.recipes import DataRecipe, Recipe
from boqsa.recipes.fields import with_fields
from boqsa.reproduce.experiment import Arm, Experiment, Test
from boqsa.training.data import open_split, require_image_size
from boqsa.training.sweep import PlannedRun, read_plan

_HASH_DIGITS = 6


class Look(NamedTuple):
    """One test of one run."""

    item: str
    method: str
    run: PlannedRun
    test: Test


def placed(
    experiments: Sequence[Experiment],
    *,
    root: str | Path | None,
    fields: Mapping[str, str] | None = None,
    datasets: Sequence[str] = (),
) -> list[Experiment]:
    """Experiments with the folder of every data set, with fields that the user sets, and without other data sets.

    Args:
        experiments: As the items give them.
        root: Folder that holds a packed folder for each data set's name; None where none is needed.
        fields: Name and text of fields of all recipes.
        datasets: Train on these alone; empty means all. Experiments of which nothing is left are left out.

    Raises:
        RecipeError: if a field is unknown or its value is wrong.
        InputError: if nothing is left of any experiment.
    """
    found = []
    for experiment in experiments:
        arms = tuple(
            _placed(arm, root, fields or {})
            for arm in experiment.arms
            if not datasets or arm.recipe.data.name in datasets
        )
        if arms or not experiment.arms:
            found.append(replace(experiment, arms=arms))
    if not found:
        names = dict.fromkeys(arm.recipe.data.name for experiment in experiments for arm in experiment.arms)
        items = ", ".join(experiment.item for experiment in experiments)
        raise InputError(f"{items} trains on {', '.join(names)}, not on {', '.join(datasets)}; choose among those.")
    return found


def _placed(arm: Arm, root: str | Path | None, fields: Mapping[str, str]) -> Arm:
    def data_of(data: DataRecipe) -> DataRecipe:
        return _with_root(with_fields(replace(arm.recipe, data=data), fields).data, root)

    recipe = replace(with_fields(arm.recipe, fields), data=data_of(arm.recipe.data))
    return replace(arm, recipe=recipe, tests=tuple(replace(test, data=data_of(test.data)) for test in arm.tests))


def _with_root(data: DataRecipe, root: str | Path | None) -> DataRecipe:
    if data.name == "scenes":
        return data
    return replace(data, root=None if root is None else str(Path(root) / data.name))


def looks_of(experiments: Sequence[Experiment], seeds: Sequence[int]) -> list[Look]:
    """Every test of every run, seed by seed, so that what is cut short has whole tables of few seeds."""
    return [
        Look(experiment.item, arm.method, planned(replace(arm.recipe, seed=seed)), test)
        for seed in seeds
        for experiment in experiments
        for arm in experiment.arms
        for test in arm.tests
    ]


def runs_of(looks: Sequence[Look]) -> list[PlannedRun]:
    """The runs that are looked at, each once, in their order."""
    return list({look.run.recipe.hash: look.run for look in looks}.values())


def planned(recipe: Recipe) -> PlannedRun:
    """A run with the name that its recipe and seed give it, whatever item asks for it."""
    name = f"{recipe.name}_seed{recipe.seed}_{recipe.hash[:_HASH_DIGITS]}"
    return PlannedRun(name=name, recipe=recipe, setting=recipe.name)


def with_those_before(folder: Path, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """A plan that holds the runs of the folder's plan too: one folder serves all items of a scale."""
    before = read_plan(folder) if (folder / "plan.json").is_file() else []
    return list({run.name: run for run in (*before, *runs)}.values())


class Needed(NamedTuple):
    """A split of a data set that a plan needs."""

    data: DataRecipe
    split: str
    what_for: str
    """Of it that the user is told: "training" or "test"."""


def data_needed(looks: Sequence[Look]) -> list[Needed]:
    """Every split that is trained on or scored on, once."""
    return list(dict.fromkeys(_needed(looks)))


def _needed(looks: Sequence[Look]) -> Iterator[Needed]:
    for look in looks:
        data = look.run.recipe.data
        yield Needed(data, data.train_split, "training")
    for look in looks:
        yield Needed(look.test.data, look.test.data.test_split, "test")


def missing(needed: Sequence[Needed]) -> dict[str, str]:
    """What is wrong with each data set that cannot be used, by its name; empty if all is well."""
    wrong = {}
    for data, split, _ in needed:
        if data.name == "scenes" or data.name in wrong:
            continue
        if data.root is None:
            wrong[data.name] = (
                f"{data.name} is needed at {data.image_size}x{data.image_size}: pass --data.root DIR, where "
                f"`boqsa data prepare READER SOURCE DIR/{data.name} --size {data.image_size}` made it."
            )
            continue
        try:
            require_image_size(open_split(data, split), data.image_size)
        except BoqsaError as error:
            wrong[data.name] = f"{data.name}: {error}"
    return wrong


def require_data(needed: Sequence[Needed]) -> None:
    """Go on if all data of a plan is there.

    Raises:
        InputError: if some is not; all of it is named at once.
    """
    wrong = missing(needed)
    if wrong:
        only = " Or leave sets out with --datasets NAME..."
        raise InputError(" ".join(wrong.values()) + only)


def test_split(test: Test) -> PackedDataset:
    """The images of a test."""
    return open_split(test.data, test.data.test_split)
