"""The manifest: JSON out and in, the fingerprint, and every kind of damage refused with a line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boqsa.data.manifest import Manifest, valid_split_name
from boqsa.errors import InputError

MANIFEST = Manifest(
    name="folder",
    source="photos",
    licence="mine",
    task="foreground",
    foreground="the dog",
    image_size=(5, 7),
    counts={"train": 12, "test": 4},
    images_per_shard=100,
    split_rule="by hand",
    partial=True,
    sha256={"train.image.000.npy": "ab", "test.image.000.npy": "cd"},
    options={"crop": "none", "limit": 3, "masks": None},
    notices=("é",),
    skipped=("a.png",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_text(MANIFEST.to_json(), encoding="utf-8")
    return tmp_path


def test_round_trip(folder: Path) -> None:
    assert Manifest.load(folder) == MANIFEST
    assert json.loads((folder / "manifest.json").read_text("utf-8"))["fingerprint"] == MANIFEST.fingerprint


def test_fingerprint_is_of_the_content_alone() -> None:
    assert replace(MANIFEST, source="elsewhere", notices=()).fingerprint == MANIFEST.fingerprint
    for sha256 in ({"train.image.000.npy": "ab"}, {"train.image.000.npy": "cd", "test.image.000.npy": "ab"}):
        assert replace(MANIFEST, sha256=sha256).fingerprint != MANIFEST.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"images_per_shard": 0},
        {"extras": ["a/b"]},
        {"leak": 1},
        {"counts": {"train": "12"}},
        {"counts": {"train": 0}},
        {"counts": {"train": 10**15, "test": 1}},
        {"counts": {"../train": 12}},
        {"counts": [1]},
        {"image_size": 64},
        {"image_size": [5, 7, 1]},
        {"task": "video"},
        {"notices": None},
        {"sha256": {"train.image.000.npy": 1}},
        {"sha256": {"../../secret": "00"}},
        {"surprise": 1},
        {"name": ["x"]},
        {"source": None},
        {"licence": 1},
        {"split_rule": {}},
        {"foreground": 1.5},
        {"options": []},
        {"notices": [1]},
        {"skipped": [["a.png"]]},
        {"sha256": {"train.image.000.npy": "ab", "test.mask.000.npy": "cd"}},
    ],
)
def test_damaged_fields(change: dict[str, Any], folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(InputError, match="is not a manifest of a packed data set"):
        Manifest.load(folder)


def test_text_that_steers_a_terminal_is_shown_as_an_escape(folder: Path) -> None:
    steering = "\x1b]0;pwned\x07"
    texts = dict.fromkeys(("name", "source", "licence", "foreground", "split_rule", "leak"), steering)
    values = json.loads((folder / "manifest.json").read_text("utf-8")) | texts
    values |= {"notices": [steering], "skipped": ["\udcff.png"]}  # this is how a name that is no UTF-8 is packed
    (folder / "manifest.json").write_text(json.dumps(values))
    manifest = Manifest.load(folder)
    shown = r"\x1b]0;pwned\x07"
    assert {getattr(manifest, key) for key in texts} == {shown}
    assert (manifest.notices, manifest.skipped) == ((shown,), (r"\udcff.png",))
    assert manifest.fingerprint == MANIFEST.fingerprint


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\0", b'"text"', b"\xff\xfe", b"[" * 200_000])
def test_files_that_are_no_manifests(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="manifest"):
        Manifest.load(folder)


def test_what_is_not_packed_says_what_to_type(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="boqsa data prepare"):
            Manifest.load(path)


def test_split_names() -> None:
    assert all(map(valid_split_name, ("train", "six_objects", "A1")))
    assert not any(map(valid_split_name, ("", "a b", "../a", "a.b", "a\n")))
