"""A training that is fast to start, to kill and to finish: a tiny packed set, and the command for it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boqsa.data.packing import write_packed


@pytest.fixture(scope="session")
def packed_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random 16x16 images with random masks: 48 train, 8 val."""
    generator = np.random.default_rng(0)
    splits = {
        name: (
            generator.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8),
            generator.integers(0, 3, (count, 16, 16), dtype=np.uint8),
        )
        for name, count in (("train", 48), ("val", 8))
    }
    folder = tmp_path_factory.mktemp("noise") / "packed"
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(folder, splits, task="multi-object", **words)
    return folder


@pytest.fixture(scope="session")
def train_arguments(packed_noise: Path) -> Callable[..., list[str]]:
    """`train_arguments(run, "--train.steps", "60")` is what follows `boqsa` on the command line."""

    def arguments(run: Path, *more: str) -> list[str]:
        fields = {
            "data.root": packed_noise,
            "data.image-size": 16,
            "model.num-slots": 3,
            "model.slot-size": 8,
            "model.mlp-size": 16,
            "model.encoder-channels": 8,
            "model.encoder-strides": 2,
            "model.decoder-channels": 8,
            "model.decoder-strides": 2,
            "train.threads": 1,
        }
        typed = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
        return ["train", "objectsroom_mixture_small", "--out", str(run), *typed, *more]

    return arguments


@pytest.fixture(scope="session")
def boqsa() -> list[str]:
    """How the command is started as a process of its own."""
    return [sys.executable, "-m", "boqsa"]
