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
from boqsa.data.packing import write_packed
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError

RENDERER = 4
"""Raise it when the renderer's pixels change: caches of older ones must not be taken for new."""

TEST_SCENES = 1_000
VALIDATION_SCENES = 512
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
    val_end = TEST_SCENES + VALIDATION_SCENES
    write_packed(
        target,
        {
            "train": (images[val_end:], masks[val_end:]),
            "val": (images[TEST_SCENES:val_end], masks[TEST_SCENES:val_end]),
            "test": (images[:TEST_SCENES], masks[:TEST_SCENES]),
        },
        name="scenes",
        source=f"rendered by boqsa.data.scenes with seed {seed}",
        licence="Apache-2.0",
        task="multi-object",
        split_rule="in order of the renderer's sequence: test, val, train",
    )
