"""Every random draw of training, as a pure function of (seed, step, position in the global batch).

So a run does not depend on the number of processes, on accumulation, on evaluation, or on being resumed. One exception:
what dropout leaves out is drawn for a piece of the batch, and changes with the pieces.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.models import Noise

_ORDER, _NOISE, _GUMBEL, _DROPOUT, _CROP, _CLUSTERS, _VIEWS, _PIXELS, _DENSITY, _PATCHES = range(1, 11)
"""Separate streams, so that the order of samples and the noises never share random numbers."""


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


def samples(
    model: nn.Module, indices: Int[np.ndarray, "B"], device: torch.device | str, *, num_slots: int | None = None
) -> Noise:
    """What Gaussian slots of these images start from, the same each time; learned queries pay no attention to it."""
    shapes = model.noise_shapes()  # type: ignore[operator]  # every model has it, which nn.Module does not know
    if num_slots is not None:
        shapes = {**shapes, "queries": (num_slots, *shapes["queries"][1:])}
    noise = draw_noise(shapes, seed=0, step=0, positions=indices.tolist(), perturb_queries=True)
    return Noise(queries=None if noise.queries is None else noise.queries.to(device))


def draw_crops(*, seed: int, step: int, positions: Sequence[int]) -> Float[Tensor, "B 4"]:
    """Uniform numbers in [0, 1) for `augment`: mirror, side, and place of the crop, a row for each sample."""
    rows = []
    for position in positions:
        philox = np.random.Philox(key=[seed, _CROP], counter=[0, 0, position, step])
        rows.append(np.random.Generator(philox).random(4, dtype=np.float32))
    return torch.from_numpy(np.stack(rows))


def draw_patch_orders(*, seed: int, step: int, positions: Sequence[int]) -> Float[Tensor, "B"]:
    """Uniform numbers in [0, 1) that choose the order in which the patches of a sample are decoded."""
    draws = [
        np.random.Generator(np.random.Philox(key=[seed, _PATCHES], counter=[0, 0, position, step])).random(
            dtype=np.float32
        )
        for position in positions
    ]
    return torch.tensor(draws)


def draw_gumbel(
    shape: Sequence[int],
    *,
    seed: int,
    step: int,
    positions: Sequence[int],
    device: torch.device | str = "cpu",
) -> tuple[Float[Tensor, "B V h w"], Float[Tensor, "B V h w"]]:
    """Two independent Gumbel noises for some samples of a step: for the soft and for the hard sample (spec 3.4).

    They are many: 2 V numbers for each 4x4 pixels of an image. On a CPU, NumPy's Philox draws them, which takes a
    third of the time of torch's generator (118 against 370 ms for 8 images of 128x128 with V = 1024, one thread). On
    an accelerator its own generator draws them where they are needed. The two give different numbers.

    Args:
        shape: (V, h, w), of a sample.
        seed: Of the run.
        step: Optimiser step.
        positions: Places of the samples in the global batch.
        device: Of the model.

    Returns:
        float32, on the device: -log(E + tiny) with E exponential of mean 1.
    """
    fill = _fill_by_philox if torch.device(device).type == "cpu" else _fill_by_generator
    vocabulary, height, width = shape
    # V lies innermost, as in the channels-last log-probabilities that it is added to.
    drawn = torch.empty((len(positions), 2, height, width, vocabulary), dtype=torch.float32, device=device)
    # NumPy draws without holding the interpreter, so each CPU thread fills samples; each has a stream of its own.
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in threads.map(lambda sample, position: fill(sample, seed, step, position), drawn, positions):
            pass
    gumbel = drawn.add_(torch.finfo(torch.float32).tiny).log_().neg_()  # tiny: E can be 0
    soft, hard = gumbel.permute(0, 1, 4, 2, 3).unbind(dim=1)  # (B, V, h, w) each
    return soft, hard


def _fill_by_philox(sample: Tensor, seed: int, step: int, position: int) -> None:
    """Exponential numbers of mean 1, into a tensor on the CPU."""
    philox = np.random.Philox(key=[seed, _GUMBEL], counter=[0, 0, position, step])
    np.random.Generator(philox).standard_exponential(dtype=np.float32, out=sample.numpy())


def _fill_by_generator(sample: Tensor, seed: int, step: int, position: int) -> None:
    """The same into a tensor on any device, drawn there."""
    generator = torch.Generator(sample.device).manual_seed(_seed_of(_GUMBEL, seed, step, position))
    sample.exponential_(generator=generator)


def draw_views(
    counts: Sequence[int], wanted: int, *, seed: int, step: int, positions: Sequence[int]
) -> Int[np.ndarray, "B N"]:
    """Which views of some scenes a step looks at, without repeats; the first one is the input (uorf 8.3).

    Args:
        counts: How many views each scene has, at least `wanted`.
        wanted: N.
        seed: Of the run.
        step: Optimiser step.
        positions: Places of the scenes in the global batch.
    """
    rows = []
    for count, position in zip(counts, positions, strict=True):
        philox = np.random.Philox(key=[seed, _VIEWS], counter=[0, 0, position, step])
        rows.append(np.random.Generator(philox).permutation(count)[:wanted])
    return np.stack(rows)


def draw_rays(
    count: int, *, views: int, size: int, seed: int, step: int, positions: Sequence[int]
) -> Int[np.ndarray, "B R 3"]:
    """Random pixels of some scenes, each at most once: view, row and column (uorf 4.5)."""
    rows = []
    for position in positions:
        philox = np.random.Philox(key=[seed, _PIXELS], counter=[0, 0, position, step])
        drawn = np.random.Generator(philox).choice(views * size * size, size=count, replace=False, shuffle=False)
        rows.append(np.stack(np.unravel_index(drawn, (views, size, size)), axis=1))
    return np.stack(rows)


def draw_corners(room: int, *, seed: int, step: int, positions: Sequence[int]) -> Int[np.ndarray, "B 2"]:
    """Row and column of the first pixel of the square that a step looks at, the same in all views of a scene: each 0
    to `room` - 1, as published, so that the last row and column are never seen (uorf 8.4)."""
    rows = []
    for position in positions:
        philox = np.random.Philox(key=[seed, _PIXELS], counter=[0, 1, position, step])
        rows.append(np.random.Generator(philox).integers(0, max(room, 1), size=2))
    return np.stack(rows)


def draw_density_noise(
    shape: Sequence[int], *, seed: int, step: int, positions: Sequence[int]
) -> Float[Tensor, "B K R S"]:
    """Standard normal numbers for the densities of some scenes (uorf 6.4)."""
    rows = []
    for position in positions:
        philox = np.random.Philox(key=[seed, _DENSITY], counter=[0, 0, position, step])
        rows.append(np.random.Generator(philox).standard_normal(tuple(shape), dtype=np.float32))
    return torch.from_numpy(np.stack(rows))


def dropout_seed(seed: int, step: int, first: int) -> int:
    """What torch's own stream is seeded with before a forward pass, from the place of its first sample in the batch."""
    return _seed_of(_DROPOUT, seed, step, first)


def clusters_seed(seed: int, step: int) -> int:
    """What decides where the clusters of a step start (spec 6.2): one draw for the whole batch."""
    return _seed_of(_CLUSTERS, seed, step, 0)


def _seed_of(stream: int, seed: int, step: int, position: int) -> int:
    """A seed for a generator of torch, 0 to 2^63 - 1."""
    digest = hashlib.blake2b(f"{stream} {seed} {step} {position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
