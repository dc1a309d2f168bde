"""Checking a packed set: counts by hand, and every kind of damage found."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boqsa.atomic import atomic_folder
from boqsa.data import PackedWriter, check, write_packed
from boqsa.data.packing import CLASSES, class_extra
from boqsa.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4), dtype=np.uint8)
MASKS = np.zeros((3, 4, 4), np.int64)
MASKS[0, 0, :2] = (1, 3)
MASKS[1, 2, 2] = 2
MASKS[1, 3] = -1


def pack(path: Path, masks: np.ndarray | None = MASKS, name: str = "objectsroom", **change: Any) -> Path:
    fields: dict[str, Any] = {
        "name": name,
        "source": "s",
        "licence": "l",
        "task": "multi-object",
        "split_rule": "r",
        **change,
    }
    write_packed(path / "packed", {"train": (IMAGES, masks)}, **fields)
    return path / "packed"


def test_counts(tmp_path: Path) -> None:
    report = check(pack(tmp_path))
    assert report.ok
    train = report.splits["train"]
    assert train.images == 3
    assert train.label_images == {-1: 1, 0: 3, 1: 1, 2: 1, 3: 1}
    assert train.objects == {0: 1, 1: 1, 2: 1}
    text = "\n".join(report.lines())
    assert "images with k objects: 0: 1, 1: 1, 2: 1" in text
    assert "ignore: 1" in text
    assert text.endswith("ok")


def test_without_masks(tmp_path: Path) -> None:
    report = check(pack(tmp_path, masks=None))
    assert report.ok
    assert "train: 3 images of 980000 published, no masks" in report.lines()


def test_no_line_steers_a_terminal(tmp_path: Path) -> None:
    packed = pack(tmp_path, source="\x1b]0;pwned\x07")
    (packed / "a\x1b[2Jb").touch()
    lines = check(packed).lines()
    assert all(line.isprintable() for line in lines)
    assert r"from \x1b]0;pwned\x07" in lines[0]
    assert any(r"a\x1b[2Jb" in line for line in lines)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    packed = pack(tmp_path)
    content = bytearray((packed / "train.image.000.npy").read_bytes())
    content[-1] ^= 1
    (packed / "train.image.000.npy").write_bytes(content)
    report = check(packed)
    assert not report.ok
    assert "train.image.000.npy was changed" in report.findings[0]
    assert report.lines()[-1] == "1 findings"


def test_missing_cut_and_foreign_files_are_found(tmp_path: Path) -> None:
    packed = pack(tmp_path)
    (packed / "train.mask.000.npy").unlink()
    (packed / "note.txt").touch()
    findings = "\n".join(check(packed).findings)
    assert "cannot read train.mask.000.npy" in findings
    assert "do not belong here: note.txt" in findings


def test_a_pipe_among_the_files_is_found(tmp_path: Path) -> None:
    packed = pack(tmp_path)
    (packed / "train.mask.000.npy").unlink()
    os.mkfifo(packed / "train.mask.000.npy")  # opening it would wait for ever
    findings = "\n".join(check(packed).findings)
    assert "train.mask.000.npy is not a regular file" in findings


def test_labels_beyond_the_catalog_are_found(tmp_path: Path) -> None:
    assert "label 4 occurs, the highest of objectsroom is 3" in check(pack(tmp_path, MASKS + 1)).findings[0]
    assert check(pack(tmp_path, MASKS + 1, name="folder")).ok


def test_one_sided_foreground_is_found(tmp_path: Path) -> None:
    masks = np.minimum(np.abs(MASKS), 1)
    masks[1] = 1
    report = check(pack(tmp_path, masks, name="folder", task="foreground"))
    assert "2 masks are all background or all foreground: images 1, 2" in report.findings[0]


def test_what_is_not_packed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boqsa data prepare"):
        check(tmp_path)


def test_published_counts_are_those_of_the_default_split(tmp_path: Path) -> None:
    for options, told in (({}, True), ({"split": "clean"}, True), ({"split": "published"}, False)):
        splits = {"train": (IMAGES, np.minimum(np.abs(MASKS), 1))}
        with atomic_folder(tmp_path / "packed") as folder, PackedWriter(folder, (4, 4)) as writer:
            writer.append("train", *splits["train"])
            writer.finish(name="flowers", source="s", licence="l", task="foreground", split_rule="r", options=options)
        lines = check(tmp_path / "packed").lines()
        assert any(" of 1020 published" in line for line in lines) == told


def classed(path: Path, highest: int) -> Path:
    """The same with classes of the labels up to `highest`: 1 and 3 are of class 90, 2 of none."""
    of_label = np.array([-1, 90, -1, 90], np.int32)[: highest + 1]
    packed = path / "packed"
    with (
        atomic_folder(packed) as folder,
        PackedWriter(folder, (4, 4), extras={CLASSES: class_extra(highest)}) as writer,
    ):
        writer.append("train", IMAGES, MASKS, extras={CLASSES: np.stack([of_label] * 3)})
        described = {"source": "s", "licence": "l", "split_rule": "r"}
        writer.finish(name="coco_instances", task="multi-object", **described)
    return packed


def test_objects_are_counted_by_their_class(tmp_path: Path) -> None:
    report = check(classed(tmp_path, 3))
    assert report.ok
    assert report.splits["train"].classes == {-1: 1, 90: 2}
    assert "  objects of class k: none: 1, 90: 2" in report.lines()
    assert not any("of class k" in line for line in check(pack(tmp_path / "without")).lines())


def test_labels_beyond_those_with_a_class_are_found(tmp_path: Path) -> None:
    report = check(classed(tmp_path, 2))
    assert report.findings == ("train: 1 masks have labels beyond those with a class: images 0",)
