"""Batched metrics against loops over images, in one process: prints times and ratios.

Run `python benchmarks/metrics_speed.py`. The reference for ARI is scikit-learn's `adjusted_rand_score`, image
by image, the usual way to score object discovery; the reference for covering is a NumPy loop over segments.
Ours runs once on one torch thread and once on torch's default. The target is ARI at least 20 times as fast.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from boqsa.metrics import adjusted_rand_index, segmentation_covering

IMAGES, SIZE, SEGMENTS, REPEATS = 64, 128, 8, 7


def label_maps() -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true maps with large segments, of which predictions get a quarter of the pixels wrong."""
    generator = np.random.default_rng(0)
    centres = generator.uniform(0, SIZE, (IMAGES, SEGMENTS, 2, 1, 1))
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"))
    true = np.square(grid - centres).sum(axis=2).argmin(axis=1)  # (IMAGES, SIZE, SIZE)
    is_wrong = generator.random(true.shape) < 0.25
    pred = np.where(is_wrong, generator.integers(0, SEGMENTS, true.shape), true)
    return torch.from_numpy(pred), torch.from_numpy(true)


def ari_by_sklearn(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.array([adjusted_rand_score(t.ravel(), p.ravel()) for p, t in zip(pred, true, strict=True)])


def covering_by_numpy(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    scores = []
    for p, t in zip(pred, true, strict=True):
        segments = [p == label for label in np.unique(p)]
        best = [
            max((s & target).sum() / (s | target).sum() for s in segments)
            for target in (t == label for label in np.unique(t))
        ]
        scores.append(np.mean(best))
    return np.array(scores)


def median_ms(function: Callable[[], object]) -> float:
    function()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    pred, true = label_maps()
    pairs = {
        "ARI": (adjusted_rand_index, ari_by_sklearn, "scikit-learn loop"),
        "covering": (segmentation_covering, covering_by_numpy, "NumPy loop"),
    }
    default_threads = torch.get_num_threads()
    print(f"{IMAGES} label maps of {SIZE}x{SIZE}, {SEGMENTS} true and {SEGMENTS} predicted segments")
    for name, (ours, reference, reference_name) in pairs.items():
        arrays = pred.numpy(), true.numpy()
        worst = np.abs(ours(pred, true).numpy() - reference(*arrays)).max()
        reference_ms = median_ms(lambda reference=reference, arrays=arrays: reference(*arrays))
        print(f"{name}: {reference_name} {reference_ms:.1f} ms; largest difference {worst:.1e}")
        for threads in sorted({1, default_threads}):
            torch.set_num_threads(threads)
            ours_ms = median_ms(lambda ours=ours: ours(pred, true))
            ratio = reference_ms / ours_ms
            print(f"  ours, torch threads {threads}: {ours_ms:.2f} ms, {ratio:.1f} times as fast")
        torch.set_num_threads(default_threads)


if __name__ == "__main__":
    main()
