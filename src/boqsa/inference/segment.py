"""Split pictures of any size into slots: squeeze to the model's size, discover, label every pixel.

The soft masks are brought to the picture's size before the arg max: edges come out smoother than enlarged
labels.

Shapes: H W picture, h w model, K slots, D slot size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from boqsa.errors import InputError
from boqsa.inference.picture import read_picture
from boqsa.models import Noise
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel
from boqsa.reports import overlay

IGNORE = 255
"""Label of pixels outside the crop."""

_STRIP = 2**23  # values of the enlarged masks that are held at a time (32 MiB)


class Segmentation(NamedTuple):
    """What a model found in one picture, on the CPU."""

    picture: UInt8[np.ndarray, "H W 3"]
    """The picture as it was seen: RGB, upright."""
    labels: UInt8[np.ndarray, "H W"]
    """Index of the slot that owns each pixel, 0 to K - 1; 255 outside the crop."""
    masks: Float32[np.ndarray, "K h w"]
    """Share of each pixel that each slot owns, at the size of the model; sums to 1 over slots."""
    slots: Float32[np.ndarray, "K D"]
    reconstruction: Float32[np.ndarray, "3 h w"]
    """In [0, 1] units, not clamped."""

    def areas(self) -> list[float]:
        """Share of the labelled pixels that each slot owns; sums to 1."""
        counts = np.bincount(self.labels[self.labels != IGNORE], minlength=len(self.slots))
        return [float(share) for share in counts / counts.sum()]

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

    Raises:
        InputError: if `iterations` is below 1, or the model has more slots than a label map can name.

    Example:
        >>> segmenter = Segmenter(boqsa.load("RUN"))  # doctest: +SKIP
        >>> segmenter.segment("photo.jpg").labels  # doctest: +SKIP
    """

    def __init__(self, model: Model, *, crop: bool = False, iterations: int | None = None) -> None:
        if iterations is not None and iterations < 1:
            raise InputError(f"iterations is {iterations}; it must be at least 1.")
        if model.num_slots > IGNORE:
            raise InputError(f"the model has {model.num_slots} slots; a label map holds at most {IGNORE}.")
        self.model = model.eval()
        self.crop = crop
        self.iterations = iterations

    def segment(self, picture: Image.Image | str | Path) -> Segmentation:
        """Segment one picture, or the picture in a file.

        Raises:
            InputError: if the file is missing or not a whole picture.
        """
        return next(self.segment_batch([read_picture(picture)]))

    def segment_batch(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[Segmentation]:
        """Segment RGB pictures (H, W, 3), each of its own size, in one pass of the model; at least one."""
        windows = [_window(picture.shape[:2], crop=self.crop) for picture in pictures]
        size = self.model.image_size
        small = [squeezed(picture[window], size) for picture, window in zip(pictures, windows, strict=True)]
        image = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)  # (B, 3, h, w)
        with torch.inference_mode():
            discover = self.model.segment if isinstance(self.model, RadianceModel) else self.model
            output = discover(
                image.to(next(self.model.parameters()).device),
                iterations=self.iterations,
                noise=self._noise(len(pictures)),
            )
        masks = output.masks.squeeze(2).float().cpu()  # (B, K, h, w)
        slots = output.slots.float().cpu().numpy()
        reconstruction = output.reconstruction.float().cpu().numpy()
        for index, (picture, window) in enumerate(zip(pictures, windows, strict=True)):
            labels = np.full(picture.shape[:2], IGNORE, dtype=np.uint8)
            height, width = labels[window].shape
            labels[window] = enlarged_labels(masks[index], height, width)
            yield Segmentation(picture, labels, masks[index].numpy(), slots[index], reconstruction[index])

    def _noise(self, batch: int) -> Noise:
        shape = self.model.noise_shapes()["queries"]
        draw = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return Noise(queries=draw.expand(batch, *shape))


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


def squeezed(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize by the filter that prepares training images."""
    if pixels.shape[:2] == (size, size):
        return pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
