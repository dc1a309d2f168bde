"""Recipes as JSON and back, the errors that name a field, and the hash."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from boqsa.errors import RecipeError
from boqsa.recipes import (
    RECIPES,
    DataRecipe,
    DVAETrainRecipe,
    EvaluateRecipe,
    MixtureRecipe,
    RadianceEvaluateRecipe,
    RadianceRecipe,
    RadianceTrainRecipe,
    Recipe,
    TrainRecipe,
    TransformerRecipe,
)
from boqsa.recipes.cpu import demo
from boqsa.recipes.radiance import room_chair_radiance
from boqsa.recipes.recipe import differences

SECTIONS: dict[str, type[Any]] = {
    "data": DataRecipe,
    "model": MixtureRecipe,
    "train": TrainRecipe,
    "train.dvae": DVAETrainRecipe,
    "train.radiance": RadianceTrainRecipe,
    "evaluate": EvaluateRecipe,
    "evaluate.radiance": RadianceEvaluateRecipe,
}
TRANSFORMER_SECTIONS: dict[str, type[Any]] = {"model": TransformerRecipe}
RADIANCE_SECTIONS: dict[str, type[Any]] = {"model": RadianceRecipe}
NOT_HASHED = {"data.root", "train.device", "train.threads", "train.radiance.perceptual_file"}
FIXED = {"model.kind"}  # has one value

# What the first version wrote into runs; whoever changes one of these ends all unfinished runs of that recipe.
FIRST_HASHES = {
    "demo": "36c7eed609b0",
    "objectsroom_mixture_small": "2fb7aa485859",
    "shapestacks_mixture_small": "9582f01b965a",
    "objectsroom_mixture": "292850673e00",
    "shapestacks_mixture": "c9f10fe29682",
    "clevrtex_mixture": "c5e27f3794ce",
    "ptr_mixture": "88eb53c88293",
    "birds_mixture": "3879695387f1",
    "dogs_mixture": "62fec58973e0",
    "cars_mixture": "892670ae6076",
    "flowers_mixture": "a83e0aa0f633",
    "objectsroom_slot_attention": "754fb1ce8a66",
    "shapestacks_slot_attention": "083bbc7e1683",
}


def leaves(sections: dict[str, type[Any]]) -> list[str]:
    """Names as `data.root` of the fields that hold a value, not a section."""
    return [
        f"{section}.{entry.name}"
        for section, kind in sections.items()
        for entry in fields(kind)
        if f"{section}.{entry.name}" not in sections
    ]


ALL_FIELDS = ["name", "seed", *leaves(SECTIONS)]
"""`seed`, `data.root`, ...: every leaf of a recipe of a mixture."""


def tiny_transformer() -> Recipe:
    return replace(demo(), name="tiny", model=TransformerRecipe(num_slots=5))


CASES = [pytest.param(demo, name, id=name) for name in ALL_FIELDS]
CASES += [pytest.param(tiny_transformer, name, id=f"transformer {name}") for name in leaves(TRANSFORMER_SECTIONS)]
CASES += [pytest.param(room_chair_radiance, name, id=f"radiance {name}") for name in leaves(RADIANCE_SECTIONS)]


def section_of(values: Any, name: str) -> Any:
    """The part of a recipe, or of its JSON values, that holds a field."""
    for owner in name.split(".")[:-1]:
        values = values[owner] if isinstance(values, dict) else getattr(values, owner)
    return values


def with_field(part: Any, path: list[str], value: Any) -> Any:
    """A dataclass with one field, which may lie deeper, replaced."""
    first, *rest = path
    return replace(part, **{first: with_field(getattr(part, first), rest, value) if rest else value})


def changed(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another, valid, value of one field."""
    if name in ("evaluate.task", "evaluate.select_by"):  # they go together
        return replace(recipe, evaluate=EvaluateRecipe(task="foreground", select_by="iou", validation_limit=256))
    if name == "train.query_momentum":  # only what moves queries by itself has one
        recipe = replace(recipe, train=replace(recipe.train, query_update="kmeans"))
    if name == "train.radiance.rays":  # these losses need whole pictures
        recipe = with_field(recipe, ["train", "radiance", "perceptual_weight"], 0.0)
    part = section_of(recipe, name)
    field = name.rpartition(".")[2]
    value = getattr(part, field)
    kind = get_type_hints(type(part))[field]
    if name == "model.dvae_kernel":
        other: Any = 5
    elif get_origin(kind) is not None and isinstance(value, str):  # a choice
        other = next(choice for choice in get_args(kind) if choice != value)
    elif isinstance(value, bool):
        other = not value
    elif value is None and float in get_args(kind):
        other = 0.5
    elif name == "data.scene_objects":  # always two
        other = (1, 6)
    elif isinstance(value, tuple):
        other = (*value, 1)
    elif isinstance(value, float):
        other = value / 2 or 0.5
    elif isinstance(value, int):
        other = value * 2 or 7
    else:
        other = f"{value}x"
    return with_field(recipe, name.split("."), other)


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    recipe = RECIPES[name]()
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.hash == recipe.hash
    assert re.fullmatch("[0-9a-f]{12}", recipe.hash)


@pytest.mark.parametrize(("make", "name"), [case for case in CASES if case.values[1] not in FIXED])
def test_hash_and_differences_see_every_field(make: Callable[[], Recipe], name: str) -> None:
    recipe = make()
    other = changed(recipe, name)
    assert other != recipe
    assert Recipe.from_json(other.to_json()) == other
    assert (other.hash == recipe.hash) == (name in NOT_HASHED)
    assert any(line.startswith(f"{name}: ") for line in differences(recipe, other))


@pytest.mark.parametrize(
    "recipe",
    [demo(), tiny_transformer(), room_chair_radiance()],
    ids=["mixture", "transformer", "radiance"],
)
def test_the_loop_over_fields_missed_none(recipe: Recipe) -> None:
    def walk(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    expected = ["name", "seed", *leaves({**SECTIONS, "model": type(recipe.model)})]
    assert sorted(walk(json.loads(recipe.to_json()))) == sorted(expected)


def test_old_recipes_keep_their_hash() -> None:
    assert {name: RECIPES[name]().hash for name in FIRST_HASHES} == FIRST_HASHES
    recipe = demo()
    short = replace(recipe, seed=5, train=replace(recipe.train, steps=7, half_life_steps=3))
    assert short.hash == "5dd400237d54"


def test_a_recipe_of_the_first_version_is_read_as_it_was_meant() -> None:
    """Without `model.kind` and what else was added since."""
    values = json.loads(demo().to_json())
    del values["model"]["kind"], values["train"]["dvae"], values["train"]["patience"], values["train"]["clip_norm_type"]
    assert Recipe.from_json(json.dumps(values)) == demo()


def test_the_kind_chooses_the_fields() -> None:
    recipe = tiny_transformer()
    values = json.loads(recipe.to_json())
    assert values["model"]["kind"] == "transformer"
    assert isinstance(Recipe.from_json(recipe.to_json()).model, TransformerRecipe)
    del values["model"]["kind"]
    with pytest.raises(RecipeError, match=r"recipe\.model has unknown fields .*vocab_size"):
        Recipe.from_json(json.dumps(values))
    values["model"]["kind"] = "slate"
    with pytest.raises(RecipeError, match=r"recipe\.model\.kind is 'slate'; expected one of 'mixture', 'transformer'"):
        Recipe.from_json(json.dumps(values))


def test_differences_between_kinds_name_what_is_absent() -> None:
    lines = differences(demo(), tiny_transformer())
    assert "model.vocab_size: absent -> 1024" in lines
    assert "model.decoder_grid: 8 -> absent" in lines
    assert "model.kind: mixture -> transformer" in lines
    assert not any(line.startswith("model.num_slots") for line in lines)


def test_differences_read_well() -> None:
    recipe = demo()
    assert differences(recipe, recipe) == []
    other = replace(recipe, seed=3, train=replace(recipe.train, steps=100))
    assert differences(recipe, other) == [f"train.steps: {recipe.train.steps} -> 100", "seed: 0 -> 3"]


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_unknown_field(section: str) -> None:
    values = json.loads(demo().to_json())
    section_of(values, f"{section}.stepz".lstrip("."))["stepz"] = 5
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


@pytest.mark.parametrize(("make", "name"), CASES)
def test_wrong_type(make: Callable[[], Recipe], name: str) -> None:
    values = json.loads(make().to_json())
    section, field = section_of(values, name), name.rpartition(".")[2]
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
        ("train.half_life_steps", -1, "train.half_life_steps is -1"),
        ("train.patience", -1, "train.patience is -1; it must be at least 0"),
        ("train.clip_norm_type", "1", "expected one of '2', 'inf'"),
        ("train.query_update", "mean", "expected one of 'gradient', 'running_mean', 'kmeans'"),
        ("train.query_momentum", 0.0, "train.query_momentum is 0.0; it must be above 0"),
        ("train.query_momentum", 1.5, "train.query_momentum is 1.5; it must be between 0 and 1"),
        (
            "train.query_momentum",
            0.1,
            "train.query_update 'gradient' does not have; pass .* or kmeans, or leave it at 1",
        ),
        ("train.consistency_weight", -0.1, "train.consistency_weight is -0.1; it must be at least 0"),
        ("train.dvae.learning_rate", float("inf"), "train.dvae.learning_rate is inf; it must be finite"),
        ("train.dvae.tau_start", 0.0, "train.dvae.tau_start is 0.0; it must be above 0"),
        ("train.dvae.tau_steps", -1, "train.dvae.tau_steps is -1"),
        ("evaluate.select_by", "iou", "not a metric of evaluate.task 'multi_object'"),
        ("evaluate.task", "instances", "use ari_fg with multi_object, iou with foreground, ap with instances"),
        ("evaluate.validation_limit", -1, "evaluate.validation_limit is -1"),
    ],
)
def test_wrong_value(name: str, wrong: Any, message: str) -> None:
    values = json.loads(demo().to_json())
    section_of(values, name)[name.rpartition(".")[2]] = wrong
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(json.dumps(values))


@pytest.mark.parametrize("queries", ["shared_gaussian", "independent_gaussians"])
@pytest.mark.parametrize(
    ("field", "value", "back"),
    [
        ("query_update", "running_mean", "gradient"),
        ("query_update", "kmeans", "gradient"),
        ("consistency_weight", 0.1, 0),
    ],
)
@pytest.mark.parametrize("recipe", [demo(), tiny_transformer()], ids=["mixture", "transformer"])
def test_what_moves_queries_needs_learned_ones(recipe: Recipe, field: str, value: Any, back: Any, queries: str) -> None:
    moved = replace(recipe, train=replace(recipe.train, **{field: value}))
    option = field.replace("_", "-")
    message = rf"train\.{field} is {value!r} and needs learned queries.* '{queries}'.*--train\.{option} {back}\.$"
    with pytest.raises(RecipeError, match=message):
        replace(moved, model=replace(recipe.model, queries=queries))


def test_queries_without_a_gradient_have_no_consistency_loss() -> None:
    with pytest.raises(RecipeError, match=r"consistency_weight is 0\.01, but train\.query_update 'kmeans' gives .* no"):
        TrainRecipe(query_update="kmeans", consistency_weight=0.01)
    assert TrainRecipe(query_update="kmeans", query_momentum=0.1).consistency_weight == 0


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("vocab_size", 1, "model.vocab_size is 1; it must be at least 2"),
        ("width", 30, "model.width 30 cannot be divided into model.heads 4"),
        ("heads", 0, "model.heads is 0"),
        ("dropout", 1.0, "model.dropout is 1.0; it must be between 0 and 0.99"),
        ("dvae_kernel", 2, "model.dvae_kernel is 2; it must be odd"),
        ("features", "pixels", "model.features is 'pixels'; pass one of 'image', 'tokens'"),
        ("keys_and_values", "both", "model.keys_and_values is 'both'; pass one of 'folded', 'projected'"),
        ("kind", "mixture", "model.kind is 'mixture'; pass one of 'transformer'"),
    ],
)
def test_wrong_value_of_a_transformer(field: str, wrong: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TransformerRecipe(**{field: wrong})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near": 20.0}, "model.near is 20.0 and model.far is 20.0; near must be in front of far"),
        ({"near": 0.0}, "model.near is 0.0; it must be above 0"),
        ({"far": float("inf")}, "model.far is inf; it must be finite"),
        ({"box_bottom": 1.0, "box_top": 1.0}, r"z = 1.0 \(model.box_bottom\) up to 1.0 \(model.box_top\)"),
        ({"box_bottom": 4.5}, r"z = 4.5 \(model.box_bottom\) up to 4.5 \(model.box_top\)"),  # the cube's
        ({"box_top": -5.0}, r"z = -4.5 \(model.box_bottom\) up to -5.0"),
        ({"box_bottom": float("nan")}, "z = nan"),
        ({"box_top": float("inf")}, "up to inf .* give finite heights in world units, the top above the bottom"),
        ({"box_bottom": -float("inf")}, "z = -inf"),
    ],
)
def test_wrong_value_of_a_radiance_model(changes: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        RadianceRecipe(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", r"recipe is \[\]; expected an object"),
        ('{"name": "x"}', "recipe is incomplete: .*'data'"),
        ('{"name": "x", "data": {"name": "y"}}', "recipe.data is incomplete: .*'image_size'"),
        ('{"name": "x", "data": 3}', "recipe.data is 3; expected an object"),
        ('{"name": "x", "model": 3}', "recipe.model is 3; expected an object with the fields of MixtureRecipe"),
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
