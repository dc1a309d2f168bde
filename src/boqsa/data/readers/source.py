"""What every reader returns: a stream of samples at target size, and what the manifest should say of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from boqsa.data.manifest import Option, Task

ORDER_RULE = "80/10/10 in file order: the first images are train, then val, then test"


@dataclass(frozen=True)
class Sample:
    """One image at target size."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"] | None
    """0 = background, 1..254 = objects, 255 = ignore; None if the split has no masks."""
    split: str
    name: str
    """The file or record, for messages."""


@dataclass(kw_only=True)
class Source:
    """A source that was found sound as far as can be told without reading all of it.

    `notices` and `skipped` may grow while `samples` are read; they are complete at the end.
    """

    samples: Iterator[Sample]
    total: int
    """How many samples there will be, broken ones included: for progress."""
    image_size: tuple[int, int]
    split_rule: str
    partial: bool = False
    task: Task | None = None
    """None where the catalog knows."""
    options: dict[str, Option] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def split_by_order(index: int, total: int) -> str:
    """The split of image `index` of `total` by `ORDER_RULE`; from three images on no split is empty."""
    held_out = max(1, total // 10) if total >= 3 else 0
    if index < total - 2 * held_out:
        return "train"
    return "val" if index < total - held_out else "test"


def some_of(names: list[str], shown: int = 5) -> str:
    """The first few names and how many more there are, for a message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
