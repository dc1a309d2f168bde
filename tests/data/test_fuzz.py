"""Damage of any kind to any data set: a clear line, or samples that nothing in the files could tell from good ones.

Every stand-in of `boqsa data mimic` is damaged a thousand times (`make test-full`; some of it in `make test`), one file
at a time: bits flipped, bytes overwritten, cut off, cut out, repeated, emptied, removed, or another file's content.
"""

import hashlib
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boqsa.data.catalog import CATALOG
from boqsa.data.mimic import WRITERS, mimic
from boqsa.data.readers import READERS
from boqsa.errors import InputError

SECONDS = 20
"""Reading a stand-in takes a fraction of one; more is a hang."""
CHECKSUMMED = (".png", ".map", ".tfrecords", ".npz")
"""Files that carry checksums of all that is read from them."""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    @cache
    def make(name: str) -> tuple[Path, dict[str, Any]]:
        found = mimic(name, tmp_path_factory.mktemp(name) / "source", count=6)
        return found.path, dict(found.options)

    return make


def read_all(name: str, source: Path, options: dict[str, Any]) -> tuple[dict[str, str], int]:
    """Name and split of every sample that can be read -> a hash of it; and how many are broken."""
    opened = READERS[name](source, **options)
    allowed = CATALOG[name].highest_label
    samples, broken = {}, 0
    listed = list(opened.items())
    assert len(listed) == opened.total
    for item in listed:
        try:
            sample = opened.load(item)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            broken += 1
            continue
        assert sample.image.shape == (*opened.image_size, 3)
        assert sample.image.dtype == np.uint8
        digest = hashlib.sha256(np.ascontiguousarray(sample.image))
        if sample.mask is not None:
            assert sample.mask.shape == opened.image_size
            ignore = -1 if opened.wide_labels else 255
            labels = sample.mask[sample.mask != ignore]
            highest = allowed.get(item.split, allowed.get("*"))
            assert highest is None or labels.max(initial=0) <= highest
            digest.update(np.ascontiguousarray(sample.mask))
        for extra in sample.extras.values():
            digest.update(np.ascontiguousarray(extra))
        samples[f"{item.split}/{item.name}"] = digest.hexdigest()
    return samples, broken


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(content: bytes, others: list[bytes], chance: random.Random) -> tuple[bytes | None, str]:
    """The content of a file after one mishap, or None if it is gone; and the kind of mishap."""
    kind = chance.choice(["flip", "flip", "overwrite", "cut", "cut out", "repeat", "empty", "gone", "other"])
    size = len(content)
    start = chance.randrange(size) if size else 0
    stop = min(size, start + chance.choice([1, 4, 64, 4096]))
    changed = bytearray(content)
    if kind == "flip" and size:
        changed[start] ^= 1 << chance.randrange(8)
    elif kind == "overwrite":
        changed[start:stop] = chance.randbytes(stop - start)
    elif kind == "cut":
        del changed[start:]
    elif kind == "cut out":
        del changed[start:stop]
    elif kind == "repeat":
        changed[start:start] = content[start:stop]
    elif kind == "empty":
        changed.clear()
    elif kind == "other" and others:
        changed[:] = chance.choice(others)
    return (None if kind == "gone" else bytes(changed)), kind


def fuzz(name: str, source: Path, options: dict[str, Any], times: int, seed: int) -> None:
    root = source if source.is_dir() else source.parent
    files = sorted(path for path in root.rglob("*") if path.is_file())
    whole, broken = read_all(name, source, options)
    assert not broken
    chance = random.Random(f"{name} {seed}")
    for _ in range(times):
        path = chance.choice(files)
        content = path.read_bytes()
        same_kind = [other for other in files if other.suffix == path.suffix and other != path]
        others = [chance.choice(same_kind).read_bytes()] if same_kind else []
        changed, kind = damaged(content, others, chance)
        try:
            path.unlink() if changed is None else path.write_bytes(changed)
            with within(SECONDS):
                try:
                    found, _ = read_all(name, source, options)
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    continue
        finally:
            path.write_bytes(content)
        if path.suffix in CHECKSUMMED and kind not in ("other", "gone"):  # a missing mask is counted, not refused
            told = {sample: digest for sample, digest in found.items() if whole.get(sample, digest) != digest}
            assert not told, f"{path.name}, {kind}: other pixels passed under a wrong checksum"


@pytest.mark.parametrize("name", WRITERS)
def test_damage(name: str, stand_in: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    fuzz(name, *stand_in(name), times=20, seed=0)


@pytest.mark.full
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("name", WRITERS)
def test_damage_a_thousand_times(name: str, part: int, stand_in: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    fuzz(name, *stand_in(name), times=100, seed=1 + part)
