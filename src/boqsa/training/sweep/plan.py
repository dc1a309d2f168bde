"""What a sweep trains: a list of recipes, each with a folder of its own, written down before anything starts.

DIR/plan.json           the runs: name, setting and full recipe of each
DIR/<name>/             the run folder
DIR/.sweep/             what the engines keep: claims, consoles, jobs
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boqsa.atomic import one_process, write_text
from boqsa.errors import InputError, RecipeError, RunError, as_typed
from boqsa.inference.load import build_model
from boqsa.plain import read_json
from boqsa.recipes import Recipe
from boqsa.recipes.fields import with_fields
from boqsa.recipes.recipe import differences
from boqsa.training.data import open_split
from boqsa.training.features import require_input
from boqsa.training.start import starting_model

PLAN = "plan.json"
KEPT = ".sweep"
"""Folder of a sweep for all that is not a run."""
_LONGEST_NAME = 120
_HASH_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of a plan."""

    name: str
    """Folder below the sweep's; unique in the plan."""
    recipe: Recipe
    setting: str
    """What the run has in common with those that differ from it by the seed alone, for people to read."""

    def folder(self, sweep: Path) -> Path:
        """The run folder."""
        return sweep / self.name


def make_plan(
    recipes: Sequence[Recipe],
    *,
    seeds: Sequence[int] = (),
    vary: Mapping[str, Sequence[str]] | None = None,
    fixed: Mapping[str, str] | None = None,
) -> list[PlannedRun]:
    """Every recipe with every combination of values and every seed, checked down to the model that each builds.

    Args:
        recipes: Where to start from.
        seeds: Of the runs; without any, that of each recipe.
        vary: Values, as text, of each field to vary (`boqsa.recipes.fields.with_fields`). All combinations are taken.
        fixed: Value, as text, of fields that all runs share.

    Returns:
        The runs, seed by seed, so that a sweep that is cut short has whole settings of few seeds rather than few
        settings of all seeds.

    Raises:
        RecipeError: if there is nothing to run, a field or value is wrong, or two runs would be the same.
    """
    vary, fixed = dict(vary or {}), dict(fixed or {})
    _require_something(recipes, vary, fixed)
    if all(recipe.model.kind == "mixture" for recipe in recipes):
        _require_effect(recipes[0], fixed)
    settings = []
    for recipe in recipes:
        for values in itertools.product(*vary.values()):
            varied = dict(zip(vary, values, strict=True))
            full = _at_home(with_fields(recipe, {**fixed, **varied}))
            _require_effect(recipe, varied)
            _require_model(full)
            settings.append((full, _label(recipe.name, varied)))
    runs = []
    for position in range(len(seeds) or 1):
        for full, label in settings:
            seeded = replace(full, seed=seeds[position]) if seeds else full
            runs.append(PlannedRun(name=_folder_name(seeded, label), recipe=seeded, setting=label))
    require_distinct(runs)
    return runs


def require_distinct(runs: Sequence[PlannedRun]) -> None:
    """Refuse a plan that has a run twice.

    Raises:
        RecipeError: if two runs have the same name or compute the same.
    """
    by_hash: dict[str, PlannedRun] = {}
    names: set[str] = set()
    for run in runs:
        if run.recipe.hash in by_hash:
            raise RecipeError(
                f"the plan has one run twice: {by_hash[run.recipe.hash].name} and {run.name} would compute the same; "
                "name each recipe, seed and value once, and vary fields that decide the result."
            )
        if run.name in names:
            raise RecipeError(f"the plan has two runs of the name {run.name}; give each a name of its own.")
        by_hash[run.recipe.hash] = run
        names.add(run.name)


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Open the training split of every run, so that a wrong folder is told once and before anything starts.

    Built-in scenes are not rendered for it.

    Raises:
        RecipeError, InputError: as `open_split`; or if the set has not what a recipe's model takes.
    """
    for recipe in {(run.recipe.data, run.recipe.model): run.recipe for run in runs}.values():
        data = recipe.data
        if data.name == "scenes" and data.root is None:
            continue
        require_input(open_split(data, data.train_split), recipe)


def check_init_from(runs: Sequence[PlannedRun]) -> None:
    """Load the weights that runs start from once, so that a wrong run is told before anything starts.

    Raises:
        RunError, InputError: if `train.init_from` names no run, or its weights do not fit.
    """
    for recipe in {
        (run.recipe.train.init_from, run.recipe.data, run.recipe.model): run.recipe for run in runs
    }.values():
        if recipe.train.init_from is not None:
            starting_model(recipe, None)


def check_place(sweep: Path, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Go on if a plan can be written into its folder; a plan that is there may only grow.

    Args:
        sweep: Folder, or none yet.
        runs: The plan. If the folder has one, all runs of that are in it too.

    Returns:
        The runs that are not there yet.

    Raises:
        RunError: if the folder holds something else, or a plan with runs that `runs` lacks.
    """
    require_distinct(runs)
    if sweep.exists() and not sweep.is_dir():
        raise RunError(f"{sweep} is a file; choose another folder.")
    there = (
        {entry.name for entry in sweep.iterdir() if not entry.name.startswith(".partial-")} if sweep.is_dir() else set()
    )
    if PLAN not in there and there - {KEPT}:  # one look: another process may be writing the plan
        raise RunError(f"{sweep} is not empty and holds no {PLAN}; choose another folder.")
    before = read_plan(sweep) if PLAN in there else []
    wanted = {run.name: run for run in runs}
    for run in before:
        if run.name not in wanted:
            raise RunError(
                f"{sweep} holds another sweep: its run {run.name} is not in this one. Go on with it by "
                f"`boqsa sweep --resume {as_typed(sweep)}`, or choose another --out; a sweep may grow, but not lose "
                "runs."
            )
        if wanted[run.name].recipe.hash != run.recipe.hash:
            raise RunError(
                f"{sweep} holds the run {run.name} with another recipe "
                f"({'; '.join(differences(run.recipe, wanted[run.name].recipe))}); choose another folder."
            )
    known = {run.name for run in before}
    return [run for run in runs if run.name not in known]


def write_plan(sweep: Path, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Write a plan into its folder, which is made if there is none, and give the runs that were not there before.

    Raises:
        RunError: as `check_place`; or if the folder cannot be made.
    """
    check_place(sweep, runs)  # makes nothing where it refuses
    try:
        (sweep / KEPT).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {sweep}: {error.strerror}; choose another --out.") from None
    with one_process(sweep / KEPT / "plan.lock", wait=True):
        added = check_place(sweep, runs)  # again: another process may have written a plan meanwhile
        rows = [{"name": run.name, "setting": run.setting, "recipe": asdict(run.recipe)} for run in runs]
        write_text(sweep / PLAN, json.dumps({"version": 1, "runs": rows}, indent=1))
    return added


def grow_plan(sweep: Path, runs: Sequence[PlannedRun]) -> None:
    """Add runs to the plan of a folder, or begin one; several processes may do so at the same time.

    Of a run that is in the plan already, the recipe is the new one: its data may lie elsewhere now.

    Raises:
        RunError: if the folder holds something else than a plan, a run has another recipe there, or the folder cannot
            be made.
    """
    if sweep.exists() and not (sweep / KEPT).is_dir():
        check_place(sweep, runs)
    try:
        (sweep / KEPT).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {sweep}: {error.strerror}; choose another folder for the runs.") from None
    with one_process(sweep / KEPT / "grow.lock", wait=True):
        before = read_plan(sweep) if (sweep / PLAN).is_file() else []
        write_plan(sweep, list({run.name: run for run in (*before, *runs)}.values()))


def read_plan(sweep: Path) -> list[PlannedRun]:
    """The plan of a sweep.

    Raises:
        InputError: if the folder holds none, or it is damaged.
        RecipeError: if a recipe in it is.
    """
    path = sweep / PLAN
    if not path.is_file():
        raise InputError(f"{sweep} holds no {PLAN}; give the folder that --out of a sweep named.")
    damaged = f"{path} is damaged: {{}}; give the command of the sweep again, with another --out."
    try:
        rows = read_json(path)["runs"]
        runs = [
            PlannedRun(
                name=row["name"], setting=str(row["setting"]), recipe=Recipe.from_json(json.dumps(row["recipe"]))
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(damaged.format(f"{type(error).__name__} {error}")) from None
    if not runs:
        raise InputError(damaged.format("it has no runs"))
    for run in runs:
        if not _is_plain(run.name):
            raise InputError(damaged.format(f"{run.name!r} is not the name of a folder below it"))
    require_distinct(runs)
    return runs


def _is_plain(name: Any) -> bool:
    """Whether a name from a file stays inside the folder that it is put below."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._=,+-]*", name) is not None


def _require_something(recipes: Sequence[Recipe], vary: Mapping[str, Sequence[str]], fixed: Mapping[str, str]) -> None:
    if not recipes:
        raise RecipeError("name at least one recipe; `boqsa recipes` lists them.")
    plain = {name.replace("-", "_") for name in fixed}
    for name, values in vary.items():
        if not values:
            raise RecipeError(f"--vary {name} has no values; give them after it, as --vary {name} A B.")
        if name.replace("-", "_") in plain:
            raise RecipeError(f"{name} is both varied and fixed; leave out --{name} or --vary {name}.")
        if name == "seed":
            raise RecipeError("give seeds as --seeds 0 1 2, not by --vary.")


def _require_effect(recipe: Recipe, fields: Mapping[str, str]) -> None:
    """Refuse what only a model of another kind looks at: runs of several such values would compute the same."""
    without = [name for name in fields if name.startswith("train.dvae.") and recipe.model.kind == "mixture"]
    if without:
        raise RecipeError(
            f"{without[0]} changes nothing in {recipe.name}: a mixture model has no dVAE; leave it out, or choose a "
            "transformer recipe."
        )


def _require_model(recipe: Recipe) -> None:
    """Build the model once: sizes that do not fit together are refused by it, not by the recipe."""
    with torch.random.fork_rng(devices=[]):
        build_model(recipe)


def _at_home(recipe: Recipe) -> Recipe:
    """Data by its absolute path: a sweep may be taken up from another folder."""
    root = recipe.data.root
    if root is None:
        return recipe
    return replace(recipe, data=replace(recipe.data, root=str(Path(root).absolute())))


def _label(recipe: str, varied: Mapping[str, str]) -> str:
    """As `demo learning_rate=1e-4`; a field by its last name where that is enough."""
    names = [name.replace("-", "_") for name in varied]
    last = [name.split(".")[-1] for name in names]
    short = [tail if last.count(tail) == 1 else name for name, tail in zip(names, last, strict=True)]
    return " ".join([recipe, *(f"{name}={value}" for name, value in zip(short, varied.values(), strict=True))])


def _folder_name(recipe: Recipe, label: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", label).strip("-.")[:_LONGEST_NAME]
    return f"{readable}-seed{recipe.seed}-{recipe.hash[:_HASH_DIGITS]}"
