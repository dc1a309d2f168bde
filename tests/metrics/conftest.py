"""Random label maps, and the arrays of the published implementation, for every test of the metrics."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

RandomMaps = Callable[[int], tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def random_maps() -> RandomMaps:
    """Small predicted and true maps from a seed; some lack foreground, some have ignored pixels."""

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng(seed)
        shape = tuple(generator.integers(1, (5, 7, 7)))
        true = generator.integers(0, generator.integers(1, 5), shape)
        is_copied = generator.random(shape) < generator.random()
        pred = np.where(is_copied, true, generator.integers(0, generator.integers(1, 5), shape))
        true[generator.random(shape) < generator.choice([0.0, 0.2])] = -1
        return torch.from_numpy(pred), torch.from_numpy(true)

    return draw


@pytest.fixture(scope="session")
def published() -> dict[str, np.ndarray]:
    """24 label maps with the scores that the published implementation gave them (spec section 10)."""
    path = Path(__file__).resolve().parents[3] / "shared" / "parity" / "metrics.npz"
    if not path.exists():
        pytest.skip("the published arrays (shared/parity/metrics.npz) are not beside the repository")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
