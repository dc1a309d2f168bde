"""Recipes for two CPU cores: the demo, and small versions of the paper's rows.

The small versions show the whole path on a CPU, not the paper's scores.
"""

from dataclasses import replace

from boqsa.recipes import slate, transformer
from boqsa.recipes.models import MixtureRecipe, TransformerRecipe
from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, Recipe
from boqsa.recipes.training import DVAETrainRecipe, TrainRecipe

_SMALL = MixtureRecipe(
    slot_size=32,
    mlp_size=64,
    encoder_channels=(32,) * 3,
    encoder_strides=(1, 2, 1),
    decoder_channels=(32, 16),
    decoder_strides=(2, 2),
    iterations=5,
    perturbation="additive",
    drop_path=0.0,
)
"""Five iterations, not three: the early ones need no graph and cost little. A narrow decoder and small slots: slots
that can paint much keep a region of the picture, whatever is in it. Additive noise (the paper's words): it is larger
than fresh queries, so that none can take a region before it sees objects; multiplicative noise leaves each its
direction."""

_MINUTES = TrainRecipe(
    steps=13_000,
    batch_size=16,
    learning_rate=2e-3,
    warmup_steps=200,
    half_life_steps=6_000,
    sigma_steps=3_000,
    precision="bf16",
    device="cpu",
    checkpoint_every=1_000,
    evaluate_every=1_000,
    log_every=50,
)


def demo() -> Recipe:
    """Scenes of the built-in renderer, 32x32, 2 to 4 objects, 5 slots; minutes on two cores."""
    return Recipe(
        name="demo",
        data=DataRecipe(name="scenes", image_size=32),
        model=_SMALL,
        train=_MINUTES,
        evaluate=EvaluateRecipe(validation_limit=256),
        seed=0,
    )


def objectsroom_mixture_small() -> Recipe:
    """ObjectsRoom at 32x32 with the demo's network: shows the whole path on a CPU, not the paper's score."""
    return replace(demo(), name="objectsroom_mixture_small", data=DataRecipe(name="objectsroom", image_size=32))


def shapestacks_mixture_small() -> Recipe:
    """ShapeStacks at 32x32 with the demo's network and 7 slots: up to six objects and the background."""
    return replace(
        demo(),
        name="shapestacks_mixture_small",
        data=DataRecipe(name="shapestacks", image_size=32),
        model=replace(_SMALL, num_slots=7),
    )


_SMALL_TRANSFORMER = TransformerRecipe(
    slot_size=64,
    mlp_size=128,
    vocab_size=256,
    width=64,
    blocks=2,
    heads=4,
    dropout=0.0,
    dvae_channels=32,
    encoder_channels=(32,) * 2,
    encoder_strides=(2, 1),
)
"""No dropout: with PyTorch's own, used when this was settled, it cost a third of a step on a CPU. Two layers, so
that a token sees 13 of 64 pixels: with three (21 pixels) masks learned slower and kept a wide margin (docs/results.md).
"""

_HOUR_TRANSFORMER = TrainRecipe(
    steps=20_000,
    batch_size=16,
    learning_rate=3e-4,
    warmup_steps=500,
    half_life_steps=10_000,
    dvae=DVAETrainRecipe(learning_rate=3e-3, half_life_steps=6_000, tau_end=0.5, tau_steps=4_000),
    sigma_steps=2_000,
    flip=True,
    least_crop=0.6,
    precision="bf16",
    device="cpu",
    checkpoint_every=500,
    evaluate_every=1_000,
    log_every=50,
)
"""Over an hour on one core. The dVAE's temperature ends at 0.5, not 0.1: in so few steps a colder one leaves a
handful of tokens in use. A rate three times as high finds things sooner and then loses them (docs/results.md)."""

_SMALL_TRANSFORMER_SIZE = 64
"""Height and width of the images of the small transformer recipes, in pixels."""


def birds_transformer_small() -> Recipe:
    """BO-QSA (transformer) on Birds with a narrow network, 64x64, 3 slots."""
    return _small(transformer.birds_transformer())


def dogs_transformer_small() -> Recipe:
    """BO-QSA (transformer) on Dogs with a narrow network, 64x64, 2 slots."""
    return _small(transformer.dogs_transformer())


def cars_transformer_small() -> Recipe:
    """BO-QSA (transformer) on Cars with a narrow network, 64x64, 2 slots, queries not perturbed."""
    return _small(transformer.cars_transformer())


def flowers_transformer_small() -> Recipe:
    """BO-QSA (transformer) on Flowers with a narrow network, 64x64, 2 slots, queries not perturbed."""
    return _small(transformer.flowers_transformer())


def ycb_transformer_small() -> Recipe:
    """BO-QSA (transformer) on YCB with a narrow network, 64x64, 6 slots."""
    return _small(transformer.ycb_transformer())


def scannet_transformer_small() -> Recipe:
    """BO-QSA (transformer) on ScanNet with a narrow network, 64x64, 6 slots."""
    return _small(transformer.scannet_transformer())


def coco_transformer_small() -> Recipe:
    """BO-QSA (transformer) on COCO with a narrow network, 64x64, 6 slots."""
    return _small(transformer.coco_transformer())


def objectsroom_transformer_small() -> Recipe:
    """BO-QSA (transformer) on ObjectsRoom with a narrow network, 64x64, 6 slots."""
    return _small(transformer.objectsroom_transformer())


def shapestacks_transformer_small() -> Recipe:
    """BO-QSA (transformer) on ShapeStacks with a narrow network, 64x64, 12 slots."""
    return _small(transformer.shapestacks_transformer())


def photographs_transformer_small() -> Recipe:
    """BO-QSA (transformer) on a packed `folder` of one's own, 64x64, 2 slots: no masks needed."""
    return _small(transformer.photographs_transformer())


def shapestacks_slate_small() -> Recipe:
    """SLATE on ShapeStacks with a narrow network, 64x64, 12 slots."""
    return _small_slate(slate.shapestacks_slate())


def objectsroom_slate_small() -> Recipe:
    """SLATE on ObjectsRoom with a narrow network, 64x64, 6 slots."""
    return _small_slate(slate.objectsroom_slate())


def birds_slate_small() -> Recipe:
    """SLATE on Birds with a narrow network, 64x64, 3 slots."""
    return _small_slate(slate.birds_slate())


def dogs_slate_small() -> Recipe:
    """SLATE on Dogs with a narrow network, 64x64, 2 slots."""
    return _small_slate(slate.dogs_slate())


def cars_slate_small() -> Recipe:
    """SLATE on Cars with a narrow network, 64x64, 2 slots."""
    return _small_slate(slate.cars_slate())


def flowers_slate_small() -> Recipe:
    """SLATE on Flowers with a narrow network, 64x64, 2 slots."""
    return _small_slate(slate.flowers_slate())


def shapestacks_slate_boqsa_small() -> Recipe:
    """SLATE with BO-QSA's queries and gradient, on ShapeStacks with a narrow network, 64x64, 12 slots."""
    return _small_slate(slate.shapestacks_slate_boqsa())


def _small(recipe: Recipe) -> Recipe:
    """A transformer recipe of the paper, with the small sizes and the short training.

    Where photographs show one thing, queries are not perturbed: it undid their masks in trial runs (docs/results.md).
    """
    perturbs = recipe.train.sigma_steps > 0 and recipe.evaluate.task != "foreground"
    return replace(
        recipe,
        name=f"{recipe.name}_small",
        data=replace(recipe.data, image_size=_SMALL_TRANSFORMER_SIZE),
        model=replace(_SMALL_TRANSFORMER, num_slots=recipe.model.num_slots),
        train=_HOUR_TRANSFORMER if perturbs else replace(_HOUR_TRANSFORMER, sigma_steps=0),
        evaluate=replace(recipe.evaluate, validation_limit=256),
        seed=0,
    )


def _small_slate(recipe: Recipe) -> Recipe:
    """The same for SLATE: what makes it SLATE stays, but rates and schedules are those of the other small recipes."""
    small, published = _small(recipe), recipe.model
    if not isinstance(published, TransformerRecipe):
        raise TypeError(f"{recipe.name} is not a recipe of a transformer model.")
    model = replace(
        _SMALL_TRANSFORMER,
        num_slots=published.num_slots,
        iterations=published.iterations,
        dvae_kernel=published.dvae_kernel,
        queries=published.queries,
        gradient=published.gradient,
        epsilon=published.epsilon,
        epsilon_form=published.epsilon_form,
        drop_path=published.drop_path,
        features=published.features,
    )
    return replace(small, model=model, train=replace(small.train, clip_norm_type=recipe.train.clip_norm_type))
