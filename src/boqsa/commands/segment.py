"""`boqsa segment RUN IMAGE... --out DIR`: split pictures into objects with a trained run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from boqsa.commands.arguments import parse, print_json

_SHOWN = 20
"""Pictures that are named one by one, and as many that were skipped."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Split pictures into objects: for each a label map, an overlay, and slots and masks as .npz.

    A folder of any size may be given: a call that was cut off goes on where it stopped, and pictures that are broken or
    of a format that is not read, such as HEIC, are listed, also in DIR/skipped.txt.

    Picture a.jpg gives a_labels.png (indexed; pixel values are slots), a_overlay.png and a.npz. Folders are
    searched with their sub-folders, which are mirrored in DIR; pictures of the same name keep their suffix,
    as in a_jpg_labels.png.
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder, folder of save_pretrained, or name on the hub (owner/name)."""
    images: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE...")]]
    """Pictures of any size, or folders of them."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""
    crop: bool = False
    """Use the largest central square, as training does; pixels outside get label 255. Otherwise the picture
    is squeezed, and every pixel gets a slot."""
    iterations: int | None = None
    """Slot-attention steps; by default the trained number."""
    adaptive: bool = False
    """Leave out the slots that a picture does not need, without labels. Not for radiance models."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Features models: where the frozen encoder is, a folder or a name on the hub; by default where it was."""
    also: tuple[Literal["coco", "cvat", "grey"], ...] = ()
    """More outputs. coco: instances.json, COCO instances with run lengths; cvat: cvat.zip, for its import of
    "Segmentation mask 1.1"; grey: a_grey.png, label maps without colours, as FiftyOne and OpenCV want them."""
    device: str = "cpu"
    """Where to compute: cpu, or cuda where there is a GPU."""
    again: bool = False
    """Make anew what an earlier call of the same settings made."""
    batch_size: int = 16
    """Pictures in one pass of the model."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Segment, arguments, command="segment")

    import sys

    from boqsa.commands.console import progress_bar, stopped_by_sigterm
    from boqsa.inference import Segmenter, segment_files
    from boqsa.inference.exchange import (
        COCO_START,
        CVAT_START,
        cvat_places,
        require_own,
        slot_name,
        write_coco,
        write_cvat,
        write_grey,
    )
    from boqsa.inference.files import alone_in, common_folder, find_pictures, write_skipped
    from boqsa.plain import printable

    segmenter = Segmenter.from_pretrained(
        chosen.run,
        checkpoint=chosen.checkpoint,
        crop=chosen.crop,
        iterations=chosen.iterations,
        adaptive=chosen.adaptive,
        encoder=chosen.encoder,
        device=chosen.device,
    )
    pictures = find_pictures(chosen.images, chosen.out)  # so that what is refused leaves no lock among the pictures
    slots, folder = segmenter.model.num_slots, common_folder(chosen.images)
    instances, archive = chosen.out / "instances.json", chosen.out / "cvat.zip"
    if "coco" in chosen.also:
        require_own(instances, COCO_START)  # what is refused is so before hours of work
    if "cvat" in chosen.also:
        require_own(archive, CVAT_START)
        cvat_places(pictures, folder)
    with stopped_by_sigterm(), alone_in(chosen.out, pictures.values()):
        with progress_bar("segmenting") as progress:
            done, skipped = segment_files(
                segmenter,
                chosen.images,
                chosen.out,
                batch_size=chosen.batch_size,
                again=chosen.again,
                progress=progress,
            )
        write_skipped(chosen.out, skipped)
        if "coco" in chosen.also:
            write_coco(instances, done, folder, slots, segmenter.names)
        if "cvat" in chosen.also:
            write_cvat(archive, done, folder, slots, segmenter.names, with_outside=chosen.crop)
        if "grey" in chosen.also:
            write_grey(done)
    if chosen.json:
        images = [
            {
                "image": str(entry.image),
                "labels": str(entry.labels),
                "overlay": str(entry.overlay),
                "arrays": str(entry.arrays),
                "areas": entry.areas,
            }
            for entry in done
        ]
        print_json(
            {
                "slots": [slot_name(slot, segmenter.names) for slot in range(slots)],
                "images": images,
                "skipped": [{"image": str(path), "reason": why} for path, why in skipped],
            }
        )
    else:
        for entry in done[:_SHOWN]:
            print(printable(f"{entry.image}: {entry.overlay}"))
        if len(done) > _SHOWN:
            print(f"... and {len(done) - _SHOWN} more")
        before = sum(not entry.is_new for entry in done)
        earlier = f", {before} of them by an earlier call (--again makes them anew)" if before else ""
        print(f"{len(done)} segmented{earlier}; each has an overlay, a label map and arrays in {chosen.out}.")
        if segmenter.names:
            print(f"slots: {', '.join(f'{slot} {name}' for slot, name in segmenter.names.items())}")
        for _, why in skipped[:_SHOWN]:
            print(printable(f"skipped: {why}"), file=sys.stderr)
        if len(skipped) > _SHOWN:
            print(f"skipped: ... and {len(skipped) - _SHOWN} more, in {chosen.out / 'skipped.txt'}", file=sys.stderr)
    return 1 if skipped else 0
