"""New views of the scene in one picture, from a radiance model: orbits, and scenes that were changed.

Shapes: N views, K slots of which slot 0 is the background, H W pixels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boqsa.data.readers.views import read_camera, read_rotation
from boqsa.data.resample import resize_image
from boqsa.errors import InputError
from boqsa.inference.picture import read_picture
from boqsa.models import Noise
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel, Seen, azimuth_of


class Scene(NamedTuple):
    """What a model found in one picture, and from where the picture is taken to be."""

    slots: Float[Tensor, "1 K D"]
    camera: Float[Tensor, "4 4"]
    """Camera to world."""
    frame: Float[Tensor, "1 4 4"]
    """From the world to the axes of its objects."""
    moved: Float[Tensor, "K 3"]
    """How far each slot's content was moved, in world units."""

    @property
    def num_slots(self) -> int:
        """K."""
        return self.slots.shape[1]


class SceneViewer:
    """A radiance model, ready for pictures.

    Args:
        model: Put into eval mode.
        size: Height and width of the views, in pixels; None means those of the model's input.
        samples: Samples of a ray.

    Raises:
        InputError: if it is another kind of model, or a number is out of range.
    """

    def __init__(self, model: Model, *, size: int | None = None, samples: int = 64) -> None:
        if not isinstance(model, RadianceModel):
            raise InputError(
                f"a {type(model).__name__} has no space to look around in; give a run of a *_radiance recipe."
            )
        self.model = model.eval()
        self.size = model.image_size if size is None else size
        self.samples = samples
        for name, value, least, most in (("size", self.size, 8, 4096), ("samples", samples, 2, 4096)):
            if not least <= value <= most:
                raise InputError(f"{name} is {value}; give {least} to {most}.")

    @torch.no_grad()
    def find(self, picture: Image.Image | str | Path, *, pose: Path | None = None) -> Scene:
        """The scene in a picture.

        Args:
            picture: An image or its file; it is squeezed to the model's square.
            pose: File of its camera-to-world matrix, 4x4. By default the file beside the picture that the data sets
                have (`<name>_RT.txt`), and without one the pose of a training view: background and objects then
                stand together as they should, but where in the world the camera is, is made up.

        Raises:
            InputError: if a file is missing, is no picture, or no pose.
        """
        size = self.model.image_size
        pixels = resize_image(read_picture(picture), (size, size))
        device = next(self.model.parameters()).device
        image = torch.tensor(pixels).permute(2, 0, 1)[None].to(device)  # (1, 3, h, w)
        shape = self.model.noise_shapes()["queries"]
        noise = Noise(queries=torch.randn(shape, generator=torch.Generator().manual_seed(0))[None].to(device))
        found = self.model.find(image, noise=noise)
        camera, azimuth = self._pose(picture, pose)
        frame = self.model.frame_of(camera[None].to(device), azimuth[None].to(device))
        return Scene(found.slots.detach(), camera.to(device), frame, torch.zeros(shape[0], 3, device=device))

    def views(
        self,
        scene: Scene,
        cameras: Float[Tensor, "N 4 4"],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Seen:
        """The scene from other cameras."""
        moved = scene.moved if scene.moved.any() else None
        return self.model.show(
            scene.slots,
            cameras[None].to(scene.slots),
            scene.frame,
            size=self.size,
            samples=self.samples,
            moved=moved,
            progress=progress,
        )

    def _pose(self, picture: Image.Image | str | Path, pose: Path | None) -> tuple[Tensor, Tensor]:
        typical, turned = self.model.typical_camera, self.model.typical_azimuth
        if pose is None and not isinstance(picture, Image.Image):
            beside = Path(picture).with_suffix("")
            named = beside.with_name(f"{beside.name}_RT.txt")
            pose = named if named.is_file() else None
        if pose is None:
            return typical, turned
        camera = torch.from_numpy(read_camera(pose)).to(typical)
        azimuth_file = pose.with_name(pose.name.replace("_RT.txt", "_azi_rot.txt"))
        if azimuth_file != pose and azimuth_file.is_file():
            return camera, torch.from_numpy(read_rotation(azimuth_file)).to(turned)
        # The files of a data set may differ from the direction of the camera by an angle that is the same everywhere.
        return camera, azimuth_of(camera) @ azimuth_of(typical).mT @ turned


def orbit(camera: Float[Tensor, "4 4"], count: int, *, degrees: float = 60.0) -> Float[Tensor, "N 4 4"]:
    """Cameras on the circle about the world's vertical axis on which a camera stands.

    Args:
        camera: Camera to world.
        count: N, at least 1.
        degrees: How wide they go in all; below 360 there and back again, so that a film of them has no jump.

    Raises:
        InputError: if a number is out of range.
    """
    if not 1 <= count <= 10_000:
        raise InputError(f"the number of views is {count}; give 1 to 10000.")
    if not 0 < degrees <= 360:
        raise InputError(f"the orbit is {degrees} degrees; give a number above 0, up to 360.")
    phase = torch.arange(count, dtype=torch.float64) / count
    there_and_back = math.radians(degrees) / 2 * torch.sin(2 * math.pi * phase)
    angles = 2 * math.pi * phase if degrees == 360 else there_and_back
    turns = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    turns[:, 0, 0] = turns[:, 1, 1] = angles.cos()
    turns[:, 1, 0] = angles.sin()
    turns[:, 0, 1] = -angles.sin()
    return (turns @ camera.double().cpu()).to(camera)


def without(scene: Scene, slots: Sequence[int]) -> Scene:
    """The scene without some slots.

    Raises:
        InputError: if there is no such slot, or it is the background's.
    """
    for slot in slots:
        _require_slot(scene, slot)
    kept = [slot for slot in range(scene.num_slots) if slot not in slots]
    if 0 not in kept:  # slot 0 has a field of its own, which no object can take
        raise InputError("slot 0 is the background; remove objects, or take another background.")
    return scene._replace(slots=scene.slots[:, kept], moved=scene.moved[kept])


def with_moved(scene: Scene, moves: Mapping[int, Sequence[float]]) -> Scene:
    """The scene with the content of some slots moved, each by x, y and z in world units (uorf 10.6).

    Raises:
        InputError: if there is no such slot, or a distance has not three finite numbers.
    """
    moved = scene.moved.clone()
    for slot, distance in moves.items():
        _require_slot(scene, slot)
        if len(distance) != 3 or not all(map(math.isfinite, distance)):
            raise InputError(f"slot {slot} is to be moved by {list(distance)}; give x, y and z in world units.")
        moved[slot] += torch.tensor(list(distance)).to(moved)
    return scene._replace(moved=moved)


def with_slot_of(scene: Scene, slot: int, other: Scene, other_slot: int) -> Scene:
    """The scene with what another scene has in one of its slots in the place of one of its own.

    Raises:
        InputError: if there is no such slot, or one is a background and the other is not.
    """
    _require_slot(scene, slot)
    _require_slot(other, other_slot)
    if (slot == 0) != (other_slot == 0):
        raise InputError("a background (slot 0) can only be exchanged for a background, an object for an object.")
    slots = scene.slots.clone()
    slots[:, slot] = other.slots[:, other_slot]
    return scene._replace(slots=slots)


def frames(seen: Seen) -> list[NDArray[np.uint8]]:
    """Each view as one picture: colour, depth (near is bright), then every slot alone, side by side."""
    found = []
    for view in range(seen.image.shape[1]):
        depth = (1 - seen.depth[0, view]).clamp(0, 1).expand(3, -1, -1)
        tiles = [seen.image[0, view], depth, *seen.slot_images[0, view]]
        row = torch.cat(tiles, dim=2).clamp(0, 1)  # (3, H, W (2 + K))
        found.append((row.permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).cpu().numpy())
    return found


def _require_slot(scene: Scene, slot: int) -> None:
    if not 0 <= slot < scene.num_slots:
        raise InputError(f"there is no slot {slot}; the scene has 0 to {scene.num_slots - 1}, 0 is the background.")
