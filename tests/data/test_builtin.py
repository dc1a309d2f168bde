from pathlib import Path

import numpy as np
import pytest

from boqsa.data import PackedDataset
from boqsa.data.builtin import TEST_SCENES, VALIDATION_SCENES, cache_folder, scene_parameters
from boqsa.data.packing import write_packed
from boqsa.data.raycast import ABSENT
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError

SETTINGS = SceneSettings(image_size=16, max_objects=3, supersample=1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes a split, each from where the built-in set has it in the sequence of seed 4."""
    folder = tmp_path_factory.mktemp("scenes") / "packed"
    starts = {"test": 0, "val": TEST_SCENES, "train": TEST_SCENES + VALIDATION_SCENES}
    scenes = {split: render_scenes(6, seed=4, settings=SETTINGS, start=start) for split, start in starts.items()}
    splits = {split: (drawn.image[:, 0], drawn.mask[:, 0]) for split, drawn in scenes.items()}
    write_packed(folder, splits, name="scenes", source="drawn", licence="none", task="multi-object", split_rule="drawn")
    return folder


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_numbers_belong_to_the_packed_scenes(packed: Path, split: str) -> None:
    data = PackedDataset(packed, split)
    found = scene_parameters(data, 5, seed=4, settings=SETTINGS)
    assert found.kind.shape == (5, 3)
    # With one ray a pixel, an object's pixels are its colour times a brightness; 8 bits turn a bright one by little.
    for scene, sample in enumerate(data[index] for index in range(5)):
        for slot in np.flatnonzero(found.kind[scene] != ABSENT):
            pixels = sample["image"][:, sample["mask"] == slot + 1].double().numpy()
            brightest = pixels[:, pixels.sum(axis=0).argmax()]
            cosine = brightest @ found.colour[scene, slot] / np.linalg.norm(brightest)
            assert cosine / np.linalg.norm(found.colour[scene, slot]) > 0.9995


def test_other_scenes_are_refused(packed: Path) -> None:
    data = PackedDataset(packed, "val")
    for wrong in ({"seed": 5, "settings": SETTINGS}, {"seed": 4}):
        with pytest.raises(InputError, match="the masks differ; pass the seed"):
            scene_parameters(data, 5, **wrong)
    with pytest.raises(InputError, match="has no 7 built-in scenes"):
        scene_parameters(data, 7, seed=4, settings=SETTINGS)


@pytest.mark.parametrize(
    ("ours", "shared", "expected"),
    [
        ("/ours", "/shared", "/ours"),
        ("ours", None, "ours"),
        (None, "/shared", "/shared/boqsa"),
        ("", "/shared", "/shared/boqsa"),
        (None, None, "/home/me/.cache/boqsa"),
        (None, "", "/home/me/.cache/boqsa"),
        ("", "", "/home/me/.cache/boqsa"),
        (None, "relative", "/home/me/.cache/boqsa"),
    ],
)
def test_where_the_cache_is(
    ours: str | None, shared: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("BOQSA_CACHE", ours), ("XDG_CACHE_HOME", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
