"""Arrays in files, read a few rows at a time and in order: `.npy`, `.npz` and HDF5.

Memory does not grow with the arrays. An `.npz` is a zip of `.npy` files; all that is needed of either is the header and
then bytes. Nothing that a header claims is believed before it agrees with the size of the file.
"""

import lzma
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from boqsa.data.readers.source import some_of
from boqsa.errors import InputError, first_line

INSTALL_HDF5 = "pip install 'boqsa[hdf5]'"
_NPY, _ZIP, _HDF5 = b"\x93NUMPY", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,  # NotImplementedError too: an unknown compression
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
_MOST_RATIO = 2_000
"""Bytes of an HDF5 array to bytes of its file: compression does not reach further, and nothing else should."""
_ALWAYS_ALLOWED = 1 << 30
_MOST_CHUNK_BYTES = 256 << 20
"""HDF5 unpacks a whole chunk at a time."""
_MOST_TEXT_BYTES = 1_024


@dataclass(frozen=True)
class StoredArray(ABC):
    """An array in a file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first axis."""
        return self.dtype.itemsize * prod(self.shape[1:])

    @property
    def holds_text(self) -> bool:
        """Whether the elements are strings."""
        return self.dtype.kind in "US"

    @property
    def chunk_rows(self) -> int:
        """How many rows are packed together, so that they are best read together."""
        return 1

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """The array in pieces of `rows`, the last one perhaps shorter; texts are `str`.

        Raises:
            InputError: if the file is damaged.
        """


def open_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of a file by name; that of an `.npy` is `image`.

    Raises:
        InputError: if it is not a file of arrays, is truncated, or holds pickled objects or arrays in Fortran order.
    """
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {state}; give an .npz, .npy or HDF5 file.")
    try:
        with open(path, "rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if magic.startswith(_NPY):
        return {"image": _open_npy(path)}
    if magic.startswith(_HDF5):
        return _open_hdf5(path)
    if magic.startswith(_ZIP):
        return _open_npz(path)
    raise InputError(f"{path} is neither an .npz, an .npy nor an HDF5 file; one of them was expected.")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        reason = first_line(error).rstrip(".")
        raise InputError(f"cannot read {path}: {reason}; it is truncated or damaged, make or copy it again.") from None


# NumPy's own formats.


@dataclass(frozen=True)
class _NpyArray(StoredArray):
    offset: int
    """Bytes of the header."""
    member: str | None
    """The file in the zip; None for an `.npy` that stands alone."""

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        with _reading(self.path), _opened(self.path, self.member) as file:
            _read_exactly(file, self.offset)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                content = _read_exactly(file, count * self.row_bytes)
                block = np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
                yield _texts(block) if self.holds_text else block
            if file.read(1):  # at the end of a member its checksum is compared
                raise ValueError(f"'{self.name}' goes on after its last row")


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    if member is None:
        with open(path, "rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file


def _open_npy(path: Path) -> StoredArray:
    with _reading(path):
        return _read_header(path, "image", None, path.stat().st_size)


def _open_npz(path: Path) -> dict[str, StoredArray]:
    with _reading(path):
        with zipfile.ZipFile(path) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
        names = {member: member.removesuffix(".npy") for member in sizes if member.endswith(".npy")}
        return {name: _read_header(path, name, member, sizes[member]) for member, name in names.items()}


def _read_header(path: Path, name: str, member: str | None, size: int) -> StoredArray:
    """The array that the header describes, if `size` bytes are what it needs."""
    where = f"{path}: '{name}'" if member else str(path)
    with _opened(path, member) as file:
        try:
            version = npy.read_magic(file)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = read(file)
        except (OSError, zipfile.BadZipFile, zlib.error):
            raise
        except Exception:  # the header is Python text, whose parser can fail in any way
            raise ValueError(f"'{name}' has no header of an .npy file") from None
        offset = file.tell()
    if dtype.hasobject:
        raise InputError(f"{where} holds pickled Python objects, which are not read; save plain numeric arrays.")
    if any(type(side) is not int or side < 0 for side in shape) or dtype.kind not in "biufcSU":
        raise ValueError(f"'{name}' is {dtype} {shape}, not a plain array")
    if fortran and len(shape) > 1:
        raise InputError(f"{where} is in Fortran order; save numpy.ascontiguousarray of it.")
    if dtype.kind in "SU" and dtype.itemsize > _MOST_TEXT_BYTES:
        raise InputError(f"{where} has strings of {dtype.itemsize} bytes; names of splits expected.")
    if not shape or offset + dtype.itemsize * prod(shape) != size:
        raise ValueError(f"'{name}' is {dtype} {shape} in {size} bytes, {offset + dtype.itemsize * prod(shape)} needed")
    return _NpyArray(path, name, shape, dtype, offset, member)


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("it ends too early")
    return content


def _texts(block: NDArray[Any]) -> NDArray[Any]:
    return block if block.dtype.kind == "U" else np.array([bytes(text).decode("utf-8") for text in block], object)


# HDF5.


@dataclass(frozen=True)
class _Hdf5Array(StoredArray):
    chunk: tuple[int, ...]

    @property
    def chunk_rows(self) -> int:
        return self.chunk[0]

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        with _reading(self.path), _opened_hdf5(self.path) as file:
            array = file[self.name]
            for start in range(0, self.shape[0], rows):
                block = cast("NDArray[Any]", array[start : start + rows])
                yield _texts(block) if self.holds_text else block


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} is an HDF5 file, which needs h5py: {INSTALL_HDF5}.") from None
    with h5py.File(path, "r", rdcc_nbytes=32 << 20) as file:
        yield file


def _open_hdf5(path: Path) -> dict[str, StoredArray]:
    with _reading(path), _opened_hdf5(path) as file:
        import h5py

        arrays: dict[str, StoredArray] = {}
        for name in ("image", "images", "mask", "masks", "split"):
            array = file.get(name)
            if isinstance(array, h5py.Dataset):
                arrays[name] = _described(path, name, array)
        if not arrays:
            there = some_of(sorted(map(str, file)))
            raise InputError(f"{path} has no dataset 'image'; it has {there or 'none'}.")
        return arrays


def _described(path: Path, name: str, array: Any) -> StoredArray:
    where = f"{path}: '{name}'"
    if array.is_virtual or array.external or array.file.filename != os.fspath(path):
        raise InputError(f"{where} lies in other files; copy it into this one.")
    if array.dtype.hasobject:
        # Where their heap is damaged, the HDF5 library never returns.
        raise InputError(f"{where} has elements of variable length; save strings as numpy.array(..., dtype='S').")
    if not array.shape or array.dtype.itemsize > _MOST_TEXT_BYTES:
        raise InputError(f"{where} is {array.dtype} {array.shape}; a plain array expected.")
    size = array.dtype.itemsize * prod(array.shape)
    if size > max(_ALWAYS_ALLOWED, _MOST_RATIO * os.stat(path).st_size):
        raise InputError(f"{where} claims {size} bytes, far more than its file can hold.")
    chunk = array.chunks or (1, *array.shape[1:])
    chunk_bytes = array.dtype.itemsize * prod(chunk)
    if chunk_bytes > _MOST_CHUNK_BYTES:
        raise InputError(
            f"{where} has chunks of {chunk_bytes >> 20} MiB, which are unpacked as a whole; store it with smaller ones "
            "(h5repack -l CHUNK=...)."
        )
    return _Hdf5Array(path, name, tuple(array.shape), array.dtype, tuple(chunk))
