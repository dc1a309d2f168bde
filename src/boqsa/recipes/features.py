"""Slots on frozen features: DINOSAUR's constants (baselines 7.1) with the queries and the gradient of BO-QSA.

SPOT (baselines 7.2) joined the two first, for its second stage: learned queries, bi-level gradient, epsilon 1e-8 on
each entry, no drop-path, no noise on queries. Differences to DINOSAUR beside these: images are resized bilinearly, not
bicubically, and none is mirrored, for its features are computed once.

None of these was trained here with pretrained weights: none can be had where this package is made. Each is for DINO's
ViT-B/16; `--model.patch-size` and `--model.feature-size` take another encoder.
"""

from dataclasses import replace

from boqsa.recipes.models import FeaturesRecipe
from boqsa.recipes.recipe import DataRecipe, EvaluateRecipe, Recipe
from boqsa.recipes.training import TrainRecipe

_INSTANCES = EvaluateRecipe(task="instances", select_by="ap")

_DINOSAUR = TrainRecipe(
    steps=500_000,
    batch_size=64,
    learning_rate=4e-4 * 2**0.1,
    warmup_steps=10_000,
    half_life_steps=100_000,
    sigma_steps=0,
)
"""Theirs halves from the end of the warm-up on, ours from step 0: the factor 2^0.1 makes both equal from there on."""


def coco_features() -> Recipe:
    """COCO, 7 slots, MLP decoder. SPOT, which is nearest: mBO of instances 34.9 with its own decoder and two stages."""
    return Recipe(
        name="coco_features",
        data=DataRecipe(name="coco_instances", image_size=224),
        model=FeaturesRecipe(num_slots=7),
        train=_DINOSAUR,
        evaluate=_INSTANCES,
    )


def voc_features() -> Recipe:
    """PASCAL VOC 2012 as a packed `folder`, 6 slots, scored on val. SPOT, which is nearest: mBO of instances 48.6."""
    return replace(
        coco_features(),
        name="voc_features",
        data=DataRecipe(name="folder", image_size=224, test_split="val"),
        model=FeaturesRecipe(num_slots=6),
        train=replace(_DINOSAUR, steps=300_000),
    )


def birds_features() -> Recipe:
    """Birds, 3 slots, scored as foreground as in the paper's Table 5; nobody has published a score of this."""
    return replace(
        coco_features(),
        name="birds_features",
        data=DataRecipe(name="birds", image_size=224),
        model=FeaturesRecipe(num_slots=3),
        evaluate=EvaluateRecipe(task="foreground", select_by="iou"),
    )


def folder_features_small() -> Recipe:
    """Photographs of one's own, one thing a picture, 2 slots, features of a ViT-S/16 at 224x224; for two CPU cores."""
    return Recipe(
        name="folder_features_small",
        data=DataRecipe(name="folder", image_size=224),
        model=FeaturesRecipe(
            feature_size=384, num_slots=2, slot_size=128, mlp_size=512, decoder_size=512, decoder_layers=2
        ),
        train=TrainRecipe(
            steps=10_000,
            batch_size=16,
            learning_rate=4e-4,
            warmup_steps=500,
            half_life_steps=5_000,
            sigma_steps=0,
            device="cpu",
            checkpoint_every=500,
            evaluate_every=1_000,
            log_every=50,
        ),
        evaluate=EvaluateRecipe(task="foreground", select_by="iou", batch_size=16, validation_limit=256),
    )
