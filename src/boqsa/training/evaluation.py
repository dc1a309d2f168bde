"""Score a model on a split: masks of the decoder and of attention, reconstruction, diagnostics (spec 4).

Evaluation is in fp32, whatever the training used, and without noise. Slots that are samples of a Gaussian are
drawn by the image's place in the split, so scores depend neither on the batch size nor on what ran before. A
score is a mean over images.
"""

from math import isqrt
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.metrics import (
    AdjustedRandIndex,
    BackgroundInTopSlots,
    BestSlotOverlap,
    MeanOverImages,
    MeanSquaredError,
    SegmentationCovering,
)
from boqsa.models import Noise, Output
from boqsa.recipes import EvaluateRecipe
from boqsa.training.diagnostics import Diagnostics
from boqsa.training.draws import draw_noise


class ImageSplit(Protocol):
    """What evaluation and training need of data; `boqsa.data.PackedDataset` is one."""

    @property
    def has_masks(self) -> bool: ...

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
        model: Takes images, returns `Output`. Its training flag is left as it was.
        split: Images, with masks or without.
        protocol: Which metrics, and how many images at a time.
        iterations: Slot-attention steps; None means the trained number.
        limit: Only the first so many images; 0 means all.
        device: Where the model is.

    Returns:
        `loss` (the model's own) and `images`; `decoder_masks` and `attention_masks`: a mean over images for
        each metric, and `left_out`, how many images had nothing to score, by metric; `reconstruction` in each
        convention of spec 4.2; `diagnostics`. Without masks the two mask entries are absent.
    """
    count = min(limit, len(split)) if limit else len(split)
    sources = ("decoder_masks", "attention_masks") if split.has_masks else ()
    scores: dict[str, dict[str, Any]] = {source: _metrics(protocol) for source in sources}
    errors = {name: MeanSquaredError(name).to(device) for name in ("mse", "mse_per_image", "mse_published")}
    diagnostics = Diagnostics()
    loss = 0.0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for first in range(0, count, protocol.batch_size):
                indices = np.arange(first, min(first + protocol.batch_size, count))
                sample = split.batch(indices)
                image = sample["image"].to(device)
                output: Output = model(image, iterations=iterations, noise=_samples(model, indices, device))
                true = sample["mask"].to(device) if split.has_masks else None
                unit = image.float() / 255
                loss += float(output.loss) * len(indices)
                diagnostics.update(output, unit, true)
                for error in errors.values():
                    error.update(output.reconstruction, unit)
                if true is not None:
                    masks = {
                        "decoder_masks": output.masks,
                        "attention_masks": attention_masks(output.attention, tuple(image.shape[-2:])),
                    }
                    for source, metrics in scores.items():
                        for metric in metrics.values():
                            metric.to(device).update(masks[source], true)
    finally:
        model.train(was_training)
    return {
        "loss": loss / count,
        "images": count,
        **{source: _summary(metrics) for source, metrics in scores.items()},
        "reconstruction": {name: float(error.compute()) for name, error in errors.items()},
        "diagnostics": diagnostics.compute(),
    }


def _samples(model: nn.Module, indices: Int[np.ndarray, "B"], device: torch.device | str) -> Noise:
    """What Gaussian slots start from; learned queries pay no attention to it, for sigma is 0."""
    shapes = model.noise_shapes()  # type: ignore[operator]  # every model has it, which nn.Module does not know
    noise = draw_noise(shapes, seed=0, step=0, positions=indices.tolist(), perturb_queries=True)
    return Noise(queries=None if noise.queries is None else noise.queries.to(device))


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
