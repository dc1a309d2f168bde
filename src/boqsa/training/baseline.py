"""K-means on colour and position: what can be had without learning, with as many clusters as slots."""

import warnings

import numpy as np
import torch
from jaxtyping import Int, UInt8
from scipy.cluster.vq import kmeans2
from torch import Tensor

POSITION_WEIGHTS = (0.5, 1.0, 2.0)
"""Tried in turn; callers report the best, which flatters the baseline."""


def k_means_segmentation(
    images: UInt8[Tensor, "B 3 H W"], *, clusters: int, position_weight: float, seed: int = 0
) -> Int[Tensor, "B H W"]:
    """Cluster the pixels of each image by (red, green, blue, row, column), each standardised.

    Args:
        images: uint8 RGB.
        clusters: As many as the model has slots.
        position_weight: Scale of row and column against the colours.
        seed: Of the k-means++ start.
    """
    size = images.shape[-2:]
    rows, columns = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    position = np.stack([rows.ravel(), columns.ravel()], axis=1)
    position *= position_weight / position.std()
    labels = []
    for index, image in enumerate(images.numpy()):
        colour = image.reshape(3, -1).T.astype(np.float64)  # (H W, 3)
        colour = (colour - colour.mean(axis=0)) / np.maximum(colour.std(axis=0), 1e-6)
        features = np.concatenate([colour, position], axis=1)
        generator = np.random.default_rng([seed, index])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that lost its last pixel stays empty
            _, label = kmeans2(features, clusters, minit="++", rng=generator)
        labels.append(label.reshape(size))
    return torch.from_numpy(np.stack(labels).astype(np.int64))
