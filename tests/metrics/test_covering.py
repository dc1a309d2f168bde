from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import (
    MeanBestOverlap,
    SegmentationCovering,
    class_labels,
    mean_best_overlap,
    segmentation_covering,
)


def covering_by_sets(pred: list[int], true: list[int], foreground_only: bool, weighted: bool) -> float:
    """The definition on sets of pixel numbers."""
    valid = [i for i, label in enumerate(true) if label >= 0]
    pred_segments = [{i for i in valid if pred[i] == label} for label in {pred[i] for i in valid}]
    targets = [
        {i for i in valid if true[i] == label} for label in {true[i] for i in valid} if label > 0 or not foreground_only
    ]
    if not targets:
        return float("nan")
    best = [max(len(s & target) / len(s | target) for s in pred_segments) for target in targets]
    weights = [len(target) if weighted else 1 for target in targets]
    return sum(b * w for b, w in zip(best, weights, strict=True)) / sum(weights)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans(), weighted=st.booleans())
def test_equals_the_definition(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool, weighted: bool
) -> None:
    pred, true = random_maps(seed)
    expected = [
        covering_by_sets(p.flatten().tolist(), t.flatten().tolist(), foreground_only, weighted)
        for p, t in zip(pred, true, strict=True)
    ]
    found = segmentation_covering(pred, true, foreground_only, weighted)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("foreground_only", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_published_numbers(published: dict[str, np.ndarray], foreground_only: bool, weighted: bool) -> None:
    name = "msc" + "_fg" * foreground_only + "_weighted" * weighted
    pred, true = torch.from_numpy(published["pred"]), torch.from_numpy(published["true"])
    found = segmentation_covering(pred, true, foreground_only, weighted).numpy()
    # The published code scored 0 where there was no foreground (spec 4.4).
    has_target = (published["true"] > 0).any(axis=(1, 2)) | (not foreground_only)
    np.testing.assert_allclose(found[has_target], published[name][has_target], rtol=0, atol=2e-7)
    assert np.isnan(found[~has_target]).all()
    assert (published[name][~has_target] == 0).all()


def test_hand_case() -> None:
    true = torch.tensor([[[0, 0, 0, 1, 1, 2]]])
    pred = torch.tensor([[[4, 4, 4, 4, 1, 1]]])
    # Background 3/4, object 1: max(1/5, 1/3), object 2: 1/2.
    background, first, second = 3 / 4, 1 / 3, 1 / 2
    found = {
        (foreground_only, weighted): segmentation_covering(pred, true, foreground_only, weighted).item()
        for foreground_only in (False, True)
        for weighted in (False, True)
    }
    assert found[False, False] == pytest.approx((background + first + second) / 3, abs=1e-15)
    assert found[False, True] == pytest.approx((3 * background + 2 * first + second) / 6, abs=1e-15)
    assert found[True, False] == pytest.approx((first + second) / 2, abs=1e-15)
    assert found[True, True] == pytest.approx((2 * first + second) / 3, abs=1e-15)


def test_spilling_into_the_background_costs_also_in_the_foreground_form() -> None:
    true = torch.tensor([[[0, 0, 1, 1]]])
    assert segmentation_covering(torch.zeros_like(true), true, foreground_only=True).tolist() == [0.5]


def test_the_same_partition_scores_1_under_other_numbers() -> None:
    true = torch.tensor([[[0, 0, 1, 2]]])
    for weighted in (False, True):
        assert segmentation_covering(2000 - 3 * true, true, weighted=weighted).tolist() == [1.0]


def test_nothing_to_cover_is_nan() -> None:
    pred = torch.tensor([[[0, 1]]] * 3)
    true = torch.tensor([[[-1, -1]], [[0, -1]], [[0, 1]]])
    assert segmentation_covering(pred, true).isnan().tolist() == [True, False, False]
    assert segmentation_covering(pred, true, foreground_only=True).isnan().tolist() == [True, True, False]
    assert segmentation_covering(pred[:2], true[:2], foreground_only=True).isnan().all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans(), weighted=st.booleans())
def test_each_image_is_scored_alone(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool, weighted: bool
) -> None:
    pred, true = random_maps(seed)
    alone = [
        segmentation_covering(p[None], t[None], foreground_only, weighted) for p, t in zip(pred, true, strict=True)
    ]
    together = segmentation_covering(pred, true, foreground_only, weighted)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-15, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), foreground_only=st.booleans(), weighted=st.booleans())
def test_predictions_on_ignored_pixels_do_not_matter(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int, foreground_only: bool, weighted: bool
) -> None:
    pred, true = random_maps(seed)
    changed = torch.where(true < 0, 9, pred)
    torch.testing.assert_close(
        segmentation_covering(changed, true, foreground_only, weighted),
        segmentation_covering(pred, true, foreground_only, weighted),
        rtol=0,
        atol=1e-15,
        equal_nan=True,
    )


@pytest.mark.parametrize("foreground_only", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_averages_the_function(foreground_only: bool, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(9, 4, 1, 6, 6, generator=generator)
    true = torch.randint(-1, 3, (9, 6, 6), generator=generator)
    true[4] = 0
    metric = SegmentationCovering(foreground_only, weighted)
    for batch in torch.arange(9).split(4):
        metric.update(masks[batch], true[batch])
    values = segmentation_covering(masks.squeeze(2).argmax(dim=1), true, foreground_only, weighted)
    assert metric.compute().item() == pytest.approx(values.nanmean().item(), abs=1e-12)
    assert (metric.scored, metric.left_out) == ((8, 1) if foreground_only else (9, 0))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mean_best_overlap_asks_for_objects_alone_and_equally(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int
) -> None:
    pred, true = random_maps(seed)
    expected = [
        covering_by_sets(p.flatten().tolist(), t.flatten().tolist(), foreground_only=True, weighted=False)
        for p, t in zip(pred, true, strict=True)
    ]
    np.testing.assert_allclose(mean_best_overlap(pred, true).numpy(), expected, rtol=0, atol=1e-12)
    metric = MeanBestOverlap()
    metric.update(pred, true)
    expected_mean = np.nanmean(expected) if metric.compute().isfinite() else np.nan
    np.testing.assert_allclose(metric.compute().item(), expected_mean, rtol=0, atol=1e-12)
    assert metric.left_out == np.isnan(expected).sum()


def test_joined_classes_change_the_mean_best_overlap() -> None:
    instances = torch.tensor([[[0, 1, 2, 2]]])
    pred = torch.tensor([[[0, 1, 2, 2]]])
    assert mean_best_overlap(pred, instances).tolist() == [1]
    assert mean_best_overlap(pred, instances.clamp(max=1)).item() == pytest.approx(2 / 3, abs=1e-15)


def test_class_labels_join_the_objects_of_a_class() -> None:
    true = torch.tensor([[[-1, 0, 1, 2, 3]], [[-2, 0, 3, 2, 1]]], dtype=torch.int16)
    classes = torch.tensor([[9, 7, 0, 7], [9, -1, 300, 300]], dtype=torch.int32)
    found = class_labels(true, classes)
    # One above the class, so that class 0 is no background; what has no class is left out.
    assert found.tolist() == [[[-1, 0, 8, 1, 8]], [[-1, 0, 301, 301, -1]]]
    assert found.dtype == torch.int64


def test_classes_that_do_not_belong_to_the_labels_are_refused() -> None:
    for wrong in (torch.zeros(1, 3, 2, dtype=torch.int32), torch.zeros(1, 3), torch.zeros(2, 3, dtype=torch.int32)):
        with pytest.raises(ValueError, match=r"classes are torch.* \(.*\); whole numbers \(1, labels\) expected"):
            class_labels(torch.tensor([[[0, 2]]]), wrong)
    with pytest.raises(ValueError, match="true has the label 2; classes are given of labels up to 1"):
        class_labels(torch.tensor([[[0, 2]]]), torch.tensor([[-1, 5]]))
    assert class_labels(torch.zeros(0, 2, 2, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.int32)).shape == (
        0,
        2,
        2,
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_best_overlap_of_classes_equals_the_definition(
    random_maps: Callable[[int], tuple[Tensor, Tensor]], seed: int
) -> None:
    pred, true = random_maps(seed)
    classes = np.random.default_rng(seed).integers(-1, 3, (len(true), 5))
    metric = MeanBestOverlap()
    joined = class_labels(true, torch.from_numpy(classes))
    for one, other in zip(pred, joined, strict=True):  # image by image: the metric streams
        metric.update(one[None], other[None])
    expected = []
    for one, other, of_label in zip(pred.flatten(1).tolist(), true.flatten(1).tolist(), classes, strict=True):
        counted = [i for i, label in enumerate(other) if label == 0 or (label > 0 and of_label[label] >= 0)]
        segments = [{i for i in counted if one[i] == slot} for slot in {one[i] for i in counted}]
        present = {of_label[other[i]] for i in counted if other[i] > 0}
        objects = [{i for i in counted if other[i] > 0 and of_label[other[i]] == name} for name in present]
        if objects:
            expected.append(np.mean([max(len(s & o) / len(s | o) for s in segments) for o in objects]))
    np.testing.assert_allclose(metric.compute().item(), np.mean(expected) if expected else np.nan, rtol=0, atol=1e-12)
    assert metric.left_out == len(true) - len(expected)
