"""Score a model on a split: masks of the decoder and of attention, reconstruction, diagnostics (spec 4).

Evaluation is in fp32, whatever the training used, and without noise. Slots that are samples of a Gaussian are
drawn by the image's place in the split, so scores depend neither on the batch size nor on what ran before. A
score is a mean over images; instance scores and the fixed slot belong to the whole set. Masks are scored at the size of
the true ones, which for a features model need not be that of the images that its encoder saw.

In a job of several processes each takes every n-th batch, the metrics add up over all of them, and all get the same
scores: no image counts twice.

A transformer model has no masks but those of attention, and three reconstructions (spec 3.9). Its tokens are the
most probable ones, where the published evaluation samples them.
"""

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import Metric

from boqsa.data import PackedDataset
from boqsa.data.packing import CLASSES
from boqsa.errors import InputError
from boqsa.metrics import (
    AdjustedRandIndex,
    BackgroundInTopSlots,
    BestSlotOverlap,
    HungarianIoU,
    InstanceSegmentation,
    LabelFreeOverlap,
    LargestIntersectionOverlap,
    MeanBestOverlap,
    MeanOverImages,
    MeanSquaredError,
    ObjectCount,
    ScoredImages,
    SegmentationCovering,
    class_labels,
)
from boqsa.models import FeaturesModel, Output, TransformerModel
from boqsa.models.adaptive import has_adaptive_slots, needed_slots
from boqsa.models.radiance import RadianceModel
from boqsa.recipes import EvaluateRecipe
from boqsa.reports import main_masks
from boqsa.training.diagnostics import Diagnostics
from boqsa.training.draws import samples
from boqsa.training.features import mask_options, model_input
from boqsa.training.processes import rank_and_count
from boqsa.training.stability import update_spectral_norm
from boqsa.training.view_evaluation import evaluate_views

STABILITY_IMAGES = 8
"""Images that the spectral norm of the slot update is a mean over, always the first ones: it differs between images."""


class ImageSplit(Protocol):
    """What evaluation and training need of data; `boqsa.data.PackedDataset` is one."""

    @property
    def has_masks(self) -> bool: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Any) -> dict[str, Tensor]:
        """`image` uint8 (B, 3, H, W), `mask` int64 (B, H, W) with -1 = ignore if there are masks, `features` (B, N, F)
        where the model takes those, and `classes` (B, labels) of the objects of masks where they are known."""


def evaluate(
    model: nn.Module,
    split: ImageSplit,
    protocol: EvaluateRecipe,
    *,
    iterations: int | None = None,
    num_slots: int | None = None,
    limit: int = 0,
    generated: int = 0,
    lpips: nn.Module | None = None,
    adaptive: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All scores of a model on a split, as plain nested data.

    Args:
        model: Takes images, or features, and returns `Output`. Its training flag is left as it was.
        split: Images, with masks or without.
        protocol: Which metrics, and how many images at a time.
        iterations: Slot-attention steps; None means the trained number.
        num_slots: Slots; None means the trained number. Only slots of a shared Gaussian can be more. The spectral norm
            in `diagnostics` is of the trained number always.
        limit: Only the first so many images; 0 means all.
        generated: Of a transformer model: how many images, from the first, to decode from their slots alone. That
            is one pass of the decoder a token, so it is dear; 0 means none.
        lpips: Of a radiance model: that metric, with its weights.
        adaptive: Score the slots that each image needs, too (`boqsa.models.adaptive`); not of a radiance model.
        device: Where the model is.
        progress: Called with (images done, images in all), of a radiance model with scenes.

    Returns:
        Of a radiance model, what `evaluate_views` gives; of all others
        `loss` (the model's own) and `images`; `decoder_masks` (of a mixture or a features model) and
        `attention_masks`: a value for each metric, and `left_out`, how many images had nothing to score, by metric;
        `reconstruction` in each convention of spec 4.2, absent for a features model, whose `loss` is its error;
        `diagnostics`. Without masks the two mask entries are absent; where the classes of objects are known, and `mbo`
        is a metric, they have `mbo_class` too. With `adaptive` also
        `adaptive_masks`, and `object_count`: mean absolute errors of the number of needed slots that are objects, of
        the number of slots that own a pixel less one, and of the best constant.

        Of a transformer model also: `losses` by name; `reconstruction_teacher_forced` and
        `reconstruction_generated` beside `reconstruction`, which is the dVAE's; and `tokens`: `vocabulary`, how many
        of it were `used`, and the `perplexity` of their use (1 to `used`).
    """
    first = split.batch([0])
    needed = _NeededSlots(model, protocol, device, classes=CLASSES in first) if adaptive else None
    if isinstance(model, RadianceModel):
        if num_slots is not None or not isinstance(split, PackedDataset):
            raise ValueError("a radiance model is scored with its own slots, on a packed set of views.")
        return evaluate_views(
            model, split, protocol, iterations=iterations, limit=limit, device=device, lpips=lpips, progress=progress
        )
    count = min(limit, len(split)) if limit else len(split)
    transformer = model if isinstance(model, TransformerModel) else None
    sources = ("attention_masks",) if transformer else ("decoder_masks", "attention_masks")
    scores: dict[str, dict[str, ScoredImages]] = {
        source: _metrics(protocol, device, classes=CLASSES in first) for source in sources if split.has_masks
    }
    paints = not isinstance(model, FeaturesModel)
    reconstruction = _Errors(device)
    tokens = _Tokens(transformer, generated, device) if transformer else None
    rank, processes = rank_and_count()
    size = protocol.batch_size
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            # The first image says what there is to add up, also where this process will have no batch of its own.
            slots = {} if num_slots is None else {"num_slots": num_slots}
            asked = {"iterations": iterations, **slots, **mask_options(model, first)}
            example = _output(model, model_input(model, first).to(device), np.arange(1), asked)
            losses = {name: _BatchMean().to(device) for name in example.losses}
            diagnostics = Diagnostics.like(example).to(device)
            for begin in range(rank * size, count, processes * size):
                indices = np.arange(begin, min(begin + size, count))
                sample = split.batch(indices)
                image = sample["image"].to(device)
                taken = model_input(model, sample).to(device)
                output = _output(model, taken, indices, asked)
                true = _true_labels(sample, device) if split.has_masks else None
                unit = image.float() / 255
                for name, value in output.losses.items():
                    losses[name].update(value, len(indices))
                information = tokens.update(output, unit, begin) if tokens else None
                diagnostics.update(
                    output,
                    unit if paints else taken.float(),
                    None if true is None else true.objects,
                    slot_information=information,
                )
                if output.reconstruction is not None:
                    reconstruction.update(output.reconstruction, unit)
                if true is not None:
                    for source, metrics in scores.items():
                        masks = output.masks
                        if source == "attention_masks" and transformer is None:
                            masks = attention_masks(output.attention, tuple(image.shape[-2:]))
                        _update(metrics, masks, true, indices)
                    if needed is not None:
                        needed.update(output, unit if paints else taken, true, indices)
                if progress is not None:
                    progress(int(indices[-1]) + 1, count)
        spectral_norm = _spectral_norm(model, split, min(count, STABILITY_IMAGES), size, iterations, device)
    finally:
        model.train(was_training)
    means = {name: float(mean.compute()) for name, mean in losses.items()}
    return {
        "loss": sum(means.values()),
        **({"losses": means} if len(means) > 1 else {}),
        "images": count,
        **{source: _summary(metrics) for source, metrics in scores.items()},
        **(needed.compute() if needed and split.has_masks else {}),
        **({"reconstruction": reconstruction.compute()} if paints else {}),
        **(tokens.compute(count) if tokens else {}),
        "diagnostics": {**diagnostics.compute(), "update_spectral_norm": spectral_norm},
    }


def _output(model: nn.Module, taken: Tensor, indices: Int[np.ndarray, "B"], asked: Mapping[str, Any]) -> Output:
    """What a model makes of a batch."""
    noise = samples(model, indices, taken.device, num_slots=asked.get("num_slots"))
    output: Output = model(taken, noise=noise, **asked)
    return output


def _spectral_norm(
    model: nn.Module, split: ImageSplit, count: int, size: int, iterations: int | None, device: torch.device | str
) -> float | None:
    """Of the slot update on the first `count` images, at most `size` at a time, as memory has room for no more; outside
    inference mode, which knows no derivatives."""
    total = 0.0
    for first in range(0, count, size):
        indices = np.arange(first, min(first + size, count))
        taken = model_input(model, split.batch(indices)).to(device)
        norm = update_spectral_norm(model, taken, noise=samples(model, indices, device), iterations=iterations)
        if norm is None:
            return None
        total += norm * (len(indices) / count)
    return total


class _TrueLabels(NamedTuple):
    """Of a batch."""

    objects: Int[Tensor, "B H W"]
    classes: Int[Tensor, "B H W"] | None
    """The same with the objects of a class joined, where classes are known."""


def _true_labels(sample: Mapping[str, Tensor], device: torch.device | str) -> _TrueLabels:
    objects = sample["mask"].to(device)
    if CLASSES not in sample:
        return _TrueLabels(objects, None)
    try:
        return _TrueLabels(objects, class_labels(objects, sample[CLASSES].to(device)))
    except ValueError as error:
        raise InputError(f"the classes of this data do not fit its masks: {error} Prepare it again.") from None


def _update(metrics: dict[str, ScoredImages], masks: Tensor, true: _TrueLabels, indices: Int[np.ndarray, "B"]) -> None:
    for name, metric in metrics.items():
        if isinstance(metric, InstanceSegmentation):
            metric.update(masks, true.objects, torch.from_numpy(indices))
        else:
            metric.update(masks, true.classes if name == "mbo_class" else true.objects)


class _NeededSlots:
    """Scores of the slots that each image needs, and how well they count."""

    def __init__(
        self, model: nn.Module, protocol: EvaluateRecipe, device: torch.device | str, *, classes: bool
    ) -> None:
        if not has_adaptive_slots(model):
            raise InputError("adaptive slots are for mixture, transformer and features models; leave adaptive out.")
        self._model = model
        self._metrics = _metrics(protocol, device, classes=classes)
        self._counts = {name: ObjectCount().to(device) for name in ("adaptive", "slots_with_pixels")}

    def update(
        self,
        output: Output,
        given: Float[Tensor, "B 3 H W"] | Float[Tensor, "B N F"],
        true: _TrueLabels,
        indices: Int[np.ndarray, "B"],
    ) -> None:
        """Take in a batch, images in [0, 1], or features."""
        found = needed_slots(output, given, self._model)
        owned = nn.functional.one_hot(output.segmentation().flatten(1), output.masks.shape[1])  # (B, P, K)
        self._counts["adaptive"].update(found.objects(), true.objects)
        self._counts["slots_with_pixels"].update(owned.any(dim=1).sum(dim=1) - 1, true.objects)
        _update(self._metrics, found.masks, true, indices)

    def compute(self) -> dict[str, Any]:
        """`adaptive_masks` and `object_count`."""
        counted = {name: metric.compute() for name, metric in self._counts.items()}
        errors = {name: float(scores.count_error) for name, scores in counted.items()}
        constant = float(counted["adaptive"].count_error_of_constant)
        return {"adaptive_masks": _summary(self._metrics), "object_count": {**errors, "best_constant": constant}}


class _BatchMean(MeanOverImages):
    """Mean over images of a number that is known by the batch."""

    def update(self, value: Float[Tensor, ""], images: int) -> None:
        self.total += value.double() * images
        self.images_scored += images


class _Errors:
    """Reconstruction error in every convention."""

    def __init__(self, device: torch.device | str) -> None:
        self._metrics = {name: MeanSquaredError(name).to(device) for name in ("mse", "mse_per_image", "mse_published")}

    def update(self, reconstruction: Float[Tensor, "B 3 H W"], image: Float[Tensor, "B 3 H W"]) -> None:
        for metric in self._metrics.values():
            metric.update(reconstruction, image)

    def compute(self) -> dict[str, float]:
        return {name: float(metric.compute()) for name, metric in self._metrics.items()}


class _Tokens:
    """What only a transformer model has: two more reconstructions, the use of tokens, and whether slots matter."""

    def __init__(self, model: TransformerModel, generated: int, device: torch.device | str) -> None:
        self.model = model
        self._generated = generated
        self._errors = {"teacher_forced": _Errors(device), **({"generated": _Errors(device)} if generated else {})}
        self._uses = _TokenUses(model.vocab_size).to(device)

    def update(self, output: Output, image: Float[Tensor, "B 3 H W"], first: int) -> Float[Tensor, ""] | None:
        """Take in a batch that begins at image `first`; gives its `slot_information`, None for a batch of one."""
        assert output.tokens is not None
        self._uses.update(output.tokens)
        self._errors["teacher_forced"].update(self.model.teacher_forced(output).image, image)
        wanted = min(max(self._generated - first, 0), len(image))
        if wanted:
            self._errors["generated"].update(self.model.generate(output.slots[:wanted]).image, image[:wanted])
        return _slot_information(self.model, output)

    def compute(self, images: int) -> dict[str, Any]:
        uses = self._uses.compute()
        share = uses / uses.sum()
        errors = {f"reconstruction_{name}": errors.compute() for name, errors in self._errors.items()}
        if self._generated:
            errors["reconstruction_generated"]["images"] = min(self._generated, images)
        return {
            **errors,
            "tokens": {
                "vocabulary": len(uses),
                "used": int((uses > 0).sum()),
                "perplexity": float(torch.special.entr(share).sum().exp()),
            },
        }


class _TokenUses(Metric):
    """How often each token occurs."""

    full_state_update = False
    uses: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.add_state("uses", torch.zeros(vocab_size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, tokens: Int[Tensor, "B h w"]) -> None:
        self.uses += torch.bincount(tokens.flatten(), minlength=len(self.uses))

    def compute(self) -> Tensor:
        return self.uses


def _slot_information(model: TransformerModel, output: Output) -> Float[Tensor, ""] | None:
    """How much longer, in nats a token, the code of an image is with the slots of another image of the batch."""
    assert output.tokens is not None
    assert output.logits is not None
    if len(output.slots) < 2:
        return None
    tokens = output.tokens.flatten(1)  # (B, L)
    others = model.token_decoder(model.token_decoder.embed(tokens), output.slots.roll(1, dims=0))  # (B, L, V)
    with_others = nn.functional.cross_entropy(others.flatten(0, 1), tokens.flatten())
    with_own = nn.functional.cross_entropy(output.logits.flatten(0, 1), tokens.flatten())
    return with_others - with_own


def attention_masks(attention: Float[Tensor, "B K N"], size: tuple[int, ...]) -> Float[Tensor, "B K 1 H W"]:
    """Attention over a square feature grid, resized bilinearly to `size`; sums to 1 over slots."""
    batch, slots, tokens = attention.shape
    side = isqrt(tokens)
    grid = attention.view(batch, slots, side, side)
    return nn.functional.interpolate(grid, size=size, mode="bilinear", antialias=False).unsqueeze(2)


SHOWN_METRICS = {
    "ari_fg": "ARI-FG",
    "msc_fg": "MSC-FG",
    "ari": "ARI",
    "iou": "IoU",
    "dice": "Dice",
    "ap": "AP",
    "pq": "PQ",
}
"""The label metrics that a line has room for, of all tasks, and how people write them."""


def headline(scores: dict[str, Any]) -> dict[str, float]:
    """The label metrics of the main masks alone, flat: what the log, the console and `best_<metric>` go by."""
    return {name: value for name, value in main_masks(scores).items() if name != "left_out"}


def _metrics(protocol: EvaluateRecipe, device: torch.device | str, *, classes: bool) -> dict[str, ScoredImages]:
    metrics: dict[str, ScoredImages]
    if protocol.task == "foreground":
        metrics = {
            "overlap": BestSlotOverlap(),
            "largest_intersection": LargestIntersectionOverlap(),
            "label_free": LabelFreeOverlap(),
        }
    elif protocol.task == "instances":
        metrics = {
            "instances": InstanceSegmentation(),
            "mbo": MeanBestOverlap(),
            "hungarian_iou": HungarianIoU(),
            "ari_fg": AdjustedRandIndex(foreground_only=True),
        }
    else:
        metrics = {
            "ari": AdjustedRandIndex(),
            "ari_fg": AdjustedRandIndex(foreground_only=True),
            "msc": SegmentationCovering(),
            "msc_fg": SegmentationCovering(foreground_only=True),
            "msc_fg_weighted": SegmentationCovering(foreground_only=True, weighted=True),
            "background_in_one_slot": BackgroundInTopSlots(slots=1),
            "background_in_two_slots": BackgroundInTopSlots(slots=2),
            "mbo": MeanBestOverlap(),
            "hungarian_iou": HungarianIoU(),
        }
    if classes and "mbo" in metrics:
        metrics["mbo_class"] = MeanBestOverlap()  # of masks whose objects of one class are joined
    return {name: metric.to(device) for name, metric in metrics.items()}


def _summary(metrics: dict[str, ScoredImages]) -> dict[str, Any]:
    """A metric that has several values names them itself."""
    summary: dict[str, Any] = {}
    for name, metric in metrics.items():
        value: Any = metric.compute()
        parts = value._asdict() if isinstance(value, tuple) else {name: value}  # type: ignore[attr-defined]
        summary |= {part: tensor.item() for part, tensor in parts.items()}
    return {**summary, "left_out": {name: metric.left_out for name, metric in metrics.items()}}
