"""Objects found, object by object: AP, PQ, F1, precision and recall over a set. Spec 4.8.

The protocol of Yang and Yang, "Promising or Elusive? Unsupervised Object Segmentation from Real-world Single
Images" (2022), which the paper follows on YCB, ScanNet and COCO. A slot is a predicted instance on the pixels
of which it owns more than `confidence`, unless that region is the true background. Any number of true
instances may be in an image (the published code assumes at most as many as slots).

Slots that show the background are recognised by the truth: an oracle step, as in the published protocol.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor
from torch.nn.functional import pad

from boqsa.metrics.accumulate import ScoredImages
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.label_map import label_map
from boqsa.metrics.matching import matched_iou

# A slot with at least this IoU with the true background is no instance. It does not follow `threshold`, so
# that AP at several thresholds scores the same instances.
_BACKGROUND_IOU = 0.5

# The published protocol adds it to every union: an IoU of exactly one half falls below the threshold of 0.5.
_UNION_EPSILON = 1e-6

# Above it `contingency_table` renumbers labels, and rows would no longer be slots.
_MOST_SLOTS = 255


class InstanceScores(NamedTuple):
    """Scores of a whole set; scalars. NaN is 0 / 0: there is nothing to count."""

    ap: Float64[Tensor, ""]
    """Average precision: area under the envelope of precision over recall, 0 to 1; NaN without true instances."""
    pq: Float64[Tensor, ""]
    """Panoptic quality: sum of the IoU of true positives, over TP + FP / 2 + FN / 2; 0 to 1."""
    f1: Float64[Tensor, ""]
    """TP / (TP + FP / 2 + FN / 2), 0 to 1."""
    precision: Float64[Tensor, ""]
    """TP / (TP + FP), 0 to 1; NaN without predicted instances."""
    recall: Float64[Tensor, ""]
    """TP / (TP + FN), 0 to 1; NaN without true instances."""
    true_positives: Int64[Tensor, ""]
    """Predicted instances whose matched IoU reaches the threshold."""
    false_positives: Int64[Tensor, ""]
    """The other predicted instances."""
    false_negatives: Int64[Tensor, ""]
    """True instances that no true positive is matched to."""


class _Regions(NamedTuple):
    """Where slots are sure of themselves in a batch, and what is there."""

    labels: Int64[Tensor, "B H W"]
    """The slot that owns the pixel, or K where none owns more than the confidence."""
    share: Float[Tensor, "B H W"]
    """How much of the pixel its largest slot owns."""
    counts: Int64[Tensor, "B K+1 T"]
    """Contingency table of `labels` with the truth."""
    is_instance: Bool[Tensor, "B K"]
    """Which slots have pixels and do not show the background."""


def counted_labels(
    masks: Float[Tensor, "B K 1 H W"] | Float[Tensor, "B K H W"],
    true: Integer[Tensor, "B H W"],
    confidence: float = 0.5,
) -> Int64[Tensor, "B H W"]:
    """The label map of predicted instances alone; all other pixels share the extra label K.

    On this map the published protocol takes its side numbers, ARI-FG and covering.

    Args:
        masks: Share of each pixel that each slot owns; sums to 1 over K, K at most 255.
        true: True labels; 0 is the background. Pixels below 0 are left out of the decision which slots show
            the background.
        confidence: A slot has the pixels of which it owns more than this share, 0 to below 1.

    Returns:
        The slot of the instance at each pixel, or K where no instance is.

    Raises:
        TypeError, ValueError: as `contingency_table`, and if `masks` are not such shares.
    """
    regions = _regions(masks, true, _checked_confidence(confidence))
    slots = regions.is_instance.shape[1]
    is_kept = pad(regions.is_instance, (0, 1)).gather(1, regions.labels.flatten(start_dim=1))  # (B, H W)
    return regions.labels.where(is_kept.view_as(regions.labels), slots)


class InstanceSegmentation(ScoredImages):
    """AP, PQ, F1, precision and recall of slots as instances, over all images of a set and all ranks.

    Pixels with `true` below 0 take no part: neither in regions, nor in unions, nor in confidences. An image
    with neither true nor predicted instances adds nothing and is counted in `left_out`.

    Args:
        threshold: Matched IoU from which a predicted instance is a true positive, above 0 and at most 1.
        confidence: A slot has the pixels of which it owns more than this share, 0 to below 1.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: if `threshold` or `confidence` is out of its range.
    """

    higher_is_better = True
    confidences: list[Tensor]
    ious: list[Tensor]
    places: list[Tensor]
    true_instances: Tensor

    def __init__(self, threshold: float = 0.5, confidence: float = 0.5, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}; expected an IoU above 0 and at most 1.")
        self.threshold = threshold
        self.confidence = _checked_confidence(confidence)
        # One entry a predicted instance; the sorting for AP needs them all.
        self.add_state("confidences", [], dist_reduce_fx="cat")
        self.add_state("ious", [], dist_reduce_fx="cat")
        # The image of each, in float64 as all states are; whole numbers are exact in it up to 2 ** 53.
        self.add_state("places", [], dist_reduce_fx="cat")
        self.add_state("true_instances", torch.tensor(0), dist_reduce_fx="sum")
        # A rank without images hands over empty lists in the dtype of the metric, which must be that of the others.
        self.set_dtype(torch.float64)

    def update(self, masks: Tensor, true: Tensor, indices: Tensor | None = None) -> None:
        """Take in a batch of images.

        Args:
            masks: Share of each pixel that each slot owns, (batch, slots, height, width) or (batch, slots, 1,
                height, width); sums to 1 over slots, of which there may be 255.
            true: True labels (batch, height, width), any integers; 0 is the background, pixels below 0 are
                left out.
            indices: Place of each image in the set, whole numbers (batch,). With them, neither the order of batches
                nor who of several processes took which changes a score. By default images are counted as they come.

        Raises:
            TypeError, ValueError: as `contingency_table`, and if `masks` are not such shares.
        """
        regions = _regions(masks, true, self.confidence)
        if indices is None:
            indices = torch.arange(len(true)) + int(self.images_scored + self.images_left_out)
        is_instance = regions.is_instance  # (B, K)
        slots = is_instance.shape[1]
        is_true = regions.counts.sum(dim=1)[:, 1:] > 0  # (B, T - 1)
        iou = _iou(regions.counts)[:, :slots, 1:] * is_instance[:, :, None]  # (B, K, T - 1)

        share = regions.share.double().masked_fill(true.long() < 0, 0)
        owned = share.new_zeros(len(share), slots + 1)
        owned = owned.scatter_add(1, regions.labels.flatten(start_dim=1), share.flatten(start_dim=1))
        pixels = regions.counts[:, :slots].sum(dim=2)  # (B, K)

        self.confidences.append((owned[:, :slots] / pixels)[is_instance])
        self.ious.append(matched_iou(iou)[is_instance])
        self.places.append(indices.to(is_instance.device).double()[:, None].expand_as(is_instance)[is_instance])
        self.true_instances += is_true.sum()
        self.count(is_instance.any(dim=1) | is_true.any(dim=1))

    def compute(self) -> InstanceScores:
        """Scores of all images so far.

        Equal confidences keep the order of the images' indices, and within an image that of its slots.
        """
        self.publish_counts()
        confidence, iou, place = (self._joined(state) for state in (self.confidences, self.ious, self.places))
        by_place = place.argsort(stable=True)
        order = by_place[confidence[by_place].argsort(descending=True, stable=True)]
        iou = iou[order]
        is_hit = iou >= self.threshold
        hits = is_hit.cumsum(dim=0)
        ranks = torch.arange(1, len(iou) + 1, device=iou.device)
        # The best precision at this recall or a higher one.
        envelope = (hits.double() / ranks).flip(0).cummax(dim=0).values.flip(0)

        true_positives = is_hit.sum()
        false_positives = (~is_hit).sum()
        false_negatives = self.true_instances.long() - true_positives
        # TP + FP / 2 + FN / 2 in other words.
        mean_instances = (len(iou) + self.true_instances).double() / 2
        return InstanceScores(
            # Recall rises by one true instance at each hit and nowhere else.
            ap=envelope[is_hit].sum() / self.true_instances,
            pq=iou[is_hit].sum() / mean_instances,
            f1=true_positives / mean_instances,
            precision=true_positives.double() / len(iou),
            recall=true_positives.double() / self.true_instances,
            true_positives=true_positives,
            false_positives=false_positives,
            false_negatives=false_negatives,
        )

    def _joined(self, state: list[Tensor] | Tensor) -> Float64[Tensor, " predicted"]:
        """All entries of a list state, which is one tensor already after ranks were joined; there may be none."""
        none = torch.zeros(0, dtype=torch.float64, device=self.device)
        return state if isinstance(state, Tensor) else torch.cat([none, *state])


def _regions(masks: Tensor, true: Tensor, confidence: float) -> _Regions:
    """Steps 1 to 3 of spec 4.8."""
    if not masks.is_floating_point():
        raise TypeError(
            f"masks have dtype {masks.dtype}; expected floating point shares of each pixel: a label map does not "
            "say how sure the slots are."
        )
    labels = label_map(masks)
    masks = masks.flatten(1, -3)  # (B, K, H, W)
    slots = masks.shape[1]
    if slots > _MOST_SLOTS:
        raise ValueError(f"masks have {slots} slots; expected at most {_MOST_SLOTS}.")
    error = (masks.sum(dim=1, dtype=torch.float32) - 1).abs()
    if (error > 0.01).any():  # room for half precision
        raise ValueError(
            f"masks do not sum to 1 over slots (they miss it by up to {error.max().item():.3g}); expected shares of "
            "each pixel, such as Output.masks. Apply softmax over slots to scores."
        )
    share = masks.amax(dim=1)
    labels = labels.where(share > confidence, slots)
    counts = contingency_table(labels, true)
    counts = pad(counts, (0, 0, 0, slots + 1 - counts.shape[1]))  # (B, K + 1, T)
    has_pixels = counts[:, :slots].sum(dim=2) > 0
    is_background = _iou(counts)[:, :slots, 0] >= _BACKGROUND_IOU
    return _Regions(labels, share, counts, has_pixels & ~is_background)


def _iou(counts: Int64[Tensor, "B P T"]) -> Float64[Tensor, "B P T"]:
    union = counts.sum(dim=2, keepdim=True) + counts.sum(dim=1, keepdim=True) - counts
    return counts.double() / (union.double() + _UNION_EPSILON)


def _checked_confidence(confidence: float) -> float:
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share from 0 to below 1.")
    return confidence
