"""How well slots match objects: segmentation and reconstruction metrics, one float64 value an image.

Every segmentation metric is a formula on one batched contingency table (`contingency.py`), counted on the
device of the label maps. True labels follow one convention everywhere: 0 is the background, positive integers
are objects, negative integers are pixels to ignore. A function returns one value an image and NaN where an
image has nothing to score; a class averages over the scored images of a whole set, over all ranks, and counts
the images it left out. Instance scores (AP, PQ, F1) are the exception: they belong to a whole set and have no
value an image.

What a training run watches to diagnose itself (slot usage, attention entropy) does not live here.
"""

from boqsa.metrics.accumulate import MeanOverImages, ScoredImages
from boqsa.metrics.background import BackgroundInTopSlots, background_in_top_slots, background_shares
from boqsa.metrics.contingency import contingency_table
from boqsa.metrics.covering import (
    MeanBestOverlap,
    SegmentationCovering,
    class_labels,
    mean_best_overlap,
    segmentation_covering,
)
from boqsa.metrics.image_quality import PeakSignalToNoise, StructuralSimilarity, psnr, ssim
from boqsa.metrics.instances import InstanceScores, InstanceSegmentation, counted_labels
from boqsa.metrics.label_free import LabelFreeOverlap, LabelFreeScores, label_free_overlap, slot_off_border
from boqsa.metrics.label_map import label_map
from boqsa.metrics.matching import HungarianIoU, hungarian_iou
from boqsa.metrics.object_count import CountScores, ObjectCount, true_objects
from boqsa.metrics.overlap import (
    BestSlotOverlap,
    IntersectionScores,
    LargestIntersectionOverlap,
    SlotOverlap,
    best_slot_overlap,
    largest_intersection_overlap,
)
from boqsa.metrics.rand_index import AdjustedRandIndex, adjusted_rand_index
from boqsa.metrics.reconstruction import MeanSquaredError, mse, mse_per_image, mse_published

__all__ = [
    "AdjustedRandIndex",
    "BackgroundInTopSlots",
    "BestSlotOverlap",
    "CountScores",
    "HungarianIoU",
    "InstanceScores",
    "InstanceSegmentation",
    "IntersectionScores",
    "LabelFreeOverlap",
    "LabelFreeScores",
    "LargestIntersectionOverlap",
    "MeanBestOverlap",
    "MeanOverImages",
    "MeanSquaredError",
    "ObjectCount",
    "PeakSignalToNoise",
    "ScoredImages",
    "SegmentationCovering",
    "SlotOverlap",
    "StructuralSimilarity",
    "adjusted_rand_index",
    "background_in_top_slots",
    "background_shares",
    "best_slot_overlap",
    "class_labels",
    "contingency_table",
    "counted_labels",
    "hungarian_iou",
    "label_free_overlap",
    "label_map",
    "largest_intersection_overlap",
    "mean_best_overlap",
    "mse",
    "mse_per_image",
    "mse_published",
    "psnr",
    "segmentation_covering",
    "slot_off_border",
    "ssim",
    "true_objects",
]
