import json
import pickle
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from boqsa.metrics import (
    InstanceScores,
    InstanceSegmentation,
    adjusted_rand_index,
    counted_labels,
)


def sure(labels: Tensor, slots: int, share: float = 1.0) -> Tensor:
    """Masks (B, K, H, W) that give `share` of each pixel to its label and the rest to the other slots."""
    rest = (1 - share) / (slots - 1)
    is_owner = labels[:, None] == torch.arange(slots)[:, None, None]
    return torch.full(is_owner.shape, rest).where(~is_owner, torch.tensor(share)).double()


def scored(masks: Tensor, true: Tensor, **options: Any) -> InstanceScores:
    metric = InstanceSegmentation(**options)
    metric.update(masks, true)
    return metric.compute()


def counts(scores: InstanceScores) -> tuple[int, int, int]:
    return int(scores.true_positives), int(scores.false_positives), int(scores.false_negatives)


class Slow(NamedTuple):
    """Spec 4.8 pixel by pixel: what one image adds."""

    predictions: list[tuple[float, float]]
    """Confidence and matched IoU."""
    objects: int
    kept: dict[int, set[int]]
    is_unique: bool
    """Whether one matching alone has the largest sum of IoU."""


def one_image(masks: np.ndarray, true: np.ndarray, confidence: float) -> Slow:
    flat_true = true.ravel().tolist()
    columns = masks.reshape(len(masks), -1).T.tolist()
    regions: dict[int, set[int]] = {}
    segments: dict[int, set[int]] = {}
    for pixel, (shares, label) in enumerate(zip(columns, flat_true, strict=True)):
        if label < 0:
            continue
        segments.setdefault(label, set()).add(pixel)
        if max(shares) > confidence:
            regions.setdefault(shares.index(max(shares)), set()).add(pixel)

    def iou(a: set[int], b: set[int]) -> float:
        return len(a & b) / (len(a | b) + 1e-6)

    background = segments.pop(0, set())
    kept = {slot: region for slot, region in sorted(regions.items()) if iou(region, background) < 0.5}
    objects = list(segments.values())
    places = range(max(len(kept), len(objects)))
    table = [[iou(region, target) for target in objects] for region in kept.values()]
    square = [
        [table[row][column] if row < len(kept) and column < len(objects) else 0.0 for column in places]
        for row in places
    ]
    matchings = [tuple(square[row][column] for row, column in enumerate(chosen)) for chosen in permutations(places)]
    best = max(matchings, key=sum)
    is_unique = all(matching == best or sum(matching) < sum(best) - 1e-9 for matching in matchings)
    predictions = [
        (sum(max(columns[pixel]) for pixel in region) / len(region), iou)
        for region, iou in zip(kept.values(), best, strict=False)
    ]
    return Slow(predictions, len(objects), kept, is_unique)


def slow_scores(predictions: list[tuple[float, float]], objects: int, threshold: float) -> dict[str, float]:
    """The set's scores with plain loops; AP as the area under the highest precision at no lower recall."""
    nan = float("nan")
    hits = sum(iou >= threshold for _, iou in predictions)
    misses, missed = len(predictions) - hits, objects - hits
    curve = []
    found = 0
    for rank, (_, iou) in enumerate(sorted(predictions, key=lambda entry: -entry[0]), start=1):
        found += iou >= threshold
        curve.append((found / objects if objects else nan, found / rank))
    points = [(0.0, 0.0), *curve, (1.0, 0.0)]
    area = 0.0
    for number in range(1, len(points)):
        height = max(precision for _, precision in points[number:])
        area += (points[number][0] - points[number - 1][0]) * height
    middle = hits + misses / 2 + missed / 2
    return {
        "ap": area if objects else nan,
        "pq": sum(iou for _, iou in predictions if iou >= threshold) / middle if middle else nan,
        "f1": hits / middle if middle else nan,
        "precision": hits / len(predictions) if predictions else nan,
        "recall": hits / objects if objects else nan,
        "true_positives": hits,
        "false_positives": misses,
        "false_negatives": missed,
    }


def draw(seed: int) -> tuple[Tensor, Tensor]:
    """Masks that follow the truth more or less; some slots empty, some images without objects, some pixels ignored."""
    generator = np.random.default_rng(seed)
    batch, slots, height, width = generator.integers(1, (6, 5, 7, 7))
    true = generator.integers(0, generator.integers(1, 6), (batch, height, width))
    if generator.random() < 0.5:  # larger segments, so that some IoU is high
        true = np.sort(true, axis=2)
    relation = generator.permutation(8)
    scores = generator.normal(size=(batch, slots, height, width)) * generator.choice([0.2, 1.0])
    owner = relation[true] % slots
    scores += generator.choice([0.0, 2.0, 5.0]) * (owner[:, None] == np.arange(slots)[:, None, None])
    true[generator.random(true.shape) < generator.choice([0.0, 0.2])] = generator.choice([-1, -7])
    return torch.from_numpy(scores).softmax(dim=1), torch.from_numpy(true)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32), threshold=st.sampled_from([0.2, 0.5, 0.75]), confidence=st.sampled_from([0, 0.5, 0.7])
)
def test_equals_the_definition(seed: int, threshold: float, confidence: float) -> None:
    masks, true = draw(seed)
    slow = [one_image(m, t, confidence) for m, t in zip(masks.numpy(), true.numpy(), strict=True)]
    assume(all(image.is_unique for image in slow))
    predictions = [entry for image in slow for entry in image.predictions]
    expected = slow_scores(predictions, sum(image.objects for image in slow), threshold)
    metric = InstanceSegmentation(threshold, confidence)
    for batch in torch.arange(len(masks)).split(2):
        metric.update(masks[batch], true[batch])
    found = {name: value.item() for name, value in metric.compute()._asdict().items()}
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
    adding = [bool(image.predictions) or image.objects > 0 for image in slow]
    assert (metric.scored, metric.left_out) == (sum(adding), len(adding) - sum(adding))

    for labels, image, t in zip(counted_labels(masks, true, confidence), slow, true, strict=True):
        counted = t.flatten() >= 0
        expected_labels = torch.full(counted.shape, masks.shape[1])
        for slot, region in image.kept.items():
            expected_labels[list(region)] = slot
        assert torch.equal(labels.flatten()[counted], expected_labels[counted])


def test_equals_the_published_numbers(published: dict[str, np.ndarray]) -> None:
    masks, true = torch.from_numpy(published["masks"]), torch.from_numpy(published["true"])
    scores = scored(masks, true)
    assert counts(scores) == (published["tp"], published["fp"], published["fn"])
    expected = json.loads(str(published["instance.json"]))
    for ours, theirs in {"ap": "AP@05", "pq": "PQ", "f1": "F1", "precision": "precision", "recall": "recall"}.items():
        assert getattr(scores, ours).item() == pytest.approx(expected[theirs], abs=1e-6)
    # The published code scored the image without objects 1 (spec section 10).
    ari_fg = adjusted_rand_index(counted_labels(masks, true), true, foreground_only=True)
    assert ari_fg.nan_to_num(1.0).mean().item() == pytest.approx(expected["ari"], abs=1e-6)


TRUE = torch.tensor([[[0, 0, 0, 0, 1, 1, 2, 2, 2, 2]]])


def test_perfect_masks() -> None:
    scores = scored(sure(TRUE, 4), TRUE)
    assert counts(scores) == (2, 0, 0)
    assert (scores.ap, scores.f1, scores.precision, scores.recall) == (1, 1, 1, 1)
    # The published epsilon in each union keeps PQ just below 1.
    assert scores.pq.item() == pytest.approx((2 / (2 + 1e-6) + 4 / (4 + 1e-6)) / 2, abs=1e-15)


def test_masks_may_have_a_channel_axis() -> None:
    masks = sure(TRUE, 4)
    assert torch.equal(torch.stack(scored(masks.unsqueeze(2), TRUE)), torch.stack(scored(masks, TRUE)))


def test_slots_that_are_not_sure_predict_nothing() -> None:
    scores = scored(sure(TRUE, 3, share=0.5), TRUE)
    assert counts(scores) == (0, 0, 2)
    assert (scores.ap, scores.pq, scores.f1, scores.recall) == (0, 0, 0, 0)
    assert scores.precision.isnan()
    assert counts(scored(sure(TRUE, 3, share=0.5), TRUE, confidence=0.4)) == (2, 0, 0)


def test_an_image_without_objects_adds_false_positives_alone() -> None:
    true = torch.zeros(1, 1, 10, dtype=torch.int64)
    scores = scored(sure(TRUE, 3), true)
    assert counts(scores) == (0, 3, 0)  # the largest has an IoU of 0.4 with the background
    assert (scores.pq, scores.f1, scores.precision) == (0, 0, 0)
    assert scores.ap.isnan()
    assert scores.recall.isnan()


def test_slots_on_the_background_are_dropped() -> None:
    true = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1]]])
    owner = torch.tensor([[[0, 0, 0, 0, 2, 2, 1, 1]]])
    assert counts(scored(sure(owner, 3), true)) == (1, 1, 0)  # 4 of 6 pixels: dropped; 2 of 6: an instance
    assert counted_labels(sure(owner, 3), true).tolist() == [[[3, 3, 3, 3, 2, 2, 1, 1]]]


def test_a_dropped_slot_takes_no_partner_away() -> None:
    true = torch.tensor([[[0] * 4 + [1] * 8 + [2] * 5]])
    owner = torch.tensor([[[0] * 6 + [1] * 11]])
    # Slot 1 overlaps object 1 by 6/13 and object 2 by 5/11. Slot 0 would take object 1 with 1/6 if it stayed.
    assert counts(scored(sure(owner, 2), true, threshold=0.458)) == (1, 0, 1)


def test_images_with_nothing_at_all_are_left_out() -> None:
    nothing = torch.zeros_like(TRUE)
    ignored = torch.full_like(TRUE, -1)
    metric = InstanceSegmentation()
    metric.update(sure(torch.cat([nothing, TRUE, TRUE]), 3), torch.cat([nothing, ignored, TRUE]))
    assert counts(metric.compute()) == (2, 0, 0)
    assert (metric.scored, metric.left_out) == (1, 2)


def test_merged_objects_are_one_hit_at_most() -> None:
    owner = TRUE.clamp(max=1)
    scores = scored(sure(owner, 3), TRUE)
    assert counts(scores) == (1, 0, 1)
    assert scores.pq.item() == pytest.approx(4 / 6 / 1.5, abs=1e-6)
    assert counts(scored(sure(owner, 3), TRUE, threshold=0.7)) == (0, 1, 2)


def test_more_objects_than_slots() -> None:
    true = torch.arange(6).reshape(1, 1, 6).repeat(1, 2, 1)
    scores = scored(sure(true.clamp(max=2), 3), true)
    assert counts(scores) == (1, 1, 4)  # the slot of four objects fits none
    assert scores.recall.item() == pytest.approx(1 / 5, abs=1e-15)


def test_half_an_overlap_is_no_hit_under_the_published_epsilon() -> None:
    true = torch.tensor([[[0, 0, 1, 1]]])
    owner = torch.tensor([[[0, 0, 0, 1]]])
    assert counts(scored(sure(owner, 2), true, threshold=0.5)) == (0, 1, 1)
    assert counts(scored(sure(owner, 2), true, threshold=0.499)) == (1, 0, 0)


def images_of(*shares: float) -> tuple[Tensor, Tensor]:
    """Images of one object; a positive share finds it with that confidence, a negative one is a miss on it."""
    true = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]]).repeat(len(shares), 1, 1)
    owner = true.clone()
    for image, share in enumerate(shares):
        if share < 0:
            owner[image, 0, 5:] = 0  # a quarter of the object, and three pixels more in the background slot
    masks = [sure(o[None], 2, abs(share)) for o, share in zip(owner, shares, strict=True)]
    return torch.cat(masks), true


def test_average_precision_by_hand() -> None:
    # By confidence: hit, miss, hit; precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
    scores = scored(*images_of(0.7, -0.8, 0.9))
    assert counts(scores) == (2, 1, 1)
    assert scores.ap.item() == pytest.approx(1 / 3 + 1 / 3 * 2 / 3, abs=1e-12)
    # A hit behind a miss lifts the envelope before it.
    assert scored(*images_of(-0.9, 0.8, 0.7)).ap.item() == pytest.approx(2 / 3 * 2 / 3, abs=1e-12)


def test_equal_confidences_keep_their_order() -> None:
    assert scored(*images_of(0.75, -0.75)).ap.item() == 1 / 2
    assert scored(*images_of(-0.75, 0.75)).ap.item() == 1 / 4


def test_equal_confidences_score_alike_in_any_order_and_on_any_rank() -> None:
    masks, true = images_of(-0.75, 0.75, 0.75, -0.75, 0.9, 0.75)
    expected = torch.stack(scored(masks, true))
    indices = torch.arange(6)
    others = [torch.stack(scored(masks[order], true[order])) for order in ([1, 2, 5, 0, 3, 4], [5, 4, 3, 2, 1, 0])]
    assert any(other[0] != expected[0] for other in others), "the order must matter where no index is given"
    for batches in ([[1, 2], [5, 0], [3, 4]], [[5], [4, 3, 2], [1, 0]]):
        metric = InstanceSegmentation()
        for batch in batches:
            metric.update(masks[batch], true[batch], indices[batch])
        assert torch.equal(torch.stack(metric.compute()), expected)
    ranks = [InstanceSegmentation(), InstanceSegmentation()]
    for rank, metric in enumerate(ranks):
        metric.update(masks[rank::2], true[rank::2], indices[rank::2])
    ranks[0].merge_state(ranks[1])
    assert torch.equal(torch.stack(ranks[0].compute()), expected)


def test_ignored_pixels_take_no_part() -> None:
    masks, true = draw(7)
    true[:, 0] = -1
    other = masks.clone()
    other[:, :, 0] = 0
    other[:, 0, 0] = 1
    expected = torch.stack(scored(masks, true))
    assert expected.isfinite().all()
    torch.testing.assert_close(torch.stack(scored(other, true)), expected, equal_nan=True)
    torch.testing.assert_close(torch.stack(scored(masks[:, :, 1:], true[:, 1:])), expected, equal_nan=True)


def test_large_and_renumbered_labels_score_alike() -> None:
    masks, true = draw(2)
    expected = torch.stack(scored(masks, true))
    assert expected.isfinite().all()
    torch.testing.assert_close(torch.stack(scored(masks, true * 1_000_003)), expected, rtol=0, atol=0)


def test_batches_and_ranks_add_up() -> None:
    masks, true = draw(7)
    expected = torch.stack(scored(masks, true))
    assert expected.isfinite().all()
    first, second = InstanceSegmentation(), InstanceSegmentation()
    first.update(masks[:1], true[:1])
    second.update(masks[1:], true[1:])
    first.merge_state(second)
    first.merge_state(InstanceSegmentation())
    torch.testing.assert_close(torch.stack(first.compute()), expected, rtol=1e-12, atol=0, equal_nan=True)
    again = pickle.loads(pickle.dumps(first))
    torch.testing.assert_close(torch.stack(again.compute()), expected, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("others", [slice(1, None), slice(0, 0)])
def test_two_processes_add_up_also_when_the_other_has_no_images(others: slice) -> None:
    masks, true = draw(7)
    whole, other = InstanceSegmentation(), InstanceSegmentation()
    whole.update(torch.cat([masks[:1], masks[others]]), torch.cat([true[:1], true[others]]))
    if len(masks[others]):
        other.update(masks[others], true[others])
    names = iter(["images_scored", "images_left_out", "confidences", "ious", "places", "true_instances"])

    def gather(state: Tensor, group: Any = None) -> list[Tensor]:
        """What an all-gather of two processes gives; it needs one dtype on both."""
        theirs = getattr(other, next(names))
        theirs = torch.cat([torch.zeros(0, dtype=other.dtype), *theirs]) if isinstance(theirs, list) else theirs
        assert theirs.dtype == state.dtype
        return [state, theirs]

    metric = InstanceSegmentation(dist_sync_fn=gather, distributed_available_fn=lambda: True)
    metric.update(masks[:1], true[:1])
    torch.testing.assert_close(torch.stack(metric.compute()), torch.stack(whole.compute()), equal_nan=True)
    assert metric.scored == int(whole.images_scored)


def test_no_images_give_nan_and_no_counts() -> None:
    metric = InstanceSegmentation()
    metric.update(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=torch.int64))
    scores = metric.compute()
    assert torch.stack(scores[:5]).isnan().all()
    assert counts(scores) == (0, 0, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_masks_are_shares_too(dtype: torch.dtype) -> None:
    masks = torch.rand(2, 12, 9, 9, generator=torch.Generator().manual_seed(0)).mul(20).softmax(dim=1)
    true = torch.randint(0, 4, (2, 9, 9), generator=torch.Generator().manual_seed(1))
    assert counts(scored(masks.to(dtype), true))[1] > 0


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.int64), TypeError, "masks have dtype torch.int64; expected floating point"),
        (torch.full((1, 2, 4, 4), 0.6), ValueError, r"masks do not sum to 1 over slots \(they miss it by up to 0.2\)"),
        (torch.full((1, 2, 4, 4), torch.nan), ValueError, "masks hold NaN"),
        (torch.full((1, 2, 3, 4), 0.5), ValueError, "resize the predicted masks to the size of the true labels"),
        (torch.full((1, 256, 4, 4), 1 / 256), ValueError, "masks have 256 slots; expected at most 255"),
    ],
)
def test_bad_masks_are_refused(masks: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        InstanceSegmentation().update(masks, torch.zeros(1, 4, 4, dtype=torch.int64))


def test_thresholds_out_of_range_are_refused() -> None:
    for threshold in (0, -0.5, 1.5):
        with pytest.raises(ValueError, match=f"threshold is {threshold}; expected an IoU above 0 and at most 1"):
            InstanceSegmentation(threshold=threshold)
    for confidence in (-0.1, 1):
        with pytest.raises(ValueError, match=f"confidence is {confidence}; expected a share from 0 to below 1"):
            InstanceSegmentation(confidence=confidence)
        with pytest.raises(ValueError, match=f"confidence is {confidence}"):
            counted_labels(sure(TRUE, 3), TRUE, confidence)
