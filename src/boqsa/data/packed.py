"""Reading packed data sets: plain `.npy` shards at target size, memory-mapped when they are needed.

`boqsa.data.packing` writes them and describes the files. Opening compares the sizes of what is opened with the
manifest, which is cheap; the sha256 are compared by `boqsa data check`. Labels keep the source's own numbering (entity,
level in the stack), so gaps are allowed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from boqsa.data.manifest import Manifest, shard_file
from boqsa.data.packing import names_file
from boqsa.errors import InputError
from boqsa.plain import refuse_special


class PackedDataset(Dataset[dict[str, Tensor]]):
    """One split of a packed folder, memory-mapped: a process opens the shards that it reads, and shares their pages.

    Item i is `{"image": uint8 (3, H, W), "mask": int64 (H, W)}`; the mask is -1 where the pixel is to be ignored, and
    is absent where the split has no masks. Sets with `manifest.extras` have those too. Pickling sends the path alone.

    Raises:
        InputError: if `path` is not a packed folder, lacks the split, or disagrees with its manifest; damage to a shard
            is found when it is opened, the first one at once.
    """

    def __init__(self, path: str | Path, split: str) -> None:
        self.path = Path(path)
        self.split = split
        self.manifest = Manifest.load(self.path)
        if split not in self.manifest.counts:
            there = ", ".join(self.manifest.counts)
            raise InputError(f"{path} has no split '{split}'; it has {there}.")
        stored = ("image", "mask", *self.manifest.extras)
        self._columns = [name for name in stored if shard_file(split, name, 0) in self.manifest.sha256]
        self._shards: dict[tuple[str, int], NDArray[Any]] = {}
        for name in self._columns:
            self._shard(name, 0)

    def __reduce__(self) -> tuple[type["PackedDataset"], tuple[Path, str]]:
        return PackedDataset, (self.path, self.split)

    def __len__(self) -> int:
        return self.manifest.counts[self.split]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample at `index`; a negative one counts from the end, one out of range raises IndexError."""
        return {name: values[0] for name, values in self.batch([index]).items()}

    def batch(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, columns: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Many samples at once, in the order asked: `image` uint8 (B, 3, H, W), `mask` int64 (B, H, W), and the extras.

        Args:
            indices: Of the samples; negative ones count from the end.
            columns: What to read, by name; None means all there is.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"index out of range for the {len(self)} images of '{self.split}'.")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        sample = {name: torch.from_numpy(self._gather(name, chosen)) for name in columns or self._columns}
        if "mask" in sample:
            mask = sample["mask"]
            # Adding 1 in uint8 wraps 255 to 0, so that ignore ends as -1 without a comparison.
            sample["mask"] = mask.add_(1).long().sub_(1) if mask.dtype == torch.uint8 else mask.long()
        return sample

    def extra(self, name: str) -> NDArray[Any]:
        """All values of one of `manifest.extras`, in the order of the images.

        Raises:
            InputError: if the split does not have it.
        """
        if name not in self._columns or name in ("image", "mask"):
            there = ", ".join(self.manifest.extras) or "nothing"
            raise InputError(f"{self.path} has no {name} beside its images; it has {there}.")
        return self._gather(name, np.arange(len(self)))

    def names(self) -> list[str] | None:
        """What the source calls each image, or None where it has no names.

        Raises:
            InputError: if the list is missing or has another length.
        """
        if names_file(self.split) not in self.manifest.sha256:
            return None
        path = self.path / names_file(self.split)
        try:
            refuse_special(path)
            names = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"cannot read {path}: {reason}; prepare the data set again.") from None
        if len(names) != len(self):
            raise InputError(f"{path} has {len(names)} names for {len(self)} images; prepare the data set again.")
        return names

    def column_bytes(self, name: str) -> int:
        """Bytes of a column (`image`, `mask` or an extra) of all samples of the split together."""
        return len(self) * self._shard(name, 0)[:1].nbytes

    @property
    def wide_labels(self) -> bool:
        """Whether masks are stored in 16 bits."""
        return self.has_masks and self._shard("mask", 0).dtype != np.uint8

    @property
    def has_masks(self) -> bool:
        """Whether the items of this split have a `mask`."""
        return "mask" in self._columns

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.manifest.image_size

    def _gather(self, column: str, chosen: NDArray[np.int64]) -> NDArray[Any]:
        if len(self) <= self.manifest.images_per_shard:
            return self._shard(column, 0)[chosen]
        shards, inside = np.divmod(chosen, self.manifest.images_per_shard)
        first = self._shard(column, 0)
        gathered = np.empty((len(chosen), *first.shape[1:]), first.dtype)
        for shard in np.unique(shards):
            rows = shards == shard
            gathered[rows] = self._shard(column, int(shard))[inside[rows]]
        return gathered

    def _shard(self, column: str, shard: int) -> NDArray[Any]:
        if (column, shard) not in self._shards:
            per_shard = self.manifest.images_per_shard
            count = min(len(self) - shard * per_shard, per_shard)
            path = self.path / shard_file(self.split, column, shard)
            self._shards[column, shard] = _open_array(path, column, count, self.manifest.image_size)
        return self._shards[column, shard]


def _open_array(path: Path, column: str, count: int, image_size: tuple[int, int]) -> NDArray[Any]:
    try:
        refuse_special(path)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path} ({error}); prepare the data set again.") from None
    per_image = {"image": (3, *image_size), "mask": image_size}.get(column, mapped.shape[1:])
    types = {"image": (np.dtype(np.uint8),), "mask": (np.dtype(np.uint8), np.dtype("<i2"))}.get(column, (mapped.dtype,))
    if mapped.dtype not in types or mapped.shape != (count, *per_image):
        raise InputError(
            f"{path} holds {mapped.dtype} {mapped.shape}, its manifest says {types[0]} {(count, *per_image)}; "
            "prepare the data set again."
        )
    # A plain array view: indexing np.memmap itself costs a subclass object on every read.
    return np.asarray(mapped)
