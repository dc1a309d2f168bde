"""Tiny stand-ins for every data set, in the layout of the original: to try a recipe end to end without a download.

The pictures are the built-in scenes. Nothing learned or scored on them says anything about the original.
"""

from collections.abc import Callable
from pathlib import Path

from boqsa.data.mimic.content import Content

WRITERS: dict[str, Callable[[Path, Content], Path]] = {}
"""Writer by the data set's name. It fills a folder, which may exist, and returns what `prepare` is to be given as SOURCE."""

__all__ = ["WRITERS", "Content"]
