"""The built-in data set "scenes": rendered once by `boqsa.data.scenes`, packed, and cached by what defines it.

The cache is `$BOQSA_CACHE`, else `$XDG_CACHE_HOME/boqsa`, else `~/.cache/boqsa`; deleting it costs a minute.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from boqsa.atomic import one_process, recover_folder
from boqsa.data.manifest import FORMAT
from boqsa.data.packed import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.data.raycast import SceneParameters, draw_masks
from boqsa.data.scenes import SceneSettings, render_scenes, sample_scenes
from boqsa.errors import InputError

RENDERER = 4
"""Raise it when the renderer's pixels change: caches of older ones must not be taken for new."""

TEST_SCENES = 1_000
VALIDATION_SCENES = 512
_STARTS = {"test": 0, "val": TEST_SCENES, "train": TEST_SCENES + VALIDATION_SCENES}
"""Of each split in the seed's sequence."""
_PIECE = 1_024
"""Scenes rendered between two calls of `progress`."""


def cache_folder() -> Path:
    """Where rendered scenes are kept."""
    if "BOQSA_CACHE" in os.environ:
        return Path(os.environ["BOQSA_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "boqsa"


def builtin_scenes(
    settings: SceneSettings, *, count: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> Path:
    """A packed folder with `count` training scenes and fixed held-out ones; rendered at the first call.

    Held-out scenes come first in the seed's sequence (1,000 test, 512 val), so they are the same however many are
    trained on. A process that finds another one rendering the same scenes waits for it.

    Args:
        settings: What a scene looks like.
        count: Training scenes.
        seed: Of the renderer.
        progress: Called with (scenes done, scenes in all).

    Raises:
        InputError: if the cache folder cannot be written to; BOQSA_CACHE names another.
    """
    definition = {
        "format": FORMAT,
        "renderer": RENDERER,
        "settings": asdict(settings),
        "count": count,
        "seed": seed,
        "held_out": TEST_SCENES + VALIDATION_SCENES,
    }
    key = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:12]
    target = cache_folder() / f"scenes-{key}"
    if (target / "manifest.json").is_file():  # a cache that is only read needs no lock
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {target.parent}: {error.strerror}; set BOQSA_CACHE to a folder that is writable."
        ) from None
    with one_process(target.with_name(f".lock-{target.name}"), wait=True):
        recover_folder(target)
        if not (target / "manifest.json").is_file():
            _render(target, settings, count=count, seed=seed, progress=progress)
    return target


def scene_parameters(
    data: PackedDataset, count: int, *, seed: int = 0, settings: SceneSettings | None = None
) -> SceneParameters:
    """What the first scenes of a split of `builtin_scenes` hold, as numbers: kind, place and colour of each object.

    They are drawn again, which takes milliseconds a scene; the object at index k of a scene is label k + 1 of its mask.

    Args:
        data: A split of `builtin_scenes`.
        count: Scenes, from the first of the split.
        seed: That `data` was rendered with.
        settings: That `data` was rendered with; by default `SceneSettings` of its image size.

    Raises:
        InputError: if the masks of `data` are not those of these scenes: another seed, settings, or other data.
    """
    settings = settings or SceneSettings(image_size=data.image_size[0])
    if data.split not in _STARTS or not data.has_masks or not 1 <= count <= len(data):
        raise InputError(f"{data.path} ({data.split}) has no {count} built-in scenes with masks; it has {len(data)}.")
    parameters = sample_scenes(count, seed=seed, settings=settings, start=_STARTS[data.split])
    drawn = draw_masks(parameters, image_size=settings.image_size)[:, 0]
    if not np.array_equal(drawn, data.batch(range(count))["mask"].numpy()):
        raise InputError(
            f"{data.path} ({data.split}) does not hold the built-in scenes of seed {seed}: the masks differ; "
            "pass the seed and settings that it was rendered with."
        )
    return parameters


def _render(
    target: Path, settings: SceneSettings, *, count: int, seed: int, progress: Callable[[int, int], None] | None
) -> None:
    total = TEST_SCENES + VALIDATION_SCENES + count
    images = np.empty((total, 3, settings.image_size, settings.image_size), dtype=np.uint8)
    masks = np.empty((total, settings.image_size, settings.image_size), dtype=np.uint8)
    for start in range(0, total, _PIECE):
        size = min(_PIECE, total - start)
        scenes = render_scenes(size, seed=seed, settings=settings, start=start)
        images[start : start + size] = scenes.image[:, 0]
        masks[start : start + size] = scenes.mask[:, 0]
        if progress is not None:
            progress(start + size, total)
    ends = {"test": TEST_SCENES, "val": TEST_SCENES + VALIDATION_SCENES, "train": total}
    write_packed(
        target,
        {
            split: (images[_STARTS[split] : ends[split]], masks[_STARTS[split] : ends[split]])
            for split in ("train", "val", "test")
        },
        name="scenes",
        source=f"rendered by boqsa.data.scenes with seed {seed}",
        licence="Apache-2.0",
        task="multi-object",
        split_rule="in order of the renderer's sequence: test, val, train",
    )
