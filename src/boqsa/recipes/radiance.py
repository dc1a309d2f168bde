"""Recipes of radiance models: the three of Table 19, at the paper's full and half schedules, and small ones.

In steps all three data sets agree: the perceptual loss from 100,000, objects free of their box from 300,000, the fine
stage from 600,000, the end at 1,200,000 (uorf 9). The half schedules scale every threshold by a half, and leave the
decay of the learning rate as it is (uorf 12.10).
"""

from dataclasses import replace

from boqsa.recipes.models import RadianceRecipe
from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, RadianceEvaluateRecipe, Recipe
from boqsa.recipes.training import RadianceTrainRecipe, TrainRecipe

_TRAIN = TrainRecipe(
    steps=1_200_000,
    batch_size=1,
    learning_rate=3e-4,
    warmup_steps=1_000,
    half_life_steps=200_000,
    clip_norm=0.0,
    sigma_steps=0,
    checkpoint_every=5_000,
    evaluate_every=50_000,
    log_every=500,
    radiance=RadianceTrainRecipe(),
)
_EVALUATE = EvaluateRecipe(validation_limit=16)
_FOCAL = 1 / (2 * 0.46)
"""Of the built-in renderer (`boqsa.data.raycast`)."""
_IN_A_ROOM = RadianceRecipe(
    input_size=32,
    num_slots=4,
    slot_size=32,
    focal_x=_FOCAL,
    focal_y=_FOCAL,
    near=3.0,
    far=11.5,
    scene_scale=4.0,
    box=3.2,
    box_bottom=-0.5,
    box_top=2.3,
    stay_in_box=True,
    object_frame="camera",
)
"""Of the small recipes: fields for the built-in rooms, and objects that never leave the box."""


def clevr567_radiance() -> Recipe:
    """uORF with BO-QSA on CLEVR-567."""
    return Recipe(
        name="clevr567_radiance",
        data=DataRecipe(name="clevr567", image_size=128),
        model=RadianceRecipe(num_slots=8, slot_size=40),
        train=_TRAIN,
        evaluate=_EVALUATE,
    )


def room_chair_radiance() -> Recipe:
    """uORF with BO-QSA on Room-Chair."""
    return Recipe(
        name="room_chair_radiance",
        data=DataRecipe(name="room_chair", image_size=128),
        model=RadianceRecipe(num_slots=5, slot_size=64),
        train=_TRAIN,
        evaluate=_EVALUATE,
    )


def room_diverse_radiance() -> Recipe:
    """uORF with BO-QSA on Room-Diverse, with a discriminator: epochs of 5,000 scenes, from epoch 20 and 25 on."""
    return Recipe(
        name="room_diverse_radiance",
        data=DataRecipe(name="room_diverse", image_size=128),
        model=RadianceRecipe(input_size=128, num_slots=5, slot_size=64, halved=True),
        train=replace(_TRAIN, radiance=RadianceTrainRecipe(adversarial_weight=0.01)),
        evaluate=_EVALUATE,
    )


def clevr567_radiance_half() -> Recipe:
    """Half of the epochs on CLEVR-567."""
    return half_schedule(clevr567_radiance())


def room_chair_radiance_half() -> Recipe:
    """Half of the epochs on Room-Chair."""
    return half_schedule(room_chair_radiance())


def room_diverse_radiance_half() -> Recipe:
    """Half of the epochs on Room-Diverse; the discriminator begins when it does in the whole schedule."""
    return half_schedule(room_diverse_radiance())


def clevr567_radiance_script() -> Recipe:
    """CLEVR-567 as the released script has it: coarse until epoch 150, where the text says 600 (uorf 12.10).

    Objects are then kept in their box for the first half of the fine stage.
    """
    recipe = clevr567_radiance()
    return replace(
        recipe,
        name="clevr567_radiance_script",
        train=replace(recipe.train, radiance=replace(recipe.train.radiance, fine_from=150_000)),
    )


def scenes_radiance_small() -> Recipe:
    """For two CPU cores: built-in scenes of two or three objects at 32x32, four slots, random rays.

    What departs from the published setting beside the sizes: many scenes a step with few rays each, a slow background,
    and objects that are described in the axes of the input camera and kept in a box that fits the room.
    """
    return Recipe(
        name="scenes_radiance_small",
        data=DataRecipe(name="scenes", image_size=32, scene_count=1_000, scene_objects=(2, 3), scene_views=4),
        model=_IN_A_ROOM,
        train=replace(
            _TRAIN,
            steps=12_000,
            batch_size=16,
            learning_rate=1e-3,
            warmup_steps=300,
            half_life_steps=20_000,
            device="cpu",
            checkpoint_every=2_000,
            evaluate_every=2_000,
            log_every=100,
            radiance=RadianceTrainRecipe(
                views=3,
                rays=64,
                samples=12,
                coarse_size=32,
                fine_from=0,
                local_until=0,
                perceptual_weight=0.0,
                background_rate=0.1,
            ),
        ),
        evaluate=EvaluateRecipe(validation_limit=16, radiance=RadianceEvaluateRecipe(views=4, size=32, samples=24)),
    )


def scenes_radiance_ci() -> Recipe:
    """Seconds on a CPU: the small recipe at 16x16, to try a change. It finds nothing."""
    small = scenes_radiance_small()
    return replace(
        small,
        name="scenes_radiance_ci",
        data=replace(small.data, image_size=16, scene_count=100, scene_views=2),
        model=replace(_IN_A_ROOM, input_size=16, num_slots=3, slot_size=16),
        train=replace(
            small.train,
            steps=100,
            batch_size=2,
            warmup_steps=20,
            half_life_steps=200,
            checkpoint_every=50,
            evaluate_every=50,
            log_every=10,
            radiance=replace(small.train.radiance, views=2, rays=32, samples=8),
        ),
        evaluate=EvaluateRecipe(validation_limit=4, radiance=RadianceEvaluateRecipe(views=2, size=16, samples=8)),
    )


def scenes_radiance_gpu_small() -> Recipe:
    """For one GPU: built-in scenes of two to four objects at 64x64, five slots, 4,096 random rays a step."""
    small = scenes_radiance_small()
    return replace(
        small,
        name="scenes_radiance_gpu_small",
        data=replace(small.data, image_size=64, scene_objects=(2, 4)),
        model=replace(_IN_A_ROOM, input_size=64, num_slots=5, slot_size=64),
        train=replace(
            small.train,
            steps=15_000,
            warmup_steps=1_000,
            device="auto",
            radiance=replace(small.train.radiance, views=4, rays=256, samples=48, coarse_size=64),
        ),
        evaluate=replace(small.evaluate, radiance=RadianceEvaluateRecipe(views=4, size=64, samples=96)),
    )


def half_schedule(recipe: Recipe) -> Recipe:
    """The recipe in half of its steps: every threshold but the discriminator's is halved, and no rate (uorf 12.10)."""
    of = recipe.train.radiance
    return replace(
        recipe,
        name=f"{recipe.name}_half",
        train=replace(
            recipe.train,
            steps=recipe.train.steps // 2,
            radiance=replace(
                of,
                perceptual_from=of.perceptual_from // 2,
                local_until=of.local_until // 2,
                fine_from=of.fine_from // 2,
            ),
        ),
    )
