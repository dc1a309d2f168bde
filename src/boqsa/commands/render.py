"""`boqsa render RUN IMAGE [--out FILE]`: the scene of one picture from other views, each object alone, or changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from boqsa.commands.arguments import parse
from boqsa.errors import InputError

if TYPE_CHECKING:
    from boqsa.inference.novel_views import Scene, SceneViewer


@dataclass(frozen=True, kw_only=True)
class Render:
    """Show the scene of one picture from an orbit of new views: colour, depth, and every slot alone, side by side.

    A file .gif or .webp is a film, .png a sheet with a row for each view. Slot 0 is the background.
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder of a radiance recipe, folder of save_pretrained, or name on the hub (owner/name)."""
    image: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="IMAGE")]]
    """A picture. A pose beside it, <name>_RT.txt, is used."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write: .gif, .webp or .png; by default IMAGE_views.webp here, by the picture's name."""
    views: int = 24
    """Views of the orbit."""
    degrees: float = 60.0
    """How wide the orbit is; below 360 it goes there and back."""
    size: int | None = None
    """Height and width of a view in pixels; by default those of the model's input."""
    samples: int = 64
    """Samples of a ray."""
    camera: Path | None = None
    """File with the picture's camera-to-world matrix, 4x4."""
    remove: tuple[int, ...] = ()
    """Slots to leave out."""
    move: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SLOT=X,Y,Z")] = ()
    """Move what a slot holds, in world units; z is up."""
    take: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SLOT=IMAGE[:SLOT]")] = ()
    """Take what a slot holds from another picture: 0=other.png for its background, 1=other.png:2 for its slot 2."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""


_SUFFIXES = (".gif", ".webp", ".png")


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Render, arguments, command="render")
    out = chosen.out or Path(f"{chosen.image.stem}_views.webp")
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--out is {out}; give a file that ends in {', '.join(_SUFFIXES)}.")
    moves = dict(_move(text) for text in chosen.move)
    if len(moves) < len(chosen.move):
        raise InputError(f"--move names a slot twice ({' '.join(chosen.move)}); give each slot one distance.")

    from boqsa.commands.console import progress_bar
    from boqsa.inference import load
    from boqsa.inference.novel_views import SceneViewer, frames, orbit, with_moved, without
    from boqsa.reports.film import write_film

    viewer = SceneViewer(load(chosen.run, checkpoint=chosen.checkpoint), size=chosen.size, samples=chosen.samples)
    scene = viewer.find(chosen.image, pose=chosen.camera)
    cameras = orbit(scene.camera, chosen.views, degrees=chosen.degrees)
    for text in chosen.take:
        scene = _take(viewer, scene, text)
    slots = scene.num_slots
    scene = without(with_moved(scene, moves), chosen.remove)
    with progress_bar("rendering") as progress:
        pictures = frames(viewer.views(scene, cameras, progress=progress))
    write_film(out, pictures)
    shown = [f"slot {slot}" for slot in range(1, slots) if slot not in chosen.remove]
    columns = ", ".join(["colour", "depth", "background", *shown])
    print(f"{out}: {len(pictures)} views; from left to right {columns}.")
    return 0


def _move(text: str) -> tuple[int, list[float]]:
    slot, _, distance = text.partition("=")
    try:
        return int(slot), [float(part) for part in distance.split(",")]
    except ValueError:
        raise InputError(f"--move has {text!r}; give SLOT=X,Y,Z, as 1=0.5,0,0.") from None


def _take(viewer: "SceneViewer", scene: "Scene", text: str) -> "Scene":
    from boqsa.inference.novel_views import with_slot_of

    slot, _, rest = text.partition("=")
    path, _, other = rest.rpartition(":")
    if not path or not other.isdigit():
        path, other = rest, slot
    if not slot.isdigit() or not other.isdigit() or not path:
        raise InputError(f"--take has {text!r}; give SLOT=IMAGE or SLOT=IMAGE:SLOT, as 0=other.png.")
    return with_slot_of(scene, int(slot), viewer.find(path), int(other))
