"""Tiny recipes of both models, 16x16, with steps of milliseconds."""

import pytest

from boqsa.recipes import DataRecipe, MixtureRecipe, Recipe, TrainRecipe, TransformerRecipe


@pytest.fixture
def mixture_recipe() -> Recipe:
    return Recipe(
        name="tiny",
        data=DataRecipe(name="arrays", image_size=16),
        model=MixtureRecipe(
            num_slots=3,
            slot_size=8,
            mlp_size=16,
            encoder_channels=(4, 6),
            encoder_strides=(2, 1),
            decoder_channels=(5, 4),
            decoder_strides=(2, 1),
            iterations=3,
        ),
        train=TrainRecipe(batch_size=4, device="cpu"),
    )


@pytest.fixture
def transformer_recipe() -> Recipe:
    return Recipe(
        name="tiny_transformer",
        data=DataRecipe(name="arrays", image_size=16),
        model=TransformerRecipe(
            num_slots=3,
            slot_size=8,
            mlp_size=16,
            vocab_size=12,
            width=16,
            blocks=2,
            heads=2,
            dropout=0.0,
            encoder_channels=(4,),
            encoder_strides=(1,),
            dvae_channels=8,
        ),
        train=TrainRecipe(batch_size=4, device="cpu"),
    )
