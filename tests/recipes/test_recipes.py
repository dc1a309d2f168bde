"""The recipes by name: published constants, and models of the published sizes."""

from dataclasses import replace
from inspect import getdoc

import pytest
import torch
from torch import nn

from boqsa.data import CATALOG
from boqsa.errors import RecipeError
from boqsa.inference.load import build_model
from boqsa.recipes import RECIPES, DVAETrainRecipe, FeaturesRecipe, TrainRecipe, TransformerRecipe, get_recipe
from boqsa.training.schedules import learning_rate_factor

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

# The same for transformers: data, size, slots, N_sigma, selection metric, parameters (3.10).
TRANSFORMERS = {
    "birds_transformer": ("birds", 128, 3, 30_000, "iou", 6_693_955),
    "dogs_transformer": ("dogs", 128, 2, 30_000, "iou", 6_693_699),
    "cars_transformer": ("cars", 128, 2, 0, "iou", 6_693_699),
    "flowers_transformer": ("flowers", 128, 2, 0, "iou", 6_693_699),
    "ycb_transformer": ("ycb", 128, 6, 30_000, "ap", 6_694_723),
    "scannet_transformer": ("scannet", 128, 6, 30_000, "ap", 6_694_723),
    "coco_transformer": ("coco", 128, 6, 30_000, "ap", 6_694_723),
    "objectsroom_transformer": ("objectsroom", 64, 6, 30_000, "ari_fg", 6_498_115),
    "shapestacks_transformer": ("shapestacks", 128, 12, 30_000, "ari_fg", 6_696_259),
    "photographs_transformer": ("folder", 128, 2, 30_000, "iou", 6_693_699),
}

# SLATE (Table 13, A.3.4): data, size, slots, selection metric.
SLATE = {
    "shapestacks_slate": ("shapestacks", 96, 12, "ari_fg"),
    "objectsroom_slate": ("objectsroom", 64, 6, "ari_fg"),
    "birds_slate": ("birds", 128, 3, "iou"),
    "dogs_slate": ("dogs", 128, 2, "iou"),
    "cars_slate": ("cars", 128, 2, "iou"),
    "flowers_slate": ("flowers", 128, 2, "iou"),
    "shapestacks_slate_boqsa": ("shapestacks", 96, 12, "ari_fg"),
}

# Frozen features (baselines 7.1): data, slots, steps, selection metric.
FEATURES = {
    "coco_features": ("coco_instances", 7, 500_000, "ap"),
    "voc_features": ("folder", 6, 300_000, "ap"),
    "birds_features": ("birds", 3, 500_000, "iou"),
}


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_recipe_is_in_a_table_here() -> None:
    large = TRANSFORMERS.keys() | SLATE.keys()
    others = {name for name in RECIPES if "_radiance" in name}  # tests/training/radiance has theirs
    others |= FEATURES.keys() | {"folder_features_small"}
    assert set(RECIPES) == PUBLISHED.keys() | SMALL.keys() | large | {f"{name}_small" for name in large} | others


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


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_published_constants_of_transformers(name: str) -> None:
    data, size, slots, sigma_steps, metric, count = TRANSFORMERS[name]
    recipe = get_recipe(name)
    train = recipe.train
    assert (recipe.data.name, recipe.data.image_size, recipe.model.num_slots) == (data, size, slots)
    assert recipe.model == TransformerRecipe(num_slots=slots)
    assert (train.sigma_steps, recipe.evaluate.select_by) == (sigma_steps, metric)
    # 5.2 and 5.3; the dVAE has its own rate
    assert (train.learning_rate, train.warmup_steps, train.half_life_steps) == (1e-4, 10_000, 50_000)
    assert train.dvae == DVAETrainRecipe()
    assert (train.batch_size, train.steps, train.clip_norm, train.clip_norm_type) == (128, 250_000, 1.0, "2")
    assert (train.patience, train.precision, recipe.seed) == (0, "fp32", 42)
    with torch.device("meta"):
        assert parameters(build_model(recipe)) == count


def test_defaults_are_the_constants_of_table_12_and_spec_3() -> None:
    model, dvae = TransformerRecipe(), DVAETrainRecipe()
    assert (model.slot_size, model.mlp_size, model.width, model.vocab_size) == (256, 256, 256, 1024)
    assert (model.blocks, model.heads, model.dropout, model.dvae_kernel) == (4, 4, 0.1, 3)
    assert (model.encoder_channels, model.encoder_strides, model.iterations) == ((64,) * 4, (1,) * 4, 3)
    assert (model.queries, model.gradient, model.epsilon, model.epsilon_form) == ("learned", "bilevel", 1.0, "sum")
    assert (model.perturbation, model.drop_path, model.features) == ("multiplicative", 0.2, "image")
    assert (dvae.learning_rate, dvae.warmup_steps, dvae.half_life_steps) == (3e-4, 0, 50_000)
    assert (dvae.tau_start, dvae.tau_end, dvae.tau_steps) == (1.0, 0.1, 30_000)


@pytest.mark.parametrize("name", SLATE)
def test_constants_of_slate(name: str) -> None:
    data, size, slots, metric = SLATE[name]
    recipe = get_recipe(name)
    model, train = recipe.model, recipe.train
    assert isinstance(model, TransformerRecipe)
    assert (recipe.data.name, recipe.data.image_size, model.num_slots) == (data, size, slots)
    assert recipe.evaluate.select_by == metric
    # baselines 3.7 to 3.11
    assert (model.slot_size, model.mlp_size, model.width, model.vocab_size) == (192, 192, 192, 1024)
    assert (model.blocks, model.heads, model.dropout, model.dvae_kernel) == (4, 4, 0.1, 1)
    assert (model.features, model.epsilon, model.epsilon_form, model.drop_path) == ("tokens", 1e-8, "entry", 0.0)
    assert (train.learning_rate, train.warmup_steps, train.half_life_steps) == (1e-4, 30_000, 0)
    assert train.dvae == DVAETrainRecipe(half_life_steps=0)
    assert (train.patience, train.clip_norm, train.clip_norm_type) == (4, 1.0, "inf")
    assert (train.batch_size, train.steps) == (50, 250_000)
    ours = name.endswith("_boqsa")
    assert (model.queries, model.gradient) == (("learned", "bilevel") if ours else ("shared_gaussian", "unrolled"))
    assert train.sigma_steps == (30_000 if ours else 0)


def test_parameters_of_slate() -> None:
    """Baselines 3.16, for the public configuration."""
    recipe = get_recipe("objectsroom_slate")
    with torch.device("meta"):
        model = build_model(replace(recipe, model=replace(recipe.model, num_slots=3)))
    assert parameters(model) == 3_616_451
    assert parameters(model.dvae) == 285_635


@pytest.mark.parametrize("name", FEATURES)
def test_constants_of_features(name: str) -> None:
    data, slots, steps, metric = FEATURES[name]
    recipe = get_recipe(name)
    model, train = recipe.model, recipe.train
    assert (recipe.data.name, recipe.data.image_size, recipe.evaluate.select_by) == (data, 224, metric)
    assert model == FeaturesRecipe(num_slots=slots)
    # DINOSAUR's, and SPOT's of its second stage
    assert (model.patch_size, model.feature_size, model.slot_size, model.mlp_size) == (16, 768, 256, 1024)
    assert (model.decoder, model.decoder_size, model.decoder_layers) == ("mlp", 2048, 3)
    assert (model.blocks, model.heads, model.random_orders) == (4, 6, True)
    assert (model.epsilon, model.epsilon_form, model.drop_path) == (1e-8, "entry", 0.0)
    assert (model.queries, model.gradient, model.iterations) == ("learned", "bilevel", 3)
    assert (train.steps, train.batch_size, train.clip_norm, train.sigma_steps) == (steps, 64, 1.0, 0)
    for step in (10_000, 110_000, 310_000):  # their half-life counts from the end of the warm-up
        factor = learning_rate_factor(step, warmup_steps=train.warmup_steps, half_life_steps=train.half_life_steps)
        assert train.learning_rate * factor == pytest.approx(4e-4 * 0.5 ** ((step - 10_000) / 100_000))


def test_the_small_features_recipe_fits_two_cores() -> None:
    recipe = get_recipe("folder_features_small")
    assert recipe.train.device == "cpu"
    assert parameters(build_model(recipe)) < 2_000_000


@pytest.mark.parametrize("name", [*TRANSFORMERS, *SLATE])
def test_small_versions_compare_what_the_large_ones_do(name: str) -> None:
    large, small = get_recipe(name), get_recipe(f"{name}_small")
    for field in (
        "num_slots",
        "iterations",
        "dvae_kernel",
        "queries",
        "gradient",
        "epsilon",
        "epsilon_form",
        "drop_path",
        "features",
    ):
        assert getattr(small.model, field) == getattr(large.model, field), field
    assert small.data.name == large.data.name
    assert (small.evaluate.task, small.train.clip_norm_type) == (large.evaluate.task, large.train.clip_norm_type)
    has_one_thing = large.evaluate.task == "foreground"
    assert (small.train.sigma_steps > 0) == (large.train.sigma_steps > 0 and not has_one_thing)
    assert small.train.device == "cpu"
    assert small.data.image_size <= 64
    with torch.device("meta"):
        assert parameters(build_model(small)) < 1_000_000


@pytest.mark.parametrize("name", RECIPES)
def test_names_agree(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert recipe.data.name in CATALOG
    expected = {"ycb": "instances", "scannet": "instances", "coco": "instances", "folder": "foreground"}
    task = CATALOG[recipe.data.name].task.replace("-", "_")
    if recipe.model.kind == "radiance":
        assert recipe.evaluate.task == "multi_object"
        assert task in ("views", "multi_view", "multi_object"), task
    else:
        expected |= {"coco_instances": "instances"} if recipe.model.kind == "features" else {}
        expected |= {"folder": "instances"} if name == "voc_features" else {}
        assert recipe.evaluate.task == expected.get(recipe.data.name, task)
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
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=f"no recipe '{name}'; did you mean .*{hint}"):
        get_recipe(name)


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(RecipeError, match="no recipe 'zzzz'; `boqsa recipes` lists all"):
        get_recipe("zzzz")


@pytest.mark.parametrize("field", ["encoder_channels", "encoder_strides"])
def test_layers_have_positive_sizes(field: str) -> None:
    for name in ("demo", "birds_transformer"):
        with pytest.raises(RecipeError, match=rf"model.{field} is \(0, 1, 1, 1\); each must be at least 1"):
            replace(get_recipe(name).model, **{field: (0, 1, 1, 1)})
