"""Score a radiance model on scenes of several views (uorf 10): one view in, all of them rendered.

The first view of a scene by name is the input, the others are novel. Segmentations are the largest of the published
slot masks (uorf 6.6); images are scored on novel views alone. A score is a mean over scenes, or over their novel views.

Notable choices:
- NV-ARI is the mean over all novel views. The published code kept the last one of each scene: `nv_ari_last`.
- What cannot be computed is None, never 0: LPIPS without its weights.
- Objects are not kept in their box, and slots that are samples are drawn by the scene's place in the split.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.data import PackedDataset
from boqsa.metrics import (
    AdjustedRandIndex,
    MeanOverImages,
    MeanSquaredError,
    PeakSignalToNoise,
    ScoredImages,
    SegmentationCovering,
    StructuralSimilarity,
)
from boqsa.models.radiance import RadianceModel, photographs
from boqsa.recipes import EvaluateRecipe, RadianceEvaluateRecipe
from boqsa.training.diagnostics import Diagnostics
from boqsa.training.draws import samples
from boqsa.training.processes import rank_and_count
from boqsa.training.views import SceneViews


def evaluate_views(
    model: RadianceModel,
    split: PackedDataset,
    protocol: EvaluateRecipe,
    *,
    iterations: int | None = None,
    limit: int = 0,
    device: torch.device | str = "cpu",
    lpips: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All scores of a radiance model on a split, as plain nested data.

    Args:
        model: Its training flag is left as it was.
        split: Views with cameras, with masks or without.
        protocol: How many views, how large, how many samples a ray.
        iterations: Slot-attention steps; None means the trained number.
        limit: Only the first so many scenes; 0 means all.
        device: Where the model is.
        lpips: The metric with its weights, if the user has them.
        progress: Called with (scenes done, scenes in all).

    Returns:
        `loss`: the reconstruction error of all views, between -1 and 1.
        `images`: scenes scored.
        `decoder_masks`, where there are masks: `ari`, `ari_fg`, `msc_fg` of the input view, `nv_ari`, `nv_ari_fg` of
        the novel ones, and `nv_ari_last`.
        `reconstruction`: `mse` of the input view.
        `novel_views`: `psnr`, `ssim`, `lpips` and `mse`, and `psnr_of_mean_image`, what the mean of the split's views
        gives in place of each novel one: a little more than the mean training image would.
        `diagnostics` of the input view.
    """
    of = protocol.radiance
    scenes = SceneViews(split, device, least=of.views)
    count = min(limit, len(scenes)) if limit else len(scenes)
    scores = _Scores(scenes.has_masks, _mean_image(scenes, of), lpips)
    rank, processes = rank_and_count()
    was_training = model.training
    model.eval()
    size = (of.size, of.size)
    diagnostics = Diagnostics(model.slot_encoder.num_slots, size, model="radiance").to(device)
    try:
        with torch.inference_mode():
            for scene in range(rank, count, processes):
                chosen = np.arange(of.views)[None]
                views = scenes.views([scene], chosen)
                noise = samples(model, np.array([scene]), device)
                found, seen = model.look(views, size=of.size, samples=of.samples, iterations=iterations, noise=noise)
                image = photographs(views.image, of.size)[0]  # (N, 3, H, W)
                true = labels_at(scenes.masks([scene], chosen), of.size)[0] if scenes.has_masks else None
                scores.update(seen.image[0], seen.slot_masks[0], image, true)
                diagnostics.update(
                    seen.of_view(0, found),
                    image[:1],
                    None if true is None else true[:1],
                    occupancy=model.occupancy(found.slots, model.frame_of(views.camera[:, 0], views.azimuth[:, 0])),
                )
                if progress is not None:
                    progress(min(scene + processes, count), count)
    finally:
        model.train(was_training)
    return {**scores.compute(), "images": count, "diagnostics": {**diagnostics.compute(), "update_spectral_norm": None}}


def _mean_image(scenes: SceneViews, of: RadianceEvaluateRecipe) -> Float[Tensor, "3 h w"]:
    """Of all views that a split is scored on, novel ones and inputs."""
    chosen = np.arange(of.views)[None]
    images = (photographs(scenes.views([scene], chosen).image, of.size)[0] for scene in range(len(scenes)))
    total: Tensor = sum(image.double().sum(dim=0) for image in images)  # type: ignore[assignment]
    return (total / (len(scenes) * of.views)).float()


def labels_at(masks: Int[Tensor, "B N H W"], size: int) -> Int[Tensor, "B N h w"]:
    """True labels at another size, each pixel the nearest (uorf 10.4)."""
    if masks.shape[-1] == size:
        return masks
    return nn.functional.interpolate(masks.float(), size=(size, size), mode="nearest-exact").long()


class _Scores:
    """Every metric of a split, view by view."""

    def __init__(self, has_masks: bool, mean_image: Float[Tensor, "3 H W"], lpips: nn.Module | None) -> None:
        device = mean_image.device
        self._loss = _Mean().to(device)
        self._images: dict[str, ScoredImages] = {
            "psnr": PeakSignalToNoise(),
            "ssim": StructuralSimilarity(),
            "mse": MeanSquaredError("mse"),
        }
        self._input_error = MeanSquaredError("mse").to(device)
        self._mean_image, self._of_mean = mean_image, PeakSignalToNoise().to(device)
        self._lpips, self._distance = lpips, _Mean().to(device)
        self._of_input: dict[str, ScoredImages] = {}
        self._of_novel: dict[str, ScoredImages] = {}
        self._last = AdjustedRandIndex().to(device)
        if has_masks:
            self._of_input = {
                "ari": AdjustedRandIndex(),
                "ari_fg": AdjustedRandIndex(foreground_only=True),
                "msc_fg": SegmentationCovering(foreground_only=True),
            }
            self._of_novel = {"nv_ari": AdjustedRandIndex(), "nv_ari_fg": AdjustedRandIndex(foreground_only=True)}
        for metric in (*self._images.values(), *self._of_input.values(), *self._of_novel.values()):
            metric.to(device)

    def update(
        self,
        rendered: Float[Tensor, "N 3 H W"],
        slot_masks: Float[Tensor, "N K H W"],
        image: Float[Tensor, "N 3 H W"],
        true: Int[Tensor, "N H W"] | None,
    ) -> None:
        """Take in a scene; its first view is the input."""
        self._loss.update(4 * (rendered - image).square().mean().double()[None])
        for metric in self._images.values():
            metric.update(rendered[1:], image[1:])
        self._input_error.update(rendered[:1], image[:1])
        self._of_mean.update(self._mean_image.expand_as(image[1:]), image[1:])
        if self._lpips is not None:
            self._distance.update(self._lpips(rendered[1:], image[1:]).double())
        if true is not None:
            for metric in self._of_input.values():
                metric.update(slot_masks[:1, :, None], true[:1])
            for metric in self._of_novel.values():
                metric.update(slot_masks[1:, :, None], true[1:])
            self._last.update(slot_masks[-1:, :, None], true[-1:])

    def compute(self) -> dict[str, Any]:
        scores: dict[str, Any] = {"loss": float(self._loss.compute())}
        if self._of_input:
            metrics = {**self._of_input, **self._of_novel, "nv_ari_last": self._last}
            scores["decoder_masks"] = {
                **{name: float(metric.compute()) for name, metric in metrics.items()},
                "left_out": {name: metric.left_out for name, metric in metrics.items()},
            }
        scores["reconstruction"] = {"mse": float(self._input_error.compute())}
        scores["novel_views"] = {
            **{name: float(metric.compute()) for name, metric in self._images.items()},
            "lpips": None if self._lpips is None else float(self._distance.compute()),
            "psnr_of_mean_image": float(self._of_mean.compute()),
        }
        return scores


class _Mean(MeanOverImages):
    """Mean of numbers, one an image or scene."""

    def update(self, values: Float[Tensor, "n"]) -> None:
        self.add(values, torch.ones_like(values, dtype=torch.bool))
