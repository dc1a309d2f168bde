"""Every random draw of training, as a pure function of (seed, step, position in the global batch).

So a run does not depend on the number of processes, on accumulation, on evaluation, or on being resumed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int

from boqsa.models import Noise

_ORDER, _NOISE = 1, 2
"""Separate streams, so that the order of samples and the noise never share random numbers."""


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> Int[np.ndarray, "batch"]:
    """Samples of one step: epochs are permutations of all `count`, one after the other; a batch may span two.

    Every batch is full. The published code ends an epoch with a short batch instead; with steps counted, not
    epochs, a full one is simpler, and every sample still occurs equally often.
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size)
    epochs = positions // count
    indices = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _permutation(seed, int(epoch), count)[positions[here] % count]
    return indices


_latest: dict[tuple[int, int, int], Int[np.ndarray, "count"]] = {}


def _permutation(seed: int, epoch: int, count: int) -> Int[np.ndarray, "count"]:
    """The order of an epoch; the latest two are kept, since a step needs at most two."""
    key = (seed, epoch, count)
    if key not in _latest:
        while len(_latest) >= 2:
            del _latest[next(iter(_latest))]
        generator = np.random.Generator(np.random.Philox(key=[seed, _ORDER], counter=[0, 0, 0, epoch]))
        _latest[key] = generator.permutation(count)
    return _latest[key]


def draw_noise(
    shapes: Mapping[str, Sequence[int]],
    *,
    seed: int,
    step: int,
    positions: Sequence[int],
    perturb_queries: bool,
) -> Noise:
    """The noise of some samples of a step.

    Args:
        shapes: Shape a sample of each field, from `model.noise_shapes()`.
        seed: Of the run.
        step: Optimiser step.
        positions: Places of the samples in the global batch.
        perturb_queries: False leaves the queries' noise out: it would be multiplied by a sigma of 0.
    """
    queries, drop_path = [], []
    for position in positions:
        generator = np.random.Generator(np.random.Philox(key=[seed, _NOISE], counter=[0, 0, position, step]))
        # Drop-path first: it must not change when the perturbation ends.
        drop_path.append(generator.random(tuple(shapes["drop_path"]), dtype=np.float32))
        if perturb_queries:
            queries.append(generator.standard_normal(tuple(shapes["queries"]), dtype=np.float32))
    return Noise(
        queries=torch.from_numpy(np.stack(queries)) if perturb_queries else None,
        drop_path=torch.from_numpy(np.stack(drop_path)),
    )
