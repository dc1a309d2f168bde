"""From experiments to the runs that they need, each once, whoever asks for it; and to the data that these need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boqsa.data import PackedDataset
from boqsa.errors import BoqsaError, InputError, RecipeError
from boqsa.models.radiance.pretrained import lpips_from
from boqsa.recipes import DataRecipe, Recipe
from boqsa.recipes.fields import with_fields
from boqsa.recipes.recipe import flat
from boqsa.reproduce.experiment import Arm, Experiment, Test
from boqsa.reproduce.items import build
from boqsa.reproduce.scales import Scale
from boqsa.training.data import open_split, require_image_size
from boqsa.training.sweep import PlannedRun

_HASH_DIGITS = 6


class Look(NamedTuple):
    """One test of one run."""

    item: str
    method: str
    run: PlannedRun
    test: Test


def placed(
    experiments: Sequence[Experiment], *, root: str | Path | None, datasets: Sequence[str] = ()
) -> list[Experiment]:
    """Experiments with the folder of every data set, and without other data sets.

    Args:
        experiments: As the items give them.
        root: Folder that holds a packed folder for each data set's name; None where none is needed.
        datasets: Train and score on these alone; empty means all. Experiments of which nothing is left are left out.

    Raises:
        InputError: if nothing is left of any experiment.
    """
    found = []
    for experiment in experiments:
        arms = [_placed(arm, root, datasets) for arm in experiment.arms]
        kept = tuple(arm for arm in arms if arm.tests and (not datasets or arm.recipe.data.name in datasets))
        if kept or not arms:
            found.append(replace(experiment, arms=kept))
    if not found:
        names = dict.fromkeys(arm.recipe.data.name for experiment in experiments for arm in experiment.arms)
        items = ", ".join(experiment.item for experiment in experiments)
        raise InputError(f"{items} trains on {', '.join(names)}, not on {', '.join(datasets)}; choose among those.")
    return found


def with_lpips(experiments: Sequence[Experiment], files: Sequence[Path]) -> list[Experiment]:
    """Experiments whose radiance models are scored by LPIPS, too.

    Raises:
        InputError: if there are none, if the files do not hold its weights, or if views are too small for it.
    """
    arms = [arm for experiment in experiments for arm in experiment.arms if arm.recipe.model.kind == "radiance"]
    if not arms:
        items = ", ".join(experiment.item for experiment in experiments)
        raise InputError(f"--lpips scores novel views, and {items} renders none; leave it out.")
    lpips_from(files, size=min(arm.recipe.evaluate.radiance.size for arm in arms))  # now, not after days of training
    return [replace(one, arms=tuple(_with_lpips(arm, files) for arm in one.arms)) for one in experiments]


def _with_lpips(arm: Arm, files: Sequence[Path]) -> Arm:
    if arm.recipe.model.kind != "radiance":
        return arm
    return replace(arm, tests=tuple(replace(test, lpips=tuple(map(str, files))) for test in arm.tests))


def _placed(arm: Arm, root: str | Path | None, datasets: Sequence[str]) -> Arm:
    tests = tuple(
        replace(test, data=_with_root(test.data, root))
        for test in arm.tests
        if not datasets or test.data.name in datasets
    )
    return replace(arm, recipe=replace(arm.recipe, data=_with_root(arm.recipe.data, root)), tests=tests)


def built(name: str, scale: Scale, fields: Mapping[str, str]) -> Experiment:
    """The experiment of an item, with fields that a user sets for all of its recipes.

    Raises:
        InputError: if there is no such item.
        RecipeError: if a field is unknown, its value is wrong, or the item itself varies it.
    """
    if not fields:
        return build(name, scale)
    plain, asked = build(name, scale), build(name, scale.with_fields(fields))
    for typed, text in fields.items():
        field = typed.replace("-", "_")
        # the item's own, where the user's makes no difference; what follows the user's, as twice the steps, is fine
        if any(
            flat(after.recipe).get(field) == flat(before.recipe).get(field)
            and after.recipe != with_fields(after.recipe, {field: text})
            for before, after in zip(plain.arms, asked.arms, strict=False)
        ):
            own = dict.fromkeys(str(flat(arm.recipe)[field]) for arm in plain.arms if field in flat(arm.recipe))
            raise RecipeError(f"{name} varies {field} itself ({', '.join(own)}); leave it out.")
    return asked


def _with_root(data: DataRecipe, root: str | Path | None) -> DataRecipe:
    if data.name == "scenes":
        return data
    if root is None:
        return replace(data, root=None)
    of_size = Path(root) / _folder_of_size(data)
    return replace(data, root=str(of_size if of_size.is_dir() else Path(root) / data.name))


def _folder_of_size(data: DataRecipe) -> str:
    """Taken before the folder of the name alone: a plan may need a set at two sizes, as Table 1 does."""
    return f"{data.name}_{data.image_size}"


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


def setting_of(recipe: Recipe) -> str:
    """What is trained, whatever the seed and wherever the data lies: a short hash."""
    return replace(recipe, seed=0).hash


def planned(recipe: Recipe) -> PlannedRun:
    """A run with the name that its recipe and seed give it, whatever item asks for it."""
    name = f"{recipe.name}_seed{recipe.seed}_{recipe.hash[:_HASH_DIGITS]}"
    return PlannedRun(name=name, recipe=recipe, setting=recipe.name)


class Needed(NamedTuple):
    """A split of a data set that a plan needs."""

    data: DataRecipe
    split: str


def data_needed(looks: Sequence[Look]) -> list[Needed]:
    """Every split that is trained on or scored on, once."""
    return list(dict.fromkeys(_needed(looks)))


def _needed(looks: Sequence[Look]) -> Iterator[Needed]:
    for look in looks:
        data = look.run.recipe.data
        yield Needed(data, data.train_split)
    for look in looks:
        yield Needed(look.test.data, look.test.data.test_split)


def missing(needed: Sequence[Needed]) -> dict[str, str]:
    """What is wrong with each data set that cannot be used, by its name and, where it is needed at several, its size;
    empty if all is well."""
    sizes: dict[str, set[int]] = {}
    for data, _ in needed:
        sizes.setdefault(data.name, set()).add(data.image_size)
    wrong = {}
    for data, split in needed:
        several = len(sizes[data.name]) > 1
        what = f"{data.name} at {data.image_size}x{data.image_size}" if several else data.name
        if data.name == "scenes" or what in wrong:
            continue
        if data.root is None:
            folder = _folder_of_size(data) if several else data.name
            wrong[what] = (
                f"{data.name} is needed at {data.image_size}x{data.image_size}: pass --data.root DIR, where "
                f"`boqsa data prepare READER SOURCE DIR/{folder} --size {data.image_size}` made it."
            )
            continue
        try:
            require_image_size(open_split(data, split), data.image_size)
        except BoqsaError as error:
            beside = Path(data.root).with_name(_folder_of_size(data))
            wrong[what] = f"{what}: {error}" + (f" Sizes lie side by side: this one in {beside}." if several else "")
    return wrong


def require_data(needed: Sequence[Needed]) -> None:
    """Go on if all data of a plan is there.

    Raises:
        InputError: if some is not; all of it is named at once.
    """
    wrong = missing(needed)
    if wrong:
        only = " Or train and score on others alone: --datasets NAME..."
        raise InputError(" ".join(wrong.values()) + only)


def test_split(test: Test) -> PackedDataset:
    """The images of a test."""
    return open_split(test.data, test.data.test_split)
