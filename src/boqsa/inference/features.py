"""The features of a packed set, computed once by a frozen encoder and packed beside the images.

    OUT/<split>.features.<shard>.npy     float16 (n, N, F): of each patch, row-major; images, masks, names as they were

Which encoder it was stands in the manifest's options. It may see the images at another size than they have in the set:
then the features are of the one, and masks are scored at the other. An interrupted call goes on when it is typed again,
in batches of the same images, so that the result is the same bytes; beside OUT it keeps what `prepare` keeps beside its
target.
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from boqsa.atomic import write_text
from boqsa.data import Manifest, PackedDataset
from boqsa.data.manifest import Option
from boqsa.data.packing import Extra, PackedWriter
from boqsa.data.preparing import LARGEST_SIDE, free_target, move_into_place, workplace
from boqsa.data.resample import resize_image
from boqsa.errors import InputError
from boqsa.inference.load import require_device
from boqsa.models.pretrained_vit import PretrainedViT

FEATURES = "features"
"""The column of a packed set."""
_SEEN_SIZE = "encoder_image_size"
"""The option of a manifest that says at which size the encoder saw the images, where that is not the set's own."""
_MOST_PATCHES = 16_384
"""As many as 2048x2048 pixels have at 16 a patch: a layer's attention may take memory by the square of their number."""
_SECONDS_BETWEEN_JOURNALS = 5.0


def encoder_options(encoder: PretrainedViT) -> dict[str, Option]:
    """What the manifest says of the encoder."""
    return {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "encoder_patch_size": encoder.patch_size,
        "encoder_feature_size": encoder.feature_size,
    }


def write_features(
    source: str | Path,
    encoder: PretrainedViT,
    target: str | Path,
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Manifest:
    """Pack a packed set again, with the features of each image.

    Args:
        source: The packed set.
        encoder: Moved to the device.
        target: The folder to make; it must not exist, or be empty.
        image_size: Height and width in pixels at which the encoder sees the images, which are squeezed to it;
            None gives them as they are. Images and masks of the new set keep their size.
        batch_size: Images that are encoded at a time.
        device: Where.
        progress: Called with ("encoding", images done, images in all).

    Returns:
        The manifest of the new set.

    Raises:
        InputError: if the source is no packed set, has features already, or a feature is not a number in 16 bits; if
            the patches do not cover the images; or if the device cannot be used, or the target cannot be written.
    """
    manifest = Manifest.load(source)
    if image_size is not None and not 1 <= image_size <= LARGEST_SIDE:
        raise InputError(f"image_size is {image_size}; it must be from 1 to {LARGEST_SIDE}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    size = manifest.image_size if image_size is None else (image_size, image_size)
    grid = _grid(manifest, encoder, source, size)
    splits = [PackedDataset(source, split) for split in manifest.counts]
    first = splits[0][0]
    extras = {name: Extra(first[name].numpy().dtype.str, tuple(first[name].shape)) for name in manifest.extras}
    extras[FEATURES] = Extra("<f2", (grid[0] * grid[1], encoder.feature_size))
    described = encoder_options(encoder) | ({} if size == manifest.image_size else {_SEEN_SIZE: image_size})
    asked = {"source": manifest.fingerprint, "batch_size": batch_size, **described}
    require_device(device)
    encoder.to(device)
    total, saved = sum(manifest.counts.values()), time.monotonic()
    with workplace(free_target(target)) as place:
        counts = _counts_so_far(place, asked)
        _require_space(place, total - sum(counts.values()), manifest.image_size, extras)
        wide = any(split.wide_labels for split in splits)
        with PackedWriter(
            place / "packed", manifest.image_size, wide_labels=wide, extras=extras, counts=counts
        ) as writer:
            try:
                for split in splits:
                    names = split.names() or []
                    for begin in range(counts.get(split.split, 0), len(split), batch_size):
                        indices = range(begin, min(begin + batch_size, len(split)))
                        _append(writer, split, indices, names[begin : indices.stop], encoder, size, device)
                        if progress is not None:
                            progress("encoding", sum(writer.counts.values()), total)
                        if time.monotonic() - saved >= _SECONDS_BETWEEN_JOURNALS:
                            _save(place, asked, writer)
                            saved = time.monotonic()
            except BaseException:
                with suppress(InputError):  # a full disk: what was saved before stands
                    if writer.counts:
                        _save(place, asked, writer)
                raise
            written = writer.finish(
                name=manifest.name,
                source=manifest.source,
                licence=manifest.licence,
                task=manifest.task,
                split_rule=manifest.split_rule,
                foreground=manifest.foreground,
                partial=manifest.partial,
                leak=manifest.leak,
                options={**manifest.options, **described},
                notices=manifest.notices,
                skipped=manifest.skipped,
            )
        move_into_place(place / "packed", Path(target))
    return written


def seen_size(manifest: Manifest) -> tuple[int, int]:
    """Height and width in pixels of the images that the features of a set are of."""
    size = manifest.options.get(_SEEN_SIZE)
    return (size, size) if type(size) is int else manifest.image_size


def _grid(manifest: Manifest, encoder: PretrainedViT, source: str | Path, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of images of this size."""
    height, width = size
    if FEATURES in manifest.extras:
        raise InputError(f"{source} has features already, of {manifest.options.get('encoder')}; name the set without.")
    if height % encoder.patch_size or width % encoder.patch_size:
        nearest = max(1, round(height / encoder.patch_size)) * encoder.patch_size
        found = f"{source} holds {height}x{width} images" if size == manifest.image_size else f"image_size is {height}"
        raise InputError(
            f"{found}, no whole number of patches of {encoder.patch_size} pixels; have the encoder see them at "
            f"--size {nearest}."
        )
    rows, columns = height // encoder.patch_size, width // encoder.patch_size
    if rows * columns > _MOST_PATCHES:
        raise InputError(
            f"images of {height}x{width} are {rows * columns} patches of {encoder.patch_size} pixels; at most "
            f"{_MOST_PATCHES} are encoded, for attention takes memory by their square: give a smaller --size."
        )
    return rows, columns


def _append(
    writer: PackedWriter,
    split: PackedDataset,
    indices: range,
    names: list[str],
    encoder: PretrainedViT,
    size: tuple[int, int],
    device: str,
) -> None:
    sample: dict[str, Any] = split.batch(indices)
    with torch.inference_mode():
        seen = _resized(sample["image"], size).to(device)
        features: NDArray[Any] = encoder(seen).half().cpu().numpy()
    if not np.isfinite(features).all():
        raise InputError(f"the encoder {encoder.name} gives features of {split.path} that are no numbers in 16 bits.")
    writer.append(
        split.split,
        sample["image"].numpy(),
        sample["mask"].numpy() if "mask" in sample else None,
        names=names,
        extras={**{name: sample[name].numpy() for name in split.manifest.extras}, FEATURES: features},
    )


def _resized(images: UInt8[Tensor, "B 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "B 3 h w"]:
    """At the size that the encoder sees, by the filter that `boqsa segment` takes too."""
    if tuple(images.shape[2:]) == size:
        return images
    pictures = [resize_image(image, size) for image in images.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _counts_so_far(place: Path, asked: dict[str, Any]) -> dict[str, int]:
    """Images of each split that an interrupted call for the same has packed; its folder is made anew for another."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        journal = json.loads((place / "journal.json").read_text(encoding="utf-8"))
        if journal["asked"] == asked and (place / "packed").is_dir():
            return {str(split): int(count) for split, count in journal["counts"].items()}
    (place / "journal.json").unlink(missing_ok=True)
    shutil.rmtree(place / "packed", ignore_errors=True)
    (place / "packed").mkdir()
    return {}


def _save(place: Path, asked: dict[str, Any], writer: PackedWriter) -> None:
    write_text(place / "journal.json", json.dumps({"asked": asked, "counts": writer.flush()}))


def _require_space(place: Path, images: int, size: tuple[int, int], extras: dict[str, Extra]) -> None:
    each = sum(np.dtype(column.dtype).itemsize * int(np.prod(column.shape)) for column in extras.values())
    each += 4 * size[0] * size[1]  # image and mask, which are packed again
    free = shutil.disk_usage(place).free
    if images * each > free:
        raise InputError(
            f"images and features need {images * each / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose another "
            "target, or prepare the set with a --limit."
        )
