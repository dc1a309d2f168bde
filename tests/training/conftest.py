"""Tiny data and a tiny recipe: flat coloured squares on black, 16x16, and steps of milliseconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boqsa.data import PackedDataset
from boqsa.data.packing import CLASSES, PackedWriter, class_extra, write_packed
from boqsa.recipes import (
    DataRecipe,
    DVAETrainRecipe,
    EvaluateRecipe,
    MixtureRecipe,
    Recipe,
    TrainRecipe,
    TransformerRecipe,
)

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def draw_squares(count: int, *, seed: int, size: int = 16, side: int = 6) -> Arrays:
    """Two squares of different primary colours; the later one hides the earlier. Masks 0, 1, 2."""
    generator = np.random.default_rng(seed)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    images = np.zeros((count, 3, size, size), dtype=np.uint8)
    masks = np.zeros((count, size, size), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for label, colour in enumerate(generator.permutation(colours)[:2], start=1):
            top, left = generator.integers(0, size - side + 1, size=2)
            image[:, top : top + side, left : left + side] = colour[:, None, None]
            mask[top : top + side, left : left + side] = label
    return images, masks


@pytest.fixture(scope="session")
def squares() -> Callable[..., Arrays]:
    """`squares(count, seed=...)` gives images (N, 3, 16, 16) and masks (N, 16, 16)."""
    return draw_squares


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder of squares: 40 train, 12 val, 8 test, all with masks."""
    folder = tmp_path_factory.mktemp("squares") / "packed"
    splits = {name: draw_squares(count, seed=count) for name, count in (("train", 40), ("val", 12), ("test", 8))}
    write_packed(folder, splits, name="arrays", source="drawn", licence="none", task="multi-object", split_rule="drawn")
    return folder


@pytest.fixture(scope="session")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test squares alone, with their classes: red is 0, green and blue are 5; the last image's have none."""
    images, masks = draw_squares(8, seed=8)
    folder = tmp_path_factory.mktemp("classed")
    classes = np.full((8, 3), -1, np.int32)
    for index in range(7):
        for label in np.unique(masks[index][masks[index] > 0]):
            classes[index, label] = 0 if images[index, 0][masks[index] == label].any() else 5
    described = {"source": "drawn", "licence": "none", "split_rule": "drawn"}
    with PackedWriter(folder, (16, 16), extras={CLASSES: class_extra(2)}) as writer:
        writer.append("test", images, masks, extras={CLASSES: classes})
        writer.finish(name="arrays", task="multi-object", **described)
    return folder


@pytest.fixture
def train_data(packed: Path) -> PackedDataset:
    return PackedDataset(packed, "train")


@pytest.fixture
def validation_data(packed: Path) -> PackedDataset:
    return PackedDataset(packed, "val")


@pytest.fixture
def recipe(packed: Path) -> Recipe:
    """Twelve steps of eight images, a checkpoint every four."""
    return Recipe(
        name="tiny",
        data=DataRecipe(name="arrays", root=str(packed), image_size=16),
        model=MixtureRecipe(
            num_slots=3,
            slot_size=8,
            mlp_size=16,
            encoder_channels=(4,),
            encoder_strides=(2,),
            decoder_channels=(4,),
            decoder_strides=(2,),
            iterations=2,
        ),
        train=TrainRecipe(
            steps=12,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=2,
            half_life_steps=50,
            sigma_steps=8,
            device="cpu",
            checkpoint_every=4,
            evaluate_every=6,
            log_every=3,
        ),
        evaluate=EvaluateRecipe(batch_size=5, validation_limit=0),
        seed=3,
    )


@pytest.fixture
def transformer_recipe(recipe: Recipe) -> Recipe:
    """Six steps of eight images with a transformer model, dropout on, a checkpoint every three."""
    return replace(
        recipe,
        name="tiny_transformer",
        model=TransformerRecipe(
            num_slots=3,
            slot_size=8,
            mlp_size=16,
            vocab_size=12,
            width=16,
            blocks=2,
            heads=2,
            dropout=0.1,
            encoder_channels=(4,),
            encoder_strides=(1,),
            iterations=2,
        ),
        train=replace(
            recipe.train,
            steps=6,
            checkpoint_every=3,
            evaluate_every=2,
            log_every=2,
            dvae=DVAETrainRecipe(learning_rate=2e-3, half_life_steps=20, tau_steps=4),
        ),
    )


@pytest.fixture
def changed() -> Callable[..., Recipe]:
    """`changed(recipe, seed=4, train={"steps": 5})` gives the recipe with some fields replaced."""

    def change(recipe: Recipe, **fields: Any) -> Recipe:
        for name, value in fields.items():
            part = replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
            recipe = replace(recipe, **{name: part})
        return recipe

    return change
