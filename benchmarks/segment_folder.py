"""`boqsa segment` on a folder of photographs, against a plain loop over the same model; and its memory on 10,000.

Both write the same three files for each picture: label map, overlay, arrays. The plain loop is what one would write
first: open, squeeze, one picture through the model, enlarge the masks, save. The two take turns.
    python benchmarks/segment_folder.py RUN FOLDER
    python benchmarks/segment_folder.py RUN FOLDER --memory 10000     # links to the same photographs, again and again
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from boqsa.data.readers.picture import SUFFIXES
from boqsa.inference import Segmenter, segment_files
from boqsa.models.published import Model
from boqsa.reports import overlay, slot_colours

GOAL, STRETCH = 1.6, 3.0
"""Promise of the project: so many times the images a second of the plain loop."""


@torch.no_grad()
def plain_loop(model: Model, paths: list[Path], out: Path) -> None:
    """One picture after the other, without anything of ours but the model and the colours."""
    palette = slot_colours(256).tobytes()
    for path in paths:
        picture = Image.open(path).convert("RGB")
        small = picture.resize((model.image_size, model.image_size), Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None]
        output = model(image)
        masks = torch.nn.functional.interpolate(output.masks.squeeze(2), picture.size[::-1], mode="bilinear")
        labels = masks.argmax(dim=1)[0].numpy().astype(np.uint8)
        indexed = Image.fromarray(labels)
        indexed.putpalette(palette)
        indexed.save(out / f"{path.stem}_labels.png")
        Image.fromarray(overlay(np.asarray(picture), labels.astype(np.int16))).save(out / f"{path.stem}_overlay.png")
        arrays = {"labels": labels, "masks": output.masks[0, :, 0].numpy(), "slots": output.slots[0].numpy()}
        np.savez_compressed(out / f"{path.stem}.npz", **arrays)


def compare(segmenter: Segmenter, paths: list[Path], rounds: int) -> None:
    """Images a second of both, in turns."""
    seconds: dict[str, list[float]] = {"plain loop": [], "boqsa segment": []}
    for _ in range(rounds):
        for name, found in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                if name == "plain loop":
                    plain_loop(segmenter.model, paths, Path(folder))
                else:
                    segment_files(segmenter, paths, folder)
                found.append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {len(paths) / median:.1f} images/s, median of {rounds} rounds of {len(paths)} images")
    ratio = medians["plain loop"] / medians["boqsa segment"]
    print(f"{ratio:.2f} times the plain loop (aim {GOAL}, stretch {STRETCH})")


def what_bounds(segmenter: Segmenter, paths: list[Path]) -> None:
    """Seconds a picture of each part, one after the other, on the threads that there are."""
    from boqsa.inference import files

    parts: dict[str, float] = {"read": 0.0, "model and masks": 0.0, "write": 0.0}
    settings = files._settings(segmenter)
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, len(paths), 16):
            lot = paths[first : first + 16]
            began = time.perf_counter()
            decoded = [files._read(path, Path(folder) / path.stem) for path in lot]
            read = time.perf_counter()
            found = list(segmenter.predict_batch([picture.pixels for picture in decoded]))
            seen = time.perf_counter()
            for picture, one in zip(decoded, found, strict=True):
                files._write(picture, one, settings)
            parts["read"] += read - began
            parts["model and masks"] += seen - read
            parts["write"] += time.perf_counter() - seen
    print(", ".join(f"{name} {1000 * value / len(paths):.1f} ms" for name, value in parts.items()) + " a picture")


def memory(segmenter: Segmenter, paths: list[Path], count: int) -> None:
    """Peak memory of the process after a tenth of the pictures, and at the end."""
    peaks: dict[int, float] = {}

    def note(done: int, total: int) -> None:
        peaks[done] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder:
        own, links = Path(folder) / "own", Path(folder) / "pictures"
        links.mkdir()
        own.mkdir()
        copies = [Path(shutil.copy(path, own / f"{number}{path.suffix}")) for number, path in enumerate(paths[:count])]
        for number, path in enumerate(islice(cycle(copies), count)):
            (links / f"{number:06}{path.suffix}").hardlink_to(path)
        segment_files(segmenter, [links], Path(folder) / "out", progress=note)
    tenth = max(done for done in peaks if done <= max(count // 10, min(peaks)))
    print(f"peak memory after {tenth} images {peaks[tenth]:.0f} MiB, after {max(peaks)} {peaks[max(peaks)]:.0f} MiB")


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    segmenter = Segmenter.from_pretrained(chosen.run)
    found = sorted(path for path in chosen.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = list({path.stem: path for path in found}.values())
    if chosen.memory:
        memory(segmenter, paths, chosen.memory)
        return
    paths = paths[: chosen.images]
    print(f"{len(paths)} photographs, {chosen.threads} threads, a model of {segmenter.model.image_size} pixels")
    compare(segmenter, paths, chosen.rounds)
    what_bounds(segmenter, paths)


if __name__ == "__main__":
    main()
