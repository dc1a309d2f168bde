"""Nested results as JSON allows them: JSON has no NaN and no infinity, and a score without a value is null.

And JSON that a stranger may have written.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_JSON_BYTES = 64 << 20
"""A larger file is no recipe, configuration or manifest of this package."""


def without_nan(values: Any) -> Any:
    """The same nested data with None for every float that JSON cannot hold; tuples become lists."""
    if isinstance(values, Mapping):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def printable(text: str) -> str:
    r"""The same text with an escape, as `\x1b`, for each character that cannot be printed: terminals obey those."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ValueError: as `read_small_text` and `parse_json`.
    """
    return parse_json(read_small_text(path))


def read_small_text(path: str | Path) -> str:
    """A text file of at most `MOST_JSON_BYTES`, in UTF-8.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is too large, no regular file, or no text.
    """
    path = Path(path)
    refuse_special(path)
    if path.stat().st_size > MOST_JSON_BYTES:
        raise ValueError(f"{path.name} is larger than {MOST_JSON_BYTES >> 20} MiB")
    return path.read_text(encoding="utf-8")


def refuse_special(path: Path) -> None:
    """Go on if a path is a file, or nothing at all: opening a pipe would wait for ever.

    Raises:
        ValueError: if it is anything else.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a regular file")


def parse_json(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: if it is no JSON, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
