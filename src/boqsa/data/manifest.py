"""The manifest of a packed data set: what it holds, where it came from, and the sha256 of every file."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from boqsa.errors import InputError, as_typed
from boqsa.plain import printable, read_json

MANIFEST = "manifest.json"
FORMAT = 2

Task = Literal["multi-object", "foreground", "views"]
Option = str | int | bool | None

_TEXTS = ("name", "source", "licence", "foreground", "split_rule", "leak")
_LISTS_OF_TEXT = ("notices", "skipped")
"""Terminals show these fields, and obey what cannot be printed. `prepare` writes file names into them, which may hold
such letters: an escape stands for them, and the set is not refused."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a packed folder holds and where it came from; written to and read from `manifest.json`."""

    name: str
    """The data set's name in `boqsa.data.catalog`."""
    source: str
    """Where the files came from, as the user typed it."""
    licence: str
    task: Task
    foreground: str
    """What counts as an object, in words."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    counts: dict[str, int]
    """Images in each split; a split without images is left out."""
    images_per_shard: int
    """Images in each file of an array but the last one of a split."""
    split_rule: str
    """How the splits were made, as a sentence."""
    partial: bool
    """True if the source was smaller than the published data set."""
    sha256: dict[str, str]
    """Of every array file of the folder."""
    extras: tuple[str, ...] = ()
    """Arrays beside image and mask, one entry an image."""
    leak: str = ""
    """What every score on these splits must say beside it, as `selected on the test set`; empty for clean splits."""
    options: dict[str, Option] = field(default_factory=dict)
    """The options that `prepare` was given or chose: crop, mask resampling, ..."""
    notices: tuple[str, ...] = ()
    """What a reader of results should know: converted images, missing masks, duplicates across splits."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read and were left out because the user allowed it."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """One sha256 for the whole content: equal arrays in equal splits give equal fingerprints."""
        listing = "".join(f"{name} {digest}\n" for name, digest in sorted(self.sha256.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`; the fingerprint is written too, for people."""
        return json.dumps(asdict(self) | {"fingerprint": self.fingerprint}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a packed folder.

        Raises:
            InputError: if there is no packed data set, or its manifest is damaged or of another format.
        """
        path = Path(folder) / MANIFEST
        try:
            content = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            state = "is not a packed data set (it has no manifest.json)" if Path(folder).exists() else "does not exist"
            make = f"boqsa data prepare NAME SOURCE {as_typed(folder)}"
            raise InputError(f"{folder} {state}; run `{make}` first.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}; prepare the data set again.") from None
        return cls._from_content(content, path)

    @classmethod
    def _from_content(cls, content: Any, path: Path) -> "Manifest":
        damaged = f"{path} is not a manifest of a packed data set; prepare the data set again"
        if not isinstance(content, dict):
            raise InputError(f"{damaged}.")
        if content.get("format") != FORMAT:
            raise InputError(f"{damaged} (format {content.get('format')} found, {FORMAT} expected).")
        known = {entry.name for entry in fields(cls)}
        values = {key: value for key, value in content.items() if key != "fingerprint"}
        if wrong := sorted(values.keys() ^ known):
            raise InputError(f"{damaged} (unknown or missing: {', '.join(wrong)}).")
        try:
            for key in ("image_size", "extras", "notices", "skipped"):
                values[key] = tuple(values[key])
            manifest = cls(**values)
            height, width = manifest.image_size
            numbers = [height, width, manifest.images_per_shard, *manifest.counts.values()]
            sound = all(type(number) is int and number > 0 for number in numbers)
            sound = sound and manifest.task in get_args(Task) and all(map(valid_split_name, manifest.counts))
            sound = sound and all(map(valid_split_name, manifest.extras))
            sound = sound and all(isinstance(digest, str) for digest in manifest.sha256.values())
            # A name such as `../../key` would have `check` read what is no part of the data set.
            sound = sound and all(Path(name).name == name for name in manifest.sha256)
            # Every split has images; they are what its first shard is opened for.
            sound = sound and all(shard_file(split, "image", 0) in manifest.sha256 for split in manifest.counts)
            # Shards that are not listed are looked for by name: of a claim of billions of images, all in memory.
            shards = (-(-count // manifest.images_per_shard) for count in manifest.counts.values())
            sound = sound and sum(shards) <= len(manifest.sha256)
            sound = sound and isinstance(manifest.options, dict)
            sound = sound and all(isinstance(values[key], str) for key in _TEXTS)
            sound = sound and all(isinstance(text, str) for key in _LISTS_OF_TEXT for text in values[key])
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise InputError(f"{damaged} (a field has a wrong type or value).")
        for key in _TEXTS:
            values[key] = printable(values[key])
        for key in _LISTS_OF_TEXT:
            values[key] = tuple(map(printable, values[key]))
        return cls(**values)


def shard_file(split: str, column: str, shard: int) -> str:
    """The name of one shard of an array (`image`, `mask` or an extra) of a split."""
    return f"{split}.{column}.{shard:03d}.npy"


def valid_split_name(split: str) -> bool:
    """A split names files, so it has letters, digits and underscores alone."""
    return re.fullmatch(r"[A-Za-z0-9_]+", split) is not None
