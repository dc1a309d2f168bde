"""Recipes for two CPU cores: the demo, and small versions of the paper's synthetic rows."""

from dataclasses import replace

from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, MixtureRecipe, Recipe, TrainRecipe

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
