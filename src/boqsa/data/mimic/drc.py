"""Stanford Dogs and Cars in the arrangement of DRC: images and masks of one size, and lists of tokens."""

from collections.abc import Callable
from itertools import count, filterfalse
from pathlib import Path

import numpy as np
from PIL import Image

from boqsa.data.mimic.content import Content
from boqsa.data.readers.source import held_out_by_hash

_SIZE = (120, 144)


def write_dogs(target: Path, content: Content) -> Path:
    """Write stand-ins of dogs, whose tokens are integers."""
    tokens = _write(target, content, lambda number: number)
    np.save(target / "data_tr_sel.npy", np.array(tokens["train"], np.int64))
    np.save(target / "data_te_sel.npy", np.array(tokens["test"], np.int64))
    return target


def write_cars(target: Path, content: Content) -> Path:
    """Write stand-ins of cars, whose tokens are strings."""
    tokens = _write(target, content, lambda number: f"{number:05d}")
    np.save(target / "data_mrcnn_train_select.npy", np.array(tokens["train"], str))
    np.save(target / "data_mrcnn_test_select.npy", np.array(tokens["test"], str))
    return target


def _write(target: Path, content: Content, token_of: Callable[[int], object]) -> dict[str, list[object]]:
    """Every sixth image is test; numbers are chosen so that every sixth falls into the part that is held out as val."""
    chosen = {
        True: filter(lambda number: held_out_by_hash(str(token_of(number))), count(1)),
        False: filterfalse(lambda number: held_out_by_hash(str(token_of(number))), count(1)),
    }
    tokens: dict[str, list[object]] = {"train": [], "test": []}
    for index in range(content.count):
        part = "test" if index % 6 == 5 else "train"
        token = token_of(next(chosen[index % 6 == 4]))
        image, mask = content.scene(index, _SIZE)
        folder = target / "data_mrcnn" / part / "resized"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{token}_resized.png")
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(folder / f"{token}_maskresized.png")
        tokens[part].append(token)
    return tokens
