"""A few built-in scenes of three views at 16x16, and a tiny recipe on them."""

from pathlib import Path

import numpy as np
import pytest

from boqsa.data import PackedDataset
from boqsa.data.packing import PackedWriter
from boqsa.data.readers.views import VIEW_EXTRAS, azimuth_rotation
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.recipes import (
    DataRecipe,
    EvaluateRecipe,
    RadianceEvaluateRecipe,
    RadianceRecipe,
    RadianceTrainRecipe,
    Recipe,
    TrainRecipe,
)

VIEWS = 3


@pytest.fixture(scope="session")
def packed_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes to train on, two each in val and test."""
    folder = tmp_path_factory.mktemp("views") / "packed"
    folder.mkdir()
    settings = SceneSettings(image_size=16, min_objects=2, max_objects=2, orbit=40.0)
    with PackedWriter(folder, (16, 16), extras=VIEW_EXTRAS) as writer:
        for start, (split, count) in enumerate((("train", 6), ("val", 2), ("test", 2))):
            scenes = render_scenes(count, seed=0, start=10 * start, settings=settings, views=VIEWS)
            camera = scenes.camera.reshape(-1, 4, 4)
            writer.append(
                split,
                scenes.image.reshape(-1, 3, 16, 16),
                scenes.mask.reshape(-1, 16, 16),
                extras={
                    "scene": np.repeat(np.arange(count, dtype=np.int32), VIEWS),
                    "camera": camera,
                    "azimuth": azimuth_rotation(camera),
                },
            )
        writer.finish(name="folder", source="drawn", licence="none", task="multi-object", split_rule="drawn")
    return folder


@pytest.fixture
def train_views(packed_views: Path) -> PackedDataset:
    return PackedDataset(packed_views, "train")


@pytest.fixture
def validation_views(packed_views: Path) -> PackedDataset:
    return PackedDataset(packed_views, "val")


@pytest.fixture(scope="session")
def radiance_recipe(packed_views: Path) -> Recipe:
    """Eight steps of two scenes, with random rays, a checkpoint every three."""
    return Recipe(
        name="tiny_radiance",
        data=DataRecipe(name="folder", root=str(packed_views), image_size=16),
        model=RadianceRecipe(
            input_size=16,
            num_slots=3,
            slot_size=8,
            focal_x=1.087,
            focal_y=1.087,
            near=2.0,
            far=12.0,
            scene_scale=4.0,
            box=3.6,
        ),
        train=TrainRecipe(
            steps=8,
            batch_size=2,
            learning_rate=1e-3,
            warmup_steps=2,
            half_life_steps=50,
            clip_norm=0.0,
            sigma_steps=0,
            device="cpu",
            checkpoint_every=3,
            evaluate_every=4,
            log_every=2,
            radiance=RadianceTrainRecipe(
                views=2,
                rays=40,
                samples=6,
                coarse_size=8,
                fine_size=16,
                crop=8,
                fine_from=6,
                local_until=4,
                perceptual_weight=0.0,
            ),
        ),
        evaluate=EvaluateRecipe(validation_limit=1, radiance=RadianceEvaluateRecipe(views=3, size=16, samples=6)),
        seed=3,
    )
