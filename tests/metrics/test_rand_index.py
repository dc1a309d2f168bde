from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from boqsa.metrics import AdjustedRandIndex, adjusted_rand_index


def ari_by_counting_pairs(pred: list[int], true: list[int]) -> float:
    """The definition: look at every pair of pixels; compare the agreement with its expectation."""
    if not pred:
        return float("nan")
    pairs = list(combinations(zip(pred, true, strict=True), 2))
    both = sum(a[0] == b[0] and a[1] == b[1] for a, b in pairs)
    in_pred = sum(a[0] == b[0] for a, b in pairs)
    in_true = sum(a[1] == b[1] for a, b in pairs)
    if in_pred == in_true == both:  # the same partition
        return 1.0
    expected = in_pred * in_true / len(pairs)
    return (both - expected) / ((in_pred + in_true) / 2 - expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans())
def test_equals_the_definition(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool
) -> None:
    pred, true = random_maps(seed)
    lowest = 1 if foreground_only else 0
    expected = [
        ari_by_counting_pairs(p[t >= lowest].tolist(), t[t >= lowest].tolist()) for p, t in zip(pred, true, strict=True)
    ]
    found = adjusted_rand_index(pred, true, foreground_only)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 1e-5, 0.3, 1.0])
def test_equals_sklearn_on_large_maps(noise: float) -> None:
    generator = np.random.default_rng(3)
    true = np.arange(512 * 512).reshape(1, 512, 512) // 9000
    pred = np.where(generator.random(true.shape) < noise, generator.integers(0, 12, true.shape), true)
    found = adjusted_rand_index(torch.from_numpy(pred), torch.from_numpy(true))
    assert found.item() == pytest.approx(adjusted_rand_score(true.ravel(), pred.ravel()), abs=1e-12)


def test_one_odd_pixel_in_a_large_map_keeps_its_precision() -> None:
    true = torch.zeros(1, 512, 512, dtype=torch.int64)
    true[0, 0, 0] = 1
    pred = true.clone()
    pred[0, 0, 1] = 1
    expected = adjusted_rand_score(true.flatten().numpy(), pred.flatten().numpy())
    assert adjusted_rand_index(pred, true).item() == pytest.approx(expected, abs=1e-12)


def test_equals_the_published_numbers(published: dict[str, np.ndarray]) -> None:
    pred, true = torch.from_numpy(published["pred"]), torch.from_numpy(published["true"])
    has_foreground = (published["true"] > 0).any(axis=(1, 2))
    assert 0 < has_foreground.sum() < len(has_foreground)
    foreground = adjusted_rand_index(pred, true, foreground_only=True).numpy()
    np.testing.assert_allclose(adjusted_rand_index(pred, true).numpy(), published["ari"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(foreground[has_foreground], published["ari_fg"][has_foreground], rtol=0, atol=1e-9)
    assert np.isnan(foreground[~has_foreground]).all()


def test_one_object_scores_1_unless_it_is_split() -> None:
    true = torch.tensor([[[0, 1, 1, 1]]] * 2)
    pred = torch.tensor([[[2, 5, 5, 5]], [[2, 5, 5, 4]]])
    assert adjusted_rand_index(pred, true, foreground_only=True).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("labels", [[7, 7, 7, 7], [3, 1, 2, 0], [4]])
def test_trivial_partitions_that_agree_score_1(labels: list[int]) -> None:
    labels_map = torch.tensor([[labels]])
    assert adjusted_rand_index(labels_map, labels_map).tolist() == [1.0]


def test_worse_than_chance_is_negative() -> None:
    assert adjusted_rand_index(torch.tensor([[[0, 1, 0, 1]]]), torch.tensor([[[0, 0, 1, 1]]])).tolist() == [-0.5]


def test_nothing_to_score_is_nan() -> None:
    pred = torch.tensor([[[0, 1]]] * 3)
    true = torch.tensor([[[-1, -1]], [[0, 0]], [[0, 1]]])
    assert adjusted_rand_index(pred, true).isnan().tolist() == [True, False, False]
    assert adjusted_rand_index(pred, true, foreground_only=True).isnan().tolist() == [True, True, False]
    assert adjusted_rand_index(pred[:2], true[:2], foreground_only=True).isnan().all()
    assert adjusted_rand_index(pred[:0], true[:0]).shape == (0,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans())
def test_only_the_partition_matters(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool
) -> None:
    pred, true = random_maps(seed)
    expected = adjusted_rand_index(pred, true, foreground_only)
    other_pred = torch.tensor([900, 5, 2**33, 0])[pred]
    other_true = torch.where(true > 0, torch.tensor([0, 77, 300, 12])[true.clamp(min=0)], true)
    torch.testing.assert_close(
        adjusted_rand_index(other_pred, other_true, foreground_only), expected, rtol=0, atol=0, equal_nan=True
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans())
def test_each_image_is_scored_alone(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool
) -> None:
    pred, true = random_maps(seed)
    alone = [adjusted_rand_index(p[None], t[None], foreground_only) for p, t in zip(pred, true, strict=True)]
    together = adjusted_rand_index(pred, true, foreground_only)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0, equal_nan=True)


def test_predictions_on_ignored_pixels_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(-1, 3, (4, 8, 8), generator=generator)
    pred: Tensor = torch.randint(0, 4, (4, 8, 8), generator=generator)
    changed = torch.where(true < 0, torch.randint(0, 9, pred.shape, generator=generator), pred)
    assert torch.equal(adjusted_rand_index(pred, true), adjusted_rand_index(changed, true))


@pytest.mark.parametrize("foreground_only", [False, True])
def test_class_averages_the_function(published: dict[str, np.ndarray], foreground_only: bool) -> None:
    masks, true = torch.from_numpy(published["masks"]), torch.from_numpy(published["true"])
    metric = AdjustedRandIndex(foreground_only)
    for batch in torch.arange(24).split(7):
        metric.update(masks[batch], true[batch])
    values = adjusted_rand_index(masks.argmax(dim=1), true, foreground_only)
    assert metric.compute().item() == pytest.approx(values.nanmean().item(), abs=1e-12)
    assert (metric.scored, metric.left_out) == ((~values.isnan()).sum(), values.isnan().sum())
