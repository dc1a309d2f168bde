"""One file a format: `read(source, ...)` turns a layout into a `Source` of samples at target size.

A reader says in its signature which options it takes; it checks all that can be checked before the first
sample. `tfrecord`, `picture` and `label_picture` read single files, and `source` is what every reader
returns.
"""

from collections.abc import Callable

from boqsa.data.readers import arrays, folder, objectsroom, shapestacks
from boqsa.data.readers.source import Sample, Source

READERS: dict[str, Callable[..., Source]] = {
    "objectsroom": objectsroom.read,
    "shapestacks": shapestacks.read,
    "folder": folder.read,
    "arrays": arrays.read,
}
"""Reader by the name that `boqsa data prepare` takes."""

__all__ = ["READERS", "Sample", "Source"]
