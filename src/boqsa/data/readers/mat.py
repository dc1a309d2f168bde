"""Lists of numbers from MATLAB 5 files: the little of the format that data sets need.

    128 bytes     text, version, and "IM" for little or "MI" for big endian
    elements      a type and a length of 4 bytes each, then the content, filled up to 8 bytes; or, up to 4 bytes of
                  content, type and length of 2 bytes each; a compressed element holds others and is not filled up
    a matrix      is an element that holds elements: flags with its class, dimensions, name, numbers

Notable choices:
 - Not `scipy.io.loadmat`: on damaged files it ends the whole process with a segmentation fault, which nothing catches.
 - Whatever is not wanted is stepped over by its length.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boqsa.errors import InputError

_MOST_BYTES = 1 << 20
"""Of a file, and of what a compressed element unpacks to."""
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = ["", "cell", "struct", "object", "char", "sparse"]
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800


def read_lists(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The numbers of the variables `names`, each of which is one row or one column.

    Raises:
        InputError: if the file is not of this kind or damaged, or a variable is missing or no list of numbers.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MB; lists of numbers are not.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise InputError(f"{path} is no MAT file of MATLAB 5; download it again.")
    found: dict[str, NDArray[Any]] = {}
    try:
        for matrix in _matrices(content[128:], order):
            parts = _elements(matrix, order)
            flags, dimensions, name = next(parts)[1], next(parts)[1], next(parts)[1].decode("ascii", "replace")
            if name in names:
                found[name] = _numbers(flags, dimensions, parts, order, f"{name} of {path}")
    except (struct.error, zlib.error, StopIteration, _DamagedError) as error:
        raise InputError(f"{path} is a damaged MAT file ({error or 'it ends too early'}); download it again.") from None
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path} has no {', '.join(missing)}; it has {', '.join(found) or 'neither'}.")
    return found


class _DamagedError(Exception):
    """Something does not fit together."""


def _matrices(content: bytes, order: str) -> Iterator[bytes]:
    for kind, element in _elements(content, order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            inner = unpacker.decompress(element, _MOST_BYTES)
            if unpacker.unconsumed_tail:
                raise _DamagedError(f"an element unpacks to more than {_MOST_BYTES >> 20} MB")
            yield from (part for inner_kind, part in _elements(inner, order) if inner_kind == _MATRIX)
        elif kind == _MATRIX:
            yield element


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The type and the content of each."""
    position = 0
    while position < len(content):
        kind, length = struct.unpack_from(order + "II", content, position)
        start = position + 8
        if kind >> 16:  # a small one
            kind, length, start = kind & 0xFFFF, kind >> 16, position + 4
        element = content[start : start + length]
        if len(element) < length or (start == position + 4 and length > 4):
            raise _DamagedError("it ends too early")
        yield kind, element
        position = max(start + length, position + 8)
        if kind != _COMPRESSED:
            position += -position % 8


def _numbers(flags: bytes, dimensions: bytes, rest: Iterator[tuple[int, bytes]], order: str, what: str) -> NDArray[Any]:
    (flag,) = struct.unpack_from(order + "I", flags)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    kind = flag & 0xFF
    if kind not in _NUMERIC or flag & _COMPLEX or len(shape) != 2 or min(shape) != 1:
        word = "complex" if flag & _COMPLEX else "numeric" if kind in _NUMERIC else "".join(_CLASSES[kind : kind + 1])
        raise InputError(f"{what} is {word or 'unknown'} {'x'.join(map(str, shape[:4]))}; 1xN numbers expected.")
    stored, content = next(rest)
    if stored not in _TYPES:
        raise _DamagedError(f"numbers of type {stored}")
    dtype = np.dtype(order + _TYPES[stored])
    if len(content) != max(shape) * dtype.itemsize:
        raise _DamagedError(f"{max(shape)} numbers expected in {len(content)} bytes")
    return np.frombuffer(content, dtype)
