"""TFRecord files and tf.train.Example payloads, read without TensorFlow (spec/datasets.md 1.1-1.4).

A file is a concatenation of records (length, checksum, payload, checksum), perhaps inside one gzip stream. A
payload is a protocol-buffer message with three nested levels and nothing else, so the wire format is walked
by hand. Reading is strictly sequential: record k costs decompressing everything before it.
"""

import gzip
import io
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from boqsa.errors import InputError

Feature = bytes | NDArray[np.float32] | NDArray[np.int64]

MOST_RECORD_BYTES = 16 << 20
"""No data set has records that long, by far; a file that announces one is not read into memory."""
_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER = 1 << 20
_VARINT, _FIXED64, _BLOB, _FIXED32 = 0, 1, 2, 5


def read_records(path: str | Path, *, at: Callable[[int], None] = lambda _: None) -> Generator[bytes, None, None]:
    """Yield the payload of every record, checksums verified; compression is told by the first two bytes.

    Args:
        path: The file.
        at: Called after each record with the bytes of the file that were read so far, compressed ones if it is.

    Raises:
        InputError: if the file cannot be opened, is truncated or damaged; the message says after how many
            whole records.
    """
    whole = 0
    try:
        with ExitStack() as opened:
            raw, stream = _open(path, opened)
            while header := stream.read(12):
                if len(header) < 12:
                    raise EOFError
                length, checksum = struct.unpack("<QI", header)
                if masked_checksum(header[:8]) != checksum:
                    raise InputError(_damaged(path, whole, "length"))
                if length > MOST_RECORD_BYTES:
                    raise InputError(
                        f"{path}: record {whole} has {length} bytes; {MOST_RECORD_BYTES} at most expected, "
                        "so this is not one of the data sets that are read."
                    )
                body = stream.read(length + 4)
                if len(body) < length + 4:
                    raise EOFError
                payload = body[:length]
                if masked_checksum(payload) != int.from_bytes(body[length:], "little"):
                    raise InputError(_damaged(path, whole, "content"))
                at(raw.tell())
                yield payload
                whole += 1
    except EOFError:
        raise InputError(f"{path} is truncated after {whole} whole records; copy or download it again.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is damaged after {whole} whole records (gzip: {error}); copy or download it again."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None


def masked_checksum(content: bytes) -> int:
    """The TFRecord checksum: CRC32C rotated right by 15 bits, plus a constant, modulo 2^32."""
    crc: int = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def parse_example(payload: bytes, names: Collection[str] | None = None) -> dict[str, Feature]:
    """The features of one serialised tf.train.Example, or those of `names` that it has; unknown fields are skipped.

    Raises:
        ValueError: if the payload is not well-formed.
    """
    features: dict[str, Feature] = {}
    for features_message in _blobs(memoryview(payload), field=1):
        for entry in _blobs(features_message, field=1):
            name, feature = "", memoryview(b"")
            for number, value in _fields(entry):
                if number == 1 and isinstance(value, memoryview):
                    name = str(value, "utf-8")
                elif number == 2 and isinstance(value, memoryview):
                    feature = value
            if names is None or name in names:
                features[name] = _parse_feature(feature)
    return features


def _parse_feature(message: memoryview) -> Feature:
    kind, content = 1, b""
    for number, value in _fields(message):
        if number in (1, 2, 3) and isinstance(value, memoryview):
            # A message may come in pieces; pieces of one kind belong together, another kind takes its place.
            content = content + value if number == kind else bytes(value)
            kind = number
    if kind == 1:
        return _join_bytes(content)
    if kind == 2:
        return _floats(content)
    return _integers(content)


def _join_bytes(content: bytes) -> bytes:
    # Multi-Object Datasets store an array as that many values of one byte, each "0A 01 xx" on the wire.
    triples = np.frombuffer(content[: len(content) // 3 * 3], np.uint8).reshape(-1, 3)
    if len(content) % 3 == 0 and (triples[:, 0] == 0x0A).all() and (triples[:, 1] == 1).all():
        return triples[:, 2].tobytes()
    joined = bytearray()
    for value in _blobs(memoryview(content), field=1):
        joined += value
    return bytes(joined)


def _floats(content: bytes) -> NDArray[np.float32]:
    pieces = [
        bytes(value) for number, value in _fields(memoryview(content)) if number == 1 and isinstance(value, memoryview)
    ]
    joined = b"".join(pieces)
    if len(joined) % 4:
        raise ValueError("a float list whose length is not a multiple of four bytes")
    return np.frombuffer(joined, "<f4").astype(np.float32)


def _integers(content: bytes) -> NDArray[np.int64]:
    integers = array("Q")  # a list would need ten times the memory
    for number, value in _fields(memoryview(content)):
        if number != 1:
            continue
        if isinstance(value, int):
            integers.append(value)
            continue
        position = 0
        while position < len(value):
            integer, position = _varint(value, position)
            integers.append(integer)
    return np.array(integers, np.uint64).astype(np.int64)  # two's complement


def _blobs(message: memoryview, field: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == field and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in order: (number, integer for a varint, bytes for everything else)."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire = tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if wire == _BLOB:
            length, position = _varint(message, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + length > len(message):
            raise ValueError("a field runs past the end")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("a number runs past the end")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise ValueError("a number of more than ten bytes")


def _open(path: str | Path, opened: ExitStack) -> tuple[BinaryIO, BinaryIO]:
    """The file as it lies on disk, and the stream of its records."""
    if not os.path.isfile(path):
        raise FileNotFoundError(0, "is not a file" if os.path.exists(path) else "no such file")
    raw = opened.enter_context(open(path, "rb"))  # noqa: SIM115
    magic = raw.read(2)
    raw.seek(0)
    if magic != _GZIP_MAGIC:
        return raw, raw
    inflated = opened.enter_context(gzip.GzipFile(fileobj=raw))
    return raw, opened.enter_context(cast(BinaryIO, io.BufferedReader(inflated, _BUFFER)))


def _damaged(path: str | Path, whole: int, part: str) -> str:
    if whole == 0 and part == "length":
        return f"{path} is not a TFRecord file: its first record has a wrong checksum."
    return f"{path}: record {whole} is damaged (wrong checksum of its {part}) after {whole} whole records."
