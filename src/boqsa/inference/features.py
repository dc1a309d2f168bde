"""The features of a packed set, computed once by a frozen encoder and packed beside the images.

    OUT/<split>.features.<shard>.npy     float16 (n, N, F): of each patch, row-major; images, masks, names as they were

Which encoder it was stands in the manifest's options. An interrupted call goes on when it is typed again, in batches of
the same images, so that the result is the same bytes; beside OUT it keeps what `prepare` keeps beside its target.
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
from numpy.typing import NDArray

from boqsa.atomic import write_text
from boqsa.data import Manifest, PackedDataset
from boqsa.data.manifest import Option
from boqsa.data.packing import Extra, PackedWriter
from boqsa.data.preparing import free_target, move_into_place, workplace
from boqsa.errors import InputError
from boqsa.inference.load import require_device
from boqsa.models.pretrained_vit import PretrainedViT

FEATURES = "features"
"""The column of a packed set."""
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
    batch_size: int = 16,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Manifest:
    """Pack a packed set again, with the features of each image.

    Args:
        source: The packed set; its images are given to the encoder at their size.
        encoder: Moved to the device.
        target: The folder to make; it must not exist, or be empty.
        batch_size: Images that are encoded at a time.
        device: Where.
        progress: Called with ("encoding", images done, images in all).

    Returns:
        The manifest of the new set.

    Raises:
        InputError: if the source is no packed set, has features already or images that are no whole number of patches,
            or a feature is not a number in 16 bits; or if the device cannot be used, or the target cannot be written.
    """
    manifest = Manifest.load(source)
    grid = _grid(manifest, encoder, source)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    splits = [PackedDataset(source, split) for split in manifest.counts]
    first = splits[0][0]
    extras = {name: Extra(first[name].numpy().dtype.str, tuple(first[name].shape)) for name in manifest.extras}
    extras[FEATURES] = Extra("<f2", (grid[0] * grid[1], encoder.feature_size))
    asked = {"source": manifest.fingerprint, "batch_size": batch_size, **encoder_options(encoder)}
    require_device(device)
    encoder.to(device)
    total, saved = sum(manifest.counts.values()), time.monotonic()
    with workplace(free_target(target)) as place:
        counts = _counts_so_far(place, asked)
        _require_space(place, total - sum(counts.values()), extras)
        wide = any(split.wide_labels for split in splits)
        with PackedWriter(
            place / "packed", manifest.image_size, wide_labels=wide, extras=extras, counts=counts
        ) as writer:
            try:
                for split in splits:
                    names = split.names() or []
                    for begin in range(counts.get(split.split, 0), len(split), batch_size):
                        indices = range(begin, min(begin + batch_size, len(split)))
                        _append(writer, split, indices, names[begin : indices.stop], encoder, device)
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
                options={**manifest.options, **encoder_options(encoder)},
                notices=manifest.notices,
                skipped=manifest.skipped,
            )
        move_into_place(place / "packed", Path(target))
    return written


def _grid(manifest: Manifest, encoder: PretrainedViT, source: str | Path) -> tuple[int, int]:
    """Rows and columns of patches."""
    height, width = manifest.image_size
    if FEATURES in manifest.extras:
        raise InputError(f"{source} has features already, of {manifest.options.get('encoder')}; name the set without.")
    if height % encoder.patch_size or width % encoder.patch_size:
        nearest = max(1, round(height / encoder.patch_size)) * encoder.patch_size
        raise InputError(
            f"{source} holds {height}x{width} images, no whole number of patches of {encoder.patch_size} pixels; "
            f"prepare it with --size {nearest}."
        )
    return height // encoder.patch_size, width // encoder.patch_size


def _append(
    writer: PackedWriter,
    split: PackedDataset,
    indices: range,
    names: list[str],
    encoder: PretrainedViT,
    device: str,
) -> None:
    sample: dict[str, Any] = split.batch(indices)
    with torch.inference_mode():
        features: NDArray[Any] = encoder(sample["image"].to(device)).half().cpu().numpy()
    if not np.isfinite(features).all():
        raise InputError(f"the encoder {encoder.name} gives features of {split.path} that are no numbers in 16 bits.")
    writer.append(
        split.split,
        sample["image"].numpy(),
        sample["mask"].numpy() if "mask" in sample else None,
        names=names,
        extras={**{name: sample[name].numpy() for name in split.manifest.extras}, FEATURES: features},
    )


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


def _require_space(place: Path, images: int, extras: dict[str, Extra]) -> None:
    each = sum(np.dtype(column.dtype).itemsize * int(np.prod(column.shape)) for column in extras.values())
    free = shutil.disk_usage(place).free
    if images * each > free:
        raise InputError(
            f"the features need {images * each / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose another target, or "
            "prepare the set with a --limit."
        )
