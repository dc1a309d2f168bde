"""Score a model on a split: masks of the decoder and of attention, reconstruction, diagnostics (spec 4).

Evaluation is without noise and in fp32, whatever the training used; a score is a mean over images.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from boqsa.metrics import (
    AdjustedRandIndex,
    BackgroundInTopSlots,
    BestSlotOverlap,
    MeanOverImages,
    MeanSquaredError,
    SegmentationCovering,
)
from boqsa.recipes import EvaluateRecipe
from boqsa.training.diagnostics import Diagnostics


class ImageSplit(Protocol):
    """What evaluation and training need of data; `boqsa.data.PackedDataset` is one."""

    has_masks: bool

    def __len__(self) -> int: ...

    def batch(self, indices: Any) -> dict[str, Tensor]:
        """`image` uint8 (B, 3, H, W), and `mask` int64 (B, H, W) with -1 = ignore if there are masks."""


def evaluate(
    model: nn.Module,
    split: ImageSplit,
    protocol: EvaluateRecipe,
    *,
    iterations: int | None = None,
    limit: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """All scores of a model on a split, as plain nested data.

    Args:
        model: Takes images, returns `Output`. Its training flag is put back at the end.
        split: Images, with masks or without.
        protocol: Which metrics, and how many images at a time.
        iterations: Slot-attention steps; None means the trained number.
        limit: Only the first so many images; 0 means all.
        device: Where the model is.

    Returns:
        `loss` (the model's own); `decoder_masks` and `attention_masks`: a mean over images for each metric, with
        `images` scored and `left_out` (nothing to score) by metric; `reconstruction` in each convention of spec 4.2;
        `diagnostics`. Without masks the two mask entries are absent.
    """
    count = min(limit, len(split)) if limit else len(split)
    sources = ("decoder_masks", "attention_masks") if split.has_masks else ()
    scores: dict[str, dict[str, Any]] = {source: _metrics(protocol) for source in sources}
    errors = {name: MeanSquaredError(name) for name in ("mse", "mse_per_image", "mse_published")}
    diagnostics = Diagnostics()
    loss = 0.0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for indices in _batches(count, protocol.batch_size):
            sample = split.batch(indices)
            image = sample["image"].to(device)
            true = sample["mask"].to(device) if split.has_masks else None
            output = model(image, iterations=iterations)
            unit = image.float() / 255
            loss += float(output.loss) * len(indices)
            diagnostics.update(output, unit, true)
            for error in errors.values():
                error.to(device).update(output.reconstruction.float(), unit)
            if true is None:
                continue
            masks = {
                "decoder_masks": output.masks,
                "attention_masks": attention_masks(output.attention, tuple(image.shape[-2:])),
            }
            for source, metrics in scores.items():
                for metric in metrics.values():
                    metric.to(device).update(masks[source], true)
    model.train(was_training)
    return {
        "loss": loss / count,
        "images": count,
        **{source: _summary(metrics) for source, metrics in scores.items()},
        "reconstruction": {name: float(error.compute()) for name, error in errors.items()},
        "diagnostics": diagnostics.compute(),
    }


def attention_masks(attention: Float[Tensor, "B K N"], size: tuple[int, ...]) -> Float[Tensor, "B K 1 H W"]:
    """Attention over a square feature grid, resized bilinearly to `size`; sums to 1 over slots."""
    batch, slots, tokens = attention.shape
    side = isqrt(tokens)
    grid = attention.view(batch, slots, side, side)
    return nn.functional.interpolate(grid, size=size, mode="bilinear", antialias=False).unsqueeze(2)


def headline(scores: dict[str, Any]) -> dict[str, float]:
    """The label metrics of the decoder's masks alone, flat: what the log and the console show."""
    return {name: value for name, value in scores.get("decoder_masks", {}).items() if name != "left_out"}


def _metrics(protocol: EvaluateRecipe) -> dict[str, MeanOverImages]:
    if protocol.task == "foreground":
        return {"overlap": BestSlotOverlap()}
    return {
        "ari": AdjustedRandIndex(),
        "ari_fg": AdjustedRandIndex(foreground_only=True),
        "msc": SegmentationCovering(),
        "msc_fg": SegmentationCovering(foreground_only=True),
        "msc_fg_weighted": SegmentationCovering(foreground_only=True, weighted=True),
        "background_in_one_slot": BackgroundInTopSlots(slots=1),
        "background_in_two_slots": BackgroundInTopSlots(slots=2),
    }


def _summary(metrics: dict[str, MeanOverImages]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, metric in metrics.items():
        value = metric.compute()
        if isinstance(metric, BestSlotOverlap):
            summary |= {"iou": float(value.iou), "dice": float(value.dice)}
        else:
            summary[name] = float(value)
    return {**summary, "left_out": {name: metric.left_out for name, metric in metrics.items()}}


def _batches(count: int, batch_size: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    for first in range(0, count, batch_size):
        yield np.arange(first, min(first + batch_size, count))
