"""The recipes by name: published constants, and models of the published sizes."""

from inspect import getdoc

import pytest
from torch import nn

from boqsa.data import CATALOG
from boqsa.errors import RecipeError
from boqsa.inference.load import build_model
from boqsa.recipes import RECIPES, TrainRecipe, get_recipe

SMALL_STRIDES = (1, 1, 1, 1), (2, 2, 2, 1, 1)
LARGE_STRIDES = (2, 1, 1, 1), (2, 2, 2, 2, 1)

# Section 9 of the specification: data, size, slots, (encoder strides, decoder strides), N_sigma, selection
# metric, parameters (2.7; two counts follow from it: 64 for each slot).
PUBLISHED = {
    "objectsroom_mixture": ("objectsroom", 64, 5, SMALL_STRIDES, 30_000, "ari_fg", 898_756),
    "shapestacks_mixture": ("shapestacks", 128, 8, LARGE_STRIDES, 30_000, "ari_fg", 898_948),
    "clevrtex_mixture": ("clevrtex_full", 128, 11, LARGE_STRIDES, 30_000, "ari_fg", 899_140),
    "ptr_mixture": ("ptr", 128, 7, LARGE_STRIDES, 30_000, "ari_fg", 898_884),
    "birds_mixture": ("birds", 128, 3, LARGE_STRIDES, 30_000, "iou", 898_628),
    "dogs_mixture": ("dogs", 128, 2, LARGE_STRIDES, 30_000, "iou", 898_564),
    "cars_mixture": ("cars", 128, 2, LARGE_STRIDES, 0, "iou", 898_564),
    "flowers_mixture": ("flowers", 128, 2, LARGE_STRIDES, 0, "iou", 898_564),
    # A mean and a width for each slot: 64 more for each.
    "objectsroom_slot_attention": ("objectsroom", 64, 5, SMALL_STRIDES, 0, "ari_fg", 899_076),
    "shapestacks_slot_attention": ("shapestacks", 128, 8, LARGE_STRIDES, 0, "ari_fg", 899_460),
}
SMALL = {"demo": 5, "objectsroom_mixture_small": 5, "shapestacks_mixture_small": 7}


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_recipe_is_in_a_table_here() -> None:
    assert set(RECIPES) == PUBLISHED.keys() | SMALL.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_constants(name: str) -> None:
    data, size, slots, strides, sigma_steps, metric, _ = PUBLISHED[name]
    recipe = get_recipe(name)
    model, train = recipe.model, recipe.train
    assert (recipe.data.name, recipe.data.image_size, model.num_slots) == (data, size, slots)
    assert (model.encoder_strides, model.decoder_strides) == strides
    assert (model.encoder_channels, model.decoder_channels) == ((64,) * 4, (64,) * 5)
    assert (model.slot_size, model.mlp_size, model.decoder_grid, model.iterations) == (64, 128, 8, 3)
    assert (train.sigma_steps, recipe.evaluate.select_by) == (sigma_steps, metric)
    assert (recipe.evaluate.task == "foreground") == (metric == "iou")
    # 5.1, 5.3, 5.4
    assert (train.learning_rate, train.batch_size, train.steps) == (4e-4, 128, 250_000)
    assert (train.warmup_steps, train.half_life_steps) == (5_000, 50_000)
    assert (train.clip_norm, train.precision, recipe.seed) == (1.0, "fp32", 42)


@pytest.mark.parametrize("name", PUBLISHED)
def test_how_slots_start_and_learn(name: str) -> None:
    model = get_recipe(name).model
    published = (model.queries, model.gradient, model.epsilon, model.epsilon_form, model.drop_path)
    if name.endswith("_slot_attention"):  # baselines 5.1
        assert published == ("independent_gaussians", "unrolled", 1e-8, "entry", 0.0)
        assert model.initial_weights == "torch"
    else:
        assert published == ("learned", "bilevel", 1.0, "sum", 0.2)
        assert (model.perturbation, model.initial_weights) == ("multiplicative", "published")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    model = build_model(get_recipe(name))
    assert parameters(model) == PUBLISHED[name][-1]
    assert parameters(model.encoder) == 312_256
    assert parameters(model.decoder) + parameters(model.decoder_position) == 514_948


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_fit_two_cores(name: str) -> None:
    recipe = get_recipe(name)
    assert (recipe.data.image_size, recipe.model.num_slots) == (32, SMALL[name])
    assert recipe.train.device == "cpu"
    assert parameters(build_model(recipe)) < 150_000


@pytest.mark.parametrize("name", RECIPES)
def test_names_agree(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert recipe.data.name in CATALOG
    assert recipe.evaluate.task == CATALOG[recipe.data.name].task.replace("-", "_")
    assert recipe.data.root is None
    assert getdoc(RECIPES[name])


def test_hashes_tell_recipes_apart() -> None:
    assert len({make().hash for make in RECIPES.values()}) == len(RECIPES)


def test_defaults_are_table_11() -> None:
    assert get_recipe("shapestacks_mixture").train == TrainRecipe()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dmo", "demo"),
        ("objectsroom", "objectsroom_mixture"),
        ("shapestack_mixture", "shapestacks_mixture"),
        ("zzzz", "demo, objectsroom_mixture_small"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=f"no recipe '{name}'; did you mean .*{hint}"):
        get_recipe(name)
