"""Recipes as JSON and back, the errors that name a field, and the hash."""

import json
import re
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from boqsa.errors import RecipeError
from boqsa.recipes import RECIPES, DataRecipe, EvaluateRecipe, MixtureRecipe, Recipe, TrainRecipe
from boqsa.recipes.cpu import demo
from boqsa.recipes.recipe import differences

SECTIONS: dict[str, type[Any]] = {
    "data": DataRecipe,
    "model": MixtureRecipe,
    "train": TrainRecipe,
    "evaluate": EvaluateRecipe,
}
NOT_HASHED = {"data.root", "train.device", "train.threads"}


ALL_FIELDS = ["name", "seed"] + [
    f"{section}.{entry.name}" for section, kind in SECTIONS.items() for entry in fields(kind)
]
"""`seed`, `data.root`, ...: every leaf of a recipe."""


def changed(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another, valid, value of one field."""
    if name in ("evaluate.task", "evaluate.select_by"):  # they go together
        return replace(recipe, evaluate=EvaluateRecipe(task="foreground", select_by="iou", validation_limit=256))
    owner, _, field = name.rpartition(".")
    part = getattr(recipe, owner) if owner else recipe
    value = getattr(part, field)
    kind = get_type_hints(type(part))[field]
    if get_origin(kind) is not None and isinstance(value, str):  # a choice
        other: Any = next(choice for choice in get_args(kind) if choice != value)
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, tuple):
        other = (*value, 1)
    elif isinstance(value, float):
        other = value / 2 or 0.5
    elif isinstance(value, int):
        other = value * 2 or 7
    else:
        other = f"{value}x"
    part = replace(part, **{field: other})
    return replace(recipe, **{owner: part}) if owner else part


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    recipe = RECIPES[name]()
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.hash == recipe.hash
    assert re.fullmatch("[0-9a-f]{12}", recipe.hash)


@pytest.mark.parametrize("name", ALL_FIELDS)
def test_hash_and_differences_see_every_field(name: str) -> None:
    recipe = demo()
    other = changed(recipe, name)
    assert other != recipe
    assert Recipe.from_json(other.to_json()) == other
    assert (other.hash == recipe.hash) == (name in NOT_HASHED)
    assert any(line.startswith(f"{name}: ") for line in differences(recipe, other))


def test_the_loop_over_fields_missed_none() -> None:
    values = json.loads(demo().to_json())
    leaves = {name for name, value in values.items() if not isinstance(value, dict)}
    leaves |= {f"{section}.{name}" for section in SECTIONS for name in values[section]}
    assert leaves == set(ALL_FIELDS)


def test_differences_read_well() -> None:
    recipe = demo()
    assert differences(recipe, recipe) == []
    other = replace(recipe, seed=3, train=replace(recipe.train, steps=100))
    assert differences(recipe, other) == [f"train.steps: {recipe.train.steps} -> 100", "seed: 0 -> 3"]


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_unknown_field(section: str) -> None:
    values = json.loads(demo().to_json())
    (values[section] if section else values)["stepz"] = 5
    with pytest.raises(RecipeError, match="stepz") as raised:
        Recipe.from_json(json.dumps(values))
    assert str(raised.value).startswith(f"recipe.{section} has" if section else "recipe has")


WRONG_TYPES: dict[type, list[Any]] = {
    bool: [1, "yes", None],
    int: [True, 1.5, "twelve", None, [1]],
    float: [True, "half", None, [0.5]],
    str: [True, 3, None, ["x"], {}],
    list: [True, 64, None, "64", [1.5], [True], [[1]]],
    type(None): [True, 3, ["x"]],  # a word would be right
}
"""Type of a field in JSON -> values that are not of it."""


@pytest.mark.parametrize("name", ALL_FIELDS)
def test_wrong_type(name: str) -> None:
    owner, _, field = name.rpartition(".")
    values = json.loads(demo().to_json())
    section = values[owner] if owner else values
    for wrong in WRONG_TYPES[type(section[field])]:
        section[field] = wrong
        with pytest.raises(RecipeError, match=rf"^recipe\.{re.escape(name)} is "):
            Recipe.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("seed", -1, "seed is -1; it must be at least 0"),
        ("data.image_size", 0, "data.image_size is 0; it must be at least 8"),
        ("data.scene_count", 0, "data.scene_count is 0"),
        ("data.scene_seed", -1, "data.scene_seed is -1"),
        ("model.num_slots", 0, "model.num_slots is 0; it must be at least 1"),
        ("model.iterations", 0, "model.iterations is 0"),
        ("model.drop_path", 1.0, "model.drop_path is 1.0; it must be between 0 and 0.99"),
        ("model.epsilon", -1.0, "model.epsilon is -1.0"),
        ("model.epsilon", float("nan"), "model.epsilon is nan"),
        ("model.gradient", "two_level", "expected one of 'unrolled', 'implicit', 'bilevel'"),
        ("train.steps", 0, "train.steps is 0"),
        ("train.learning_rate", 0.0, "train.learning_rate is 0.0; it must be above 0"),
        ("train.learning_rate", float("nan"), "train.learning_rate is nan"),
        ("train.accumulate", 3, "train.batch_size 16 cannot be computed in 3 equal pieces"),
        ("train.clip_norm", -1.0, "train.clip_norm is -1.0"),
        ("train.warmup_steps", -1, "train.warmup_steps is -1"),
        ("train.precision", "fp16", "expected one of 'fp32', 'bf16'"),
        ("evaluate.select_by", "iou", "not a metric of evaluate.task 'multi_object'"),
        ("evaluate.validation_limit", -1, "evaluate.validation_limit is -1"),
    ],
)
def test_wrong_value(name: str, wrong: Any, message: str) -> None:
    owner, _, field = name.rpartition(".")
    values = json.loads(demo().to_json())
    (values[owner] if owner else values)[field] = wrong
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", r"recipe is \[\]; expected an object"),
        ('{"name": "x"}', "recipe is incomplete: .*'data'"),
        ('{"name": "x", "data": {"name": "y"}}', "recipe.data is incomplete: .*'image_size'"),
        ('{"name": "x", "data": 3}', "recipe.data is 3; expected an object"),
    ],
)
def test_not_a_recipe(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(text)


def test_a_whole_number_may_stand_for_a_float() -> None:
    values = json.loads(demo().to_json())
    values["model"]["epsilon"] = 1
    recipe = Recipe.from_json(json.dumps(values))
    assert type(recipe.model.epsilon) is float
    assert recipe == demo()


def test_a_choice_is_checked_without_json_too() -> None:
    with pytest.raises(RecipeError, match=r"model\.queries is 'learnt'; pass one of 'learned'"):
        MixtureRecipe(queries="learnt")  # type: ignore[arg-type]
