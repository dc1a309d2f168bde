"""Record framing by the published vectors and by damage; Example payloads against protobuf."""

import contextlib
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.data.readers.tfrecord import masked_checksum, parse_example, read_records
from boqsa.errors import InputError

ABC = bytes.fromhex("0300000000000000b099490e6162636e57f121")
IMAGE_07_FF = bytes.fromhex("0a130a110a05696d61676512080a060a01070a01ff")


def test_checksum_vectors() -> None:
    assert masked_checksum(b"123456789") == 0xC78AB0E5
    assert masked_checksum(b"") == 0xA282EAD8


def test_record_vector(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(ABC)
    assert list(read_records(tmp_path / "a")) == [b"abc"]


def test_example_vector() -> None:
    assert parse_example(IMAGE_07_FF) == {"image": b"\x07\xff"}


@pytest.mark.parametrize("members", [0, 1, 2])
def test_plain_gzip_and_several_members(
    members: int, tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes]
) -> None:
    payloads = [b"", b"x" * 100_000, b"last"]
    content = tfrecord_bytes(payloads)
    if members:
        cut = len(content) // members
        content = b"".join(gzip.compress(part) for part in (content[:cut], content[cut:]) if part)
    (tmp_path / "a").write_bytes(content)
    assert list(read_records(tmp_path / "a")) == payloads


def test_a_cut_anywhere_is_found_and_counts_the_whole_records(
    tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes]
) -> None:
    payloads = [b"abc", b"", b"defgh"]
    content = tfrecord_bytes(payloads)
    ends = [len(tfrecord_bytes(payloads[:count])) for count in range(4)]
    for length in range(len(content)):
        (tmp_path / "a").write_bytes(content[:length])
        if length in ends:
            assert list(read_records(tmp_path / "a")) == payloads[: ends.index(length)]
        else:
            whole = sum(end <= length for end in ends) - 1
            with pytest.raises(InputError, match=f"truncated after {whole} whole records"):
                list(read_records(tmp_path / "a"))


def test_a_cut_gzip_stream_is_found(tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes]) -> None:
    noise = np.random.default_rng(0).bytes(5_000)
    content = gzip.compress(tfrecord_bytes([noise] * 3), mtime=0)
    (tmp_path / "a").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"(truncated|damaged) after \d whole records"):
        list(read_records(tmp_path / "a"))


def test_every_flipped_bit_is_found(tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes]) -> None:
    content = tfrecord_bytes([b"abc"])
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(InputError, match=r"checksum"):
            list(read_records(tmp_path / "a"))


@pytest.mark.parametrize("content", [b"hello, this is a text file", b"\x1f\x8bnot gzip at all, really not"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="a"):
        list(read_records(tmp_path / "a"))


def test_a_record_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 40)
    (tmp_path / "a").write_bytes(length + struct.pack("<I", masked_checksum(length)) + b"abc")
    with pytest.raises(InputError, match=r"record 0 has 1099511627776 bytes; 16777216 at most"):
        list(read_records(tmp_path / "a"))


@pytest.mark.parametrize("compressed", [False, True])
def test_position_is_that_of_the_file(
    compressed: bool, tmp_path: Path, tfrecord_bytes: Callable[[list[bytes]], bytes]
) -> None:
    content = tfrecord_bytes([np.random.default_rng(index).bytes(50_000) for index in range(60)])
    (tmp_path / "a").write_bytes(gzip.compress(content, 1) if compressed else content)
    seen: list[int] = []
    assert sum(1 for _ in read_records(tmp_path / "a", at=seen.append)) == 60
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert seen[-1] == (tmp_path / "a").stat().st_size


def test_features_by_name() -> None:
    assert parse_example(IMAGE_07_FF, ("image", "mask")) == {"image": b"\x07\xff"}
    assert parse_example(IMAGE_07_FF, ("mask",)) == {}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            list(read_records(path))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_parsed_or_refused(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_example(payload)


def _example_class(packed: bool) -> Any:
    """tf.train.Example as protobuf knows it; the map is spelled as its entries, the same on the wire."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"example_{packed}.proto", package=f"p{packed}", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, bool, str]) -> None:
        entry = file.message_type.add(name=name)
        for field_name, number, kind, repeated, type_name in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = entry.field.add(name=field_name, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".p{packed}.{type_name}"
            elif repeated and kind != field.TYPE_BYTES:
                added.options.packed = packed

    message("BytesList", ("value", 1, field.TYPE_BYTES, True, ""))
    message("FloatList", ("value", 1, field.TYPE_FLOAT, True, ""))
    message("Int64List", ("value", 1, field.TYPE_INT64, True, ""))
    message(
        "Feature",
        ("bytes_list", 1, field.TYPE_MESSAGE, False, "BytesList"),
        ("float_list", 2, field.TYPE_MESSAGE, False, "FloatList"),
        ("int64_list", 3, field.TYPE_MESSAGE, False, "Int64List"),
    )
    message("Entry", ("key", 1, field.TYPE_STRING, False, ""), ("value", 2, field.TYPE_MESSAGE, False, "Feature"))
    message("Features", ("feature", 1, field.TYPE_MESSAGE, True, "Entry"))
    message(
        "Example",
        ("features", 1, field.TYPE_MESSAGE, False, "Features"),
        ("extra", 9, field.TYPE_INT64, False, ""),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p{packed}.Example"))


EXAMPLES = {packed: _example_class(packed) for packed in (False, True)}
FEATURE = st.one_of(
    st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=3), max_size=5)),
    st.tuples(st.just("bytes_list"), st.lists(st.binary(min_size=1, max_size=1), max_size=300)),
    st.tuples(st.just("float_list"), st.lists(st.floats(width=32, allow_nan=False), max_size=5)),
    st.tuples(st.just("int64_list"), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)),
)


@given(st.dictionaries(st.text(max_size=8), FEATURE, max_size=4), st.booleans(), st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_against_protobuf(features: dict[str, tuple[str, list[Any]]], packed: bool, extra: int) -> None:
    message = EXAMPLES[packed](extra=extra)
    for name, (kind, values) in features.items():
        entry = message.features.feature.add(key=name)
        getattr(entry.value, kind).value.extend(values)
        getattr(entry.value, kind).SetInParent()
    parsed = parse_example(message.SerializeToString())
    assert parsed.keys() == features.keys()
    for name, (kind, values) in features.items():
        if kind == "bytes_list":
            assert parsed[name] == b"".join(values)
        else:
            expected = np.array(values, np.float32 if kind == "float_list" else np.int64)
            assert isinstance(parsed[name], np.ndarray)
            assert parsed[name].dtype == expected.dtype
            np.testing.assert_array_equal(parsed[name], expected)
