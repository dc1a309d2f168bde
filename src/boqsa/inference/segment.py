"""Split pictures of any size into slots: squeeze to the model's size, discover, label every pixel.

The soft masks are brought to the picture's size before the arg max: edges come out smoother than enlarged
labels.

Shapes: H W picture, h w model, K slots, D slot size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from boqsa.data.resample import resize_image
from boqsa.errors import InputError
from boqsa.inference.encoder import attach_encoder
from boqsa.inference.load import load, locate, require_device
from boqsa.inference.names import UNNAMED, checked_names, read_names
from boqsa.inference.picture import to_picture
from boqsa.models import FeaturesModel, Noise, TransformerModel
from boqsa.models.adaptive import has_adaptive_slots, needed_slots
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel
from boqsa.reports import overlay

if TYPE_CHECKING:
    from supervision import Detections

IGNORE = 255
"""Label of pixels outside the crop."""

_STRIP = 2**23  # values of the enlarged masks that are held at a time (32 MiB)


class Segmentation(NamedTuple):
    """What a model found in one picture, on the CPU. Slots that own no pixel are part of it: they have no area."""

    picture: UInt8[np.ndarray, "H W 3"]
    """The picture as it was seen: RGB, upright."""
    labels: UInt8[np.ndarray, "H W"]
    """Index of the slot that owns each pixel, 0 to K - 1; 255 outside the crop."""
    masks: Float32[np.ndarray, "K h w"]
    """Share of each pixel that each slot owns, at the size of the model; sums to 1 over slots."""
    slots: Float32[np.ndarray, "K D"]
    """The slots after the last iteration."""
    reconstruction: Float32[np.ndarray, "3 h w"] | None
    """In [0, 1] units, not clamped; None of a features model, which paints no picture."""
    window: tuple[slice, slice]
    """The rows and columns that the model saw: all, or the crop."""
    names: Mapping[int, str] = UNNAMED
    """What the slots are called, those that have a name."""

    @property
    def area(self) -> Int64[np.ndarray, "K"]:
        """Pixels that each slot owns."""
        return area_of(self.labels, len(self.slots))

    @property
    def share(self) -> Float64[np.ndarray, "K"]:
        """Share of the labelled pixels that each slot owns; sums to 1."""
        area = self.area
        share: Float64[np.ndarray, "K"] = area / area.sum()
        return share

    @property
    def xyxy(self) -> Float32[np.ndarray, "K 4"]:
        """The box around the pixels of each slot: left, top, right, bottom, in pixels of the picture, the last two
        exclusive. Zeros for a slot that owns none."""
        return boxes_of(self.labels, len(self.slots))

    @property
    def confidence(self) -> Float32[np.ndarray, "K"]:
        """How sure each slot is of its pixels: the mean of its mask where it is the largest one, at the size of the
        model; 1/K (undecided) to 1, and 0 for a slot that is the largest nowhere."""
        return confidence_of(self.masks)

    def soft_masks(self) -> Float32[np.ndarray, "K H W"]:
        """Share of each pixel of the picture that each slot owns; sums to 1 over slots, and to 0 outside the crop."""
        height, width = self.labels[self.window].shape
        whole = np.zeros((len(self.slots), *self.labels.shape), np.float32)
        masks = torch.from_numpy(self.masks)[None]
        whole[:, *self.window] = interpolate(masks, (height, width), mode="bilinear", antialias=True)[0].numpy()
        return whole

    def certainty(self) -> Float32[np.ndarray, "H W"]:
        """How sure the slots are of each pixel of the picture: the largest mask there, 1/K (undecided) to 1; 0 outside
        the crop."""
        height, width = self.labels[self.window].shape
        whole = np.zeros(self.labels.shape, np.float32)
        largest = torch.from_numpy(self.masks.max(axis=0))[None, None]
        whole[self.window] = interpolate(largest, (height, width), mode="bilinear", antialias=True)[0, 0].numpy()
        return whole

    def slot_picture(self, slot: int) -> UInt8[np.ndarray, "H W 4"]:
        """One slot cut out: RGB and opacity, 255 where the slot owns the pixel.

        Raises:
            InputError: if there is no such slot.
        """
        if not 0 <= slot < len(self.slots):
            raise InputError(f"slot {slot} does not exist; slots are 0 to {len(self.slots) - 1}.")
        opacity = np.where(self.labels == slot, 255, 0).astype(np.uint8)
        return np.dstack([self.picture, opacity])

    def to_supervision(self) -> "Detections":
        """The slots that own pixels as `supervision.Detections`: boxes, masks, confidence; `class_id` is the slot.

        Raises:
            InputError: if `supervision` is not installed.
        """
        from boqsa.inference.exchange import to_supervision

        return to_supervision(self)

    def to_coco(self, *, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """The slots that own pixels as annotations of COCO instances, with run lengths; `category_id` is the slot + 1.

        Their names are in `boqsa.inference.exchange.coco_categories(len(found.slots), found.names)`.

        Args:
            image_id: Of the picture.
            first_id: Of the first annotation.
        """
        from boqsa.inference.exchange import coco_annotations

        return coco_annotations(self.labels, self.masks, image_id=image_id, first_id=first_id)

    def overlay(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture under the colours of its slots; outside the crop it stays as it is."""
        return overlay(self.picture, np.where(self.labels == IGNORE, -1, self.labels.astype(np.int16)))


class Segmenter:
    """A model, ready for pictures of any size and mode.

    Sampled queries start from the same numbers for every picture, so that a result can be had again.

    Args:
        model: Put into eval mode; pictures go to its device and dtype.
        crop: False squeezes the picture, so that every pixel gets a label. True takes the largest central
            square, as training does.
        iterations: Slot-attention steps; None means the trained number.
        adaptive: Leave out the slots that a picture does not need (`boqsa.models.adaptive`); not for radiance
            models.
        names: What slots are called, those that have a name; `names` of what is found.

    Raises:
        InputError: if `iterations` is no whole number of at least 1, the model has more slots than a label map can
            name, its slots cannot be adaptive, it is a features model without its encoder, or one of the names is no
            name of a slot.

    Example:
        >>> segmenter = boqsa.Segmenter.from_pretrained("RUN")  # doctest: +SKIP
        >>> segmenter.predict("photo.jpg").labels  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Model,
        *,
        crop: bool = False,
        iterations: int | None = None,
        adaptive: bool = False,
        names: Mapping[int, str] = UNNAMED,
    ) -> None:
        if iterations is not None and (not isinstance(iterations, Integral) or iterations < 1):
            raise InputError(f"iterations is {iterations}; it must be a whole number of at least 1.")
        if model.num_slots > IGNORE:
            raise InputError(f"the model has {model.num_slots} slots; a label map holds at most {IGNORE}.")
        if adaptive and not has_adaptive_slots(model):
            raise InputError("adaptive slots are for mixture, transformer and features models; leave adaptive out.")
        if isinstance(model, FeaturesModel) and not model.has_encoder:
            raise InputError(
                "a features model needs its encoder to look at pictures; give it one by "
                "boqsa.inference.attach_encoder(model, DIR), or make the segmenter by from_pretrained."
            )
        self.model = model.eval()
        self.adaptive = adaptive
        self.crop = crop
        self.iterations = iterations
        self.names: Mapping[int, str] = checked_names(names, model.num_slots)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        checkpoint: str = "last",
        crop: bool = False,
        iterations: int | None = None,
        adaptive: bool = False,
        encoder: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> "Segmenter":
        """The model of a run folder, of a saved model, or of a name on the hub, with the names of its slots.

        Args:
            path_or_hub_id, checkpoint: As for `boqsa.load`.
            crop, iterations, adaptive: As for the class.
            encoder: Of a features model: where its encoder is, a folder or a name on the hub; None means where it was
                when the features were made.
            device: Where the model goes.

        Raises:
            RunError, InputError: as `boqsa.load`, as the class, if there are names and they are damaged, and if the
                machine has no such device.
        """
        require_device(str(device))
        folder = locate(path_or_hub_id)
        model = load(folder, checkpoint=checkpoint).to(device)
        if isinstance(model, FeaturesModel):
            attach_encoder(model, encoder)
        elif encoder is not None:
            raise InputError(f"{path_or_hub_id} is no features model and has no encoder; leave --encoder out.")
        names = read_names(folder, model.num_slots)
        return cls(model, crop=crop, iterations=iterations, adaptive=adaptive, names=names)

    def predict(self, picture: Any) -> Segmentation:
        """Segment one picture: a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W); numbers are
        uint8, or floating point from 0 to 1.

        Raises:
            InputError: if it is none of these, or the file is missing or not a whole picture.
        """
        return next(self.predict_batch([picture]))

    def predict_batch(self, pictures: Iterable[Any]) -> Iterator[Segmentation]:
        """Segment pictures in one pass of the model: each is what `predict` takes, of its own size.

        Raises:
            InputError: if one of them is none of these, or its file is missing or not a whole picture.
        """
        pictures = [to_picture(picture) for picture in pictures]
        if not pictures:
            return
        windows = [_window(picture.shape[:2], crop=self.crop) for picture in pictures]
        size = self.model.image_size
        small = [resize_image(picture[window], (size, size)) for picture, window in zip(pictures, windows, strict=True)]
        device = next(self.model.parameters()).device
        image = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).to(device)  # (B, 3, h, w)
        start = self.start.to(device)
        with torch.inference_mode():
            discover = self.model.segment if isinstance(self.model, RadianceModel) else self.model
            features = self.model.features_of(image) if isinstance(self.model, FeaturesModel) else None
            output = discover(
                image if features is None else features,
                iterations=self.iterations,
                noise=Noise(queries=start.expand(len(pictures), *start.shape)),
                **({"predict_tokens": False} if isinstance(self.model, TransformerModel) else {}),
            )
            masks = output.masks
            if self.adaptive:
                given = image.float() / 255 if features is None else features
                masks = needed_slots(output, given, self.model).masks
        masks = masks.squeeze(2).float().cpu()  # (B, K, h, w)
        slots = output.slots.float().cpu().numpy()
        painted = None if output.reconstruction is None else output.reconstruction.float().cpu().numpy()
        for index, (picture, window) in enumerate(zip(pictures, windows, strict=True)):
            labels = np.full(picture.shape[:2], IGNORE, dtype=np.uint8)
            height, width = labels[window].shape
            labels[window] = enlarged_labels(masks[index], height, width)
            reconstruction = None if painted is None else painted[index]
            found = (picture, labels, masks[index].numpy(), slots[index], reconstruction, window)
            yield Segmentation(*found, self.names)

    @property
    def start(self) -> Float[Tensor, "K D"]:
        """The numbers that sampled queries start from, the same for every picture."""
        return torch.randn(self.model.noise_shapes()["queries"], generator=torch.Generator().manual_seed(0))


def area_of(labels: UInt8[np.ndarray, "H W"], num_slots: int) -> Int64[np.ndarray, "K"]:
    """Pixels that each slot owns."""
    return np.bincount(labels[labels != IGNORE], minlength=num_slots)


def boxes_of(labels: UInt8[np.ndarray, "H W"], num_slots: int) -> Float32[np.ndarray, "K 4"]:
    """The box around the pixels of each slot, as `Segmentation.xyxy`."""
    boxes = np.zeros((num_slots, 4), np.float32)
    for slot in np.flatnonzero(area_of(labels, num_slots)):
        rows, columns = (np.flatnonzero((labels == slot).any(axis=axis)) for axis in (1, 0))
        boxes[slot] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def confidence_of(masks: Float32[np.ndarray, "K h w"]) -> Float32[np.ndarray, "K"]:
    """How sure each slot is of its pixels, as `Segmentation.confidence`."""
    owner = masks.argmax(axis=0)
    means = [mask[owner == slot].mean() if (owner == slot).any() else 0.0 for slot, mask in enumerate(masks)]
    return np.array(means, np.float32)


def enlarged_labels(masks: Float[Tensor, "K h w"], height: int, width: int) -> UInt8[np.ndarray, "height width"]:
    """The slot with the largest mask at each pixel of another size; ties go to the lower index.

    Masks are resampled bilinearly, one direction after the other and in strips of rows, so that memory does
    not grow with slots times pixels. Where the size shrinks, the filter's support grows with it.
    """
    tall = interpolate(masks[None], (height, masks.shape[2]), mode="bilinear", antialias=True)  # (1, K, height, w)
    rows = max(1, _STRIP // (len(masks) * width))
    strips = [
        interpolate(strip, (strip.shape[2], width), mode="bilinear", antialias=True)[0].argmax(dim=0).to(torch.uint8)
        for strip in torch.split(tall, rows, dim=2)
    ]
    return torch.cat(strips).numpy()


def _window(size: Sequence[int], *, crop: bool) -> tuple[slice, slice]:
    """The part of a picture (H, W) that the model sees: all, or the largest central square."""
    height, width = size
    if not crop:
        return slice(0, height), slice(0, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)
