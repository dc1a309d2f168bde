"""Writers of the original formats, independent of the readers under test."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def frame(payload: bytes) -> bytes:
    """One TFRecord."""

    def checksum(content: bytes) -> bytes:
        crc = google_crc32c.value(content)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(payload))
    return length + checksum(length) + payload + checksum(payload)


def varint(value: int) -> bytes:
    """A protocol-buffer number."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def blob(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


ONE_BYTE = [blob(1, bytes([byte])) for byte in range(256)]


def example(features: dict[str, bytes | np.ndarray]) -> bytes:
    """A tf.train.Example: bytes become a list of one-byte values, float arrays a packed list."""
    entries = b""
    for name, content in features.items():
        if isinstance(content, bytes):
            feature = blob(1, b"".join(map(ONE_BYTE.__getitem__, content)))
        else:
            feature = blob(2, blob(1, content.astype("<f4").tobytes()))
        entries += blob(1, blob(1, name.encode()) + blob(2, feature))
    return blob(1, entries)


@pytest.fixture
def shared() -> Path:
    """Data of the project's development machine; tests that want them are skipped elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/data is not beside the repository")
    return SHARED


@pytest.fixture
def tfrecord_bytes() -> Callable[[list[bytes]], bytes]:
    """Payloads to the content of an uncompressed file."""
    return lambda payloads: b"".join(map(frame, payloads))


@pytest.fixture
def write_records() -> Callable[[Path, list[dict[str, bytes | np.ndarray]]], Path]:
    """Write a gzip file with one record for each dictionary of features."""

    def write(path: Path, records: list[dict[str, bytes | np.ndarray]]) -> Path:
        path.write_bytes(gzip.compress(b"".join(frame(example(features)) for features in records), 1))
        return path

    return write


@pytest.fixture
def write_objectsroom() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Write a gzip file of random frames; returns images (N, 64, 64, 3) and the entity index (N, 64, 64)."""

    def write(path: Path, count: int, entities: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        owner = rng.integers(0, entities, (count, 64, 64))
        with gzip.open(path, "wb", compresslevel=1) as file:
            for image, owners in zip(images, owner, strict=True):
                maps = (owners == np.arange(entities)[:, None, None]).astype(np.uint8) * 255
                file.write(frame(example({"mask": maps.tobytes(), "image": image.tobytes()})))
        return images, owner

    return write


@pytest.fixture
def write_shapestacks() -> Callable[[Path], Path]:
    """Write three scenarios (h = 2, 3, 4) with two cameras each, one in each split."""

    def write(root: Path) -> Path:
        rng = np.random.default_rng(0)
        for height, split in ((2, "train"), (3, "eval"), (4, "test")):
            scenario = f"env_blocks-easy-h={height}-vcom=0-vpsf=0-v=1"
            folder = root / "recordings" / scenario
            folder.mkdir(parents=True)
            for camera in (1, 12):
                pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
                name = f"rgb-w=3-f=0-l=4-c=unique-cam_{camera}-mono-0.png"
                Image.fromarray(pixels).save(folder / name)
                labels = np.zeros((224, 224), np.uint8)
                for label in range(1, height + 1):  # asymmetric, so that swapped axes fail
                    labels[20 * label : 20 * label + 30, 60 : 60 + 20 * label] = label
                labels[14, 14:210] = height  # the first row inside the crop
                codes = np.repeat((labels * 32)[..., None], 4, axis=2)
                codes[..., 3] = 255
                map_name = f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"
                Image.fromarray(codes).save(folder / map_name, format="PNG")
            (root / "splits" / "default").mkdir(parents=True, exist_ok=True)
            ending = "" if split == "train" else "\n"  # the last line may lack its newline
            (root / "splits" / "default" / f"{split}.txt").write_text(scenario + ending)
        return root

    return write


@pytest.fixture
def damage() -> Callable[[Path, np.random.Generator], None]:
    """Change some bytes of a file, cut it off, or turn a part of it round."""

    def change(path: Path, rng: np.random.Generator) -> None:
        content = bytearray(path.read_bytes())
        kind = rng.integers(3)
        if kind == 0:
            for position in rng.integers(0, len(content), 3):
                content[position] = rng.integers(256)
        elif kind == 1:
            del content[rng.integers(len(content)) :]
        else:
            first, second = sorted(rng.integers(0, len(content), 2))
            content[first:second] = content[first:second][::-1]
        path.write_bytes(content)

    return change
