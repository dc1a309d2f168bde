"""The built-in data set "scenes": rendered once by `boqsa.data.scenes`, packed, and cached by what defines it.

The cache is `$BOQSA_CACHE`, else `$XDG_CACHE_HOME/boqsa`, else `~/.cache/boqsa`; deleting it costs a minute. An empty
variable counts as unset, and so does, by the rule for it, an `XDG_CACHE_HOME` that is not absolute.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boqsa.atomic import atomic_folder, one_process, recover_folder
from boqsa.data.manifest import FORMAT
from boqsa.data.packed import PackedDataset
from boqsa.data.packing import Extra, PackedWriter
from boqsa.data.raycast import SceneParameters, draw_masks
from boqsa.data.readers.views import VIEW_EXTRAS, azimuth_rotation
from boqsa.data.scenes import Scenes, SceneSettings, render_scenes, sample_scenes
from boqsa.errors import InputError

RENDERER = 4
"""Raise it when the renderer's pixels change: caches of older ones must not be taken for new."""

TEST_SCENES = 1_000
VALIDATION_SCENES = 512
_STARTS = {"test": 0, "val": TEST_SCENES, "train": TEST_SCENES + VALIDATION_SCENES}
"""Of each split in the seed's sequence."""
_HELD_OUT_OF_VIEWS = {"test": 50, "val": 25}
"""Most held-out scenes of a set of several views, the first ones: each is rendered whole to score a model."""
_PIECE = 1_024
"""Scenes rendered between two calls of `progress`."""


def cache_folder() -> Path:
    """Where rendered scenes are kept."""
    if ours := os.environ.get("BOQSA_CACHE"):
        return Path(ours)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "boqsa"


def builtin_scenes(
    settings: SceneSettings,
    *,
    count: int,
    seed: int,
    views: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """A packed folder with `count` training scenes and fixed held-out ones; rendered at the first call.

    Held-out scenes come first in the seed's sequence (1,000 test, 512 val; of several views each 50 and 25), so they
    are the same however many are trained on. A process that finds another one rendering the same scenes waits for it.

    Args:
        settings: What a scene looks like.
        count: Training scenes.
        seed: Of the renderer.
        views: Cameras a scene. Several make the set one of views: those of a scene follow one another, each with
            `scene`, `camera`, `azimuth` and `depth`, as `boqsa.data.readers.views` has them.
        progress: Called with (scenes done, scenes in all).

    Raises:
        InputError: if the cache folder cannot be written to; BOQSA_CACHE names another.
    """
    drawn = asdict(settings)
    if settings.orbit == SceneSettings.orbit:
        del drawn["orbit"]  # caches from before there was a choice stay good
    definition = {
        "format": FORMAT,
        "renderer": RENDERER,
        "settings": drawn,
        "count": count,
        "seed": seed,
        "held_out": TEST_SCENES + VALIDATION_SCENES,
        **({"views": views, "held_out": _HELD_OUT_OF_VIEWS} if views > 1 else {}),
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
            _render(target, settings, count=count, seed=seed, views=views, progress=progress)
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
    if "scene" in data.manifest.extras:
        raise InputError(f"{data.path} has several views of each scene; only those of one view are drawn again.")
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
    target: Path,
    settings: SceneSettings,
    *,
    count: int,
    seed: int,
    views: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    size = (settings.image_size, settings.image_size)
    ends = {"train": _STARTS["train"] + count, "val": _STARTS["train"], "test": _STARTS["val"]}
    if views > 1:
        ends |= {split: min(ends[split], _STARTS[split] + most) for split, most in _HELD_OUT_OF_VIEWS.items()}
    total = sum(ends[split] - _STARTS[split] for split in ends)
    extras = VIEW_EXTRAS | {"depth": Extra("<f4", size)} if views > 1 else {}
    done = 0
    with atomic_folder(target) as folder, PackedWriter(folder, size, extras=extras) as writer:
        for split in ("train", "val", "test"):
            for start in range(_STARTS[split], ends[split], _PIECE):
                piece = min(_PIECE, ends[split] - start)
                scenes = render_scenes(piece, seed=seed, settings=settings, start=start, views=views)
                beside = _beside(scenes, start) if views > 1 else {}
                writer.append(split, _flat(scenes.image), _flat(scenes.mask), extras=beside)
                done += piece
                if progress is not None:
                    progress(done, total)
        writer.finish(
            name="scenes",
            source=f"rendered by boqsa.data.scenes with seed {seed}",
            licence="Apache-2.0",
            task="multi-object",
            split_rule="in order of the renderer's sequence: test, val, train",
        )


def _beside(scenes: Scenes, start: int) -> dict[str, NDArray[Any]]:
    """What each view of a set of views has beside its image and mask."""
    count, views = scenes.camera.shape[:2]
    camera = _flat(scenes.camera)
    return {
        "scene": np.repeat(np.arange(start, start + count, dtype=np.int32), views),
        "camera": camera,
        "azimuth": azimuth_rotation(camera),
        "depth": _flat(scenes.depth),
    }


def _flat(of_views: NDArray[Any]) -> NDArray[Any]:
    """Scenes and views as one axis."""
    return of_views.reshape(-1, *of_views.shape[2:])
