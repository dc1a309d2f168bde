"""K-means on colour and position, where the answer is known."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from boqsa.training.baseline import k_means_segmentation


def test_two_colours_are_two_clusters() -> None:
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[:, 0, :, 6:] = 255
    labels = k_means_segmentation(image, clusters=2, position_weight=0.5)
    assert labels.shape == (1, 12, 12)
    assert labels.dtype == torch.int64
    assert adjusted_rand_score(image[0, 0].flatten().numpy(), labels[0].flatten().numpy()) == 1.0


def test_an_image_of_one_colour_is_cut_by_position(recwarn) -> None:
    labels = k_means_segmentation(torch.full((1, 3, 12, 12), 7, dtype=torch.uint8), clusters=4, position_weight=1.0)
    assert len(labels.unique()) == 4
    assert not recwarn.list


def test_the_same_seed_gives_the_same_labels_whatever_stands_beside(squares: Callable) -> None:
    images = torch.from_numpy(squares(3, seed=0)[0])
    both = k_means_segmentation(images, clusters=4, position_weight=1.0, seed=5)
    alone = k_means_segmentation(images[:1], clusters=4, position_weight=1.0, seed=5)
    assert torch.equal(both[:1], alone)


def test_heavy_position_ignores_colour() -> None:
    generator = np.random.default_rng(0)
    noise = torch.from_numpy(generator.integers(0, 256, (1, 3, 16, 16), dtype=np.uint8))
    labels = k_means_segmentation(noise, clusters=2, position_weight=1000.0)[0]
    # Two clusters of positions alone are two connected halves: few neighbours differ.
    borders = (labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum()
    assert borders <= 32
