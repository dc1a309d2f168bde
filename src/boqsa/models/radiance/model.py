"""uORF with BO-QSA (paper section B.4, Table 19): one photograph becomes slots, and each slot a field in space.

The input view goes through a small U-Net and slot attention with a background slot; each slot conditions a field;
pixels of any view are rendered from all of them together and compared with its photograph. No pose is predicted, and
no slot has a position.

Notable choices:
- Rays are rendered in pieces, and where there is a gradient and there are many, each piece is computed again in the
  backward pass: memory does not grow with the number of rays, and pieces that fit a processor's cache are several
  times faster.
- While locality is on, the objects' field is not evaluated outside the box, where its density counts as zero anyway.
- A step sees pixels of several views; which ones is the caller's choice.

Shapes: B scenes, N views of which the first is the input, K slots of which slot 0 is the background, R rays, S samples
a ray, D slot size, H W input image.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from boqsa.models.image import scaled_image
from boqsa.models.output import Noise, Output
from boqsa.models.radiance.encoder import ViewEncoder
from boqsa.models.radiance.fields import Field, encode
from boqsa.models.radiance.rays import Frustum, Rays, cast_rays
from boqsa.models.radiance.rendering import Composition, Pixels, compose, joined, see, see_all
from boqsa.models.radiance.scene import Found, Occupancy, SceneOutput, Seen, Views, colours_at, photographs
from boqsa.models.radiance.slots import BackgroundSlotEncoder, Starts
from boqsa.slots import Gradient
from boqsa.slots.queries import Perturbation

ObjectFrame = Literal["azimuth", "camera", "camera_published"]

_POINTS_AT_ONCE = 16_384
"""Points of one piece: larger ones fall out of the processor's cache (uorf 15)."""
_POINTS_KEPT = 32_768
"""Up to so many points of a step the graph is kept as it is, which saves a third of the time."""
_GRID = 12
"""Points along each side of the box that `occupancy` looks at."""


class RadianceModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="boqsa",
    tags=["object-centric-learning", "slot-attention", "bo-qsa", "radiance-fields"],
    license="apache-2.0",
):
    """Slots that are radiance fields.

    uORF is `queries="shared_gaussian", gradient="unrolled"`; uORF with BO-QSA is `queries="learned",
    gradient="bilevel"`; the other two combinations work as well. The defaults are CLEVR-567's (uorf 9).

    Args:
        input_size: Height and width of the input view, in pixels: a multiple of 4, or of 8 if `halved`.
        num_slots: K, background included.
        slot_size: D, also the width of all features and fields.
        halved: Tokens at half of the input's resolution (Room-Diverse, with inputs of 128).
        iterations: Slot-attention steps, all counted.
        queries, gradient, perturbation: As in `BackgroundSlotEncoder`.
        focal_x, focal_y, near, far, scene_scale: The lens, and the depths that are looked at, as in `Frustum`.
        box: Half the side of the cube around the world's origin that objects are kept in while locality is on, in
            world units.
        box_bottom, box_top: Lowest and highest z that objects are kept in, in world units; None means the cube's.
        stay_in_box: Keep objects in the box for good, in training and after; the published model lets them out.
        object_frame: In which axes objects are described. "azimuth": the world's, turned with the input camera about
            the vertical. "camera": the input camera's. "camera_published": the same with the published mixture of
            units, for its checkpoints (uorf 5.6).

    Raises:
        ValueError: if a size or a length is out of its range; the message names it.
    """

    def __init__(
        self,
        input_size: int = 64,
        num_slots: int = 8,
        slot_size: int = 40,
        halved: bool = False,
        iterations: int = 3,
        queries: Starts = "learned",
        gradient: Gradient = "bilevel",
        perturbation: Perturbation = "multiplicative",
        focal_x: float = 350 / 320,
        focal_y: float = 350 / 240,
        near: float = 6.0,
        far: float = 20.0,
        scene_scale: float = 7.0,
        box: float = 4.5,
        box_bottom: float | None = None,
        box_top: float | None = None,
        stay_in_box: bool = False,
        object_frame: ObjectFrame = "azimuth",
    ) -> None:
        super().__init__()
        multiple = 8 if halved else 4
        if input_size < multiple or input_size % multiple:
            raise ValueError(f"input_size is {input_size}; the encoder halves it, so give a multiple of {multiple}.")
        if slot_size < 4:
            raise ValueError(f"slot_size is {slot_size}; the colour head has a quarter of it, so give 4 or more.")
        if box <= 0:
            raise ValueError(f"box is {box}; give half the side of the objects' cube, above 0, in world units.")
        self.frustum = Frustum(focal=(focal_x, focal_y), near=near, far=far, scene_scale=scene_scale)
        self.image_size, self.num_slots = input_size, num_slots
        low, high = -box if box_bottom is None else box_bottom, box if box_top is None else box_top
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"the box is from z = {low} up to {high}; box_top must be above box_bottom, both finite.")
        self.box, self.object_frame, self.stay_in_box = box, object_frame, stay_in_box
        # Half the sides of the box, and its middle, in scene units; objects turn about the vertical alone.
        self.box_half = tuple(side / scene_scale for side in (box, box, (high - low) / 2))
        self.box_middle = (0.0, 0.0, (low + high) / 2 / scene_scale)
        self.encoder = ViewEncoder(slot_size, halved=halved)
        self.slot_encoder = BackgroundSlotEncoder(
            num_slots,
            slot_size,
            iterations=iterations,
            queries=queries,
            gradient=gradient,
            perturbation=perturbation,
        )
        self.background_field = Field(slot_size, colour_head=False)
        self.object_field = Field(slot_size, colour_head=True)
        # From where a picture of no known pose is taken to be: a view of the training set, once it was trained.
        self.typical_camera: Tensor
        self.typical_azimuth: Tensor
        self.register_buffer("typical_camera", torch.eye(4))
        self.register_buffer("typical_azimuth", torch.eye(3))

    def forward(
        self,
        views: Views,
        pixels: Int[Tensor, "B R 3"],
        *,
        size: int,
        samples: int,
        local: bool,
        sigma: float = 0.0,
        noise: Noise | None = None,
        density_noise: Float[Tensor, "B K R S"] | None = None,
    ) -> SceneOutput:
        """Find the slots of the input views and render some pixels of all views from them.

        Args:
            views: Photographs of `size` or larger; they are resized, bilinearly.
            pixels: View, row and column of each ray, at `size`.
            size: Height and width that views are rendered at.
            samples: S.
            local: Whether objects are kept in the box.
            sigma: Strength of the query perturbation in [0, 1].
            noise: The random numbers of this pass.
            density_noise: Added to the densities (uorf 6.4).
        """
        found = self.find(photographs(views.image[:, :1], self.image_size)[:, 0], sigma=sigma, noise=noise)
        rays = cast_rays(views.camera, pixels, size=size, frustum=self.frustum)
        frame = self.frame_of(views.camera[:, 0], views.azimuth[:, 0])
        colour = self.render(found.slots, rays, frame, samples=samples, local=local, density_noise=density_noise)
        target = colours_at(photographs(views.image, size), pixels)
        # Both in [-1, 1], as published: 4 times the error in [0, 1].
        return SceneOutput(colour, target, *found, {"reconstruction": 4 * nn.functional.mse_loss(colour, target)})

    @torch.no_grad()
    def look(
        self,
        views: Views,
        *,
        size: int,
        samples: int,
        iterations: int | None = None,
        noise: Noise | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Found, Seen]:
        """Find the slots of the input views, and render all views whole from them.

        Args:
            views: Their photographs are looked at in the first view alone.
            size: Height and width that views are rendered at.
            samples: S.
            iterations: Slot-attention steps; None means the trained number.
            noise: The sample that Gaussian slots start from.
            progress: Called with (rays done, rays in all).
        """
        image = photographs(views.image[:, :1], self.image_size)[:, 0]
        found = self.find(image, iterations=iterations, noise=noise)
        frame = self.frame_of(views.camera[:, 0], views.azimuth[:, 0])
        return found, self.show(found.slots, views.camera, frame, size=size, samples=samples, progress=progress)

    @torch.no_grad()
    def show(
        self,
        slots: Float[Tensor, "B K D"],
        camera: Float[Tensor, "B N 4 4"],
        frame: Float[Tensor, "B 4 4"],
        *,
        size: int,
        samples: int,
        moved: Float[Tensor, "K 3"] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Seen:
        """Render whole views of any cameras; objects are free of their box, unless they stay in it for good.

        Args:
            slots: From `find`, or put together from several of them.
            camera: Camera to world.
            frame: From `frame_of` the input view.
            size: Height and width in pixels.
            samples: S.
            moved: How far each slot's content is moved, in world units (uorf 10.6); None moves nothing.
            progress: Called with (rays done, rays in all).
        """
        scenes, views = camera.shape[:2]
        pixels = all_pixels(views, size, scenes=scenes).to(camera.device)
        rays = cast_rays(camera, pixels, size=size, frustum=self.frustum)
        seen = self.render_all(slots, rays, frame, samples=samples, moved=moved, progress=progress)
        shape = (views, size, size)
        return Seen(
            image=seen.colour.unflatten(1, shape).movedim(-1, 2),  # type: ignore[no-untyped-call]
            depth=seen.depth.unflatten(1, shape),  # type: ignore[no-untyped-call]
            slot_masks=seen.slot_masks.unflatten(2, shape).transpose(1, 2),  # type: ignore[no-untyped-call]
            slot_images=seen.slot_colours.unflatten(2, shape).transpose(1, 2).movedim(-1, 3),  # type: ignore[no-untyped-call]
        )

    def segment(
        self,
        image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        *,
        iterations: int | None = None,
        noise: Noise | None = None,
        samples: int = 64,
    ) -> Output:
        """What the other models give of an image of no known pose: it is rendered from where training looked."""
        found = self.find(image, iterations=iterations, noise=noise)
        camera = self.typical_camera.expand(len(image), 1, 4, 4)
        frame = self.frame_of(camera[:, 0], self.typical_azimuth.expand(len(image), 3, 3))
        return self.show(found.slots, camera, frame, size=self.image_size, samples=samples).of_view(0, found)

    def find(
        self,
        image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"],
        *,
        iterations: int | None = None,
        sigma: float = 0.0,
        noise: Noise | None = None,
    ) -> Found:
        """Slots of input views, uint8 or float in [0, 1].

        Raises:
            ValueError: if an image has another size than the model was made for.
            TypeError: if it is neither uint8 nor floating point.
        """
        noise = noise or Noise()
        scaled = scaled_image(image, size=self.image_size, low=-1.0, dtype=self.slot_encoder.to_keys.weight.dtype)
        initial = self.slot_encoder.initial_slots(len(image), sigma=sigma, noise=noise.queries)
        prepared = self.slot_encoder.prepare(self.encoder(scaled))
        slots, attention = self.slot_encoder(prepared, initial, iterations=iterations)
        return Found(slots, initial, attention)

    def render(
        self,
        slots: Float[Tensor, "B K D"],
        rays: Rays,
        frame: Float[Tensor, "B 4 4"],
        *,
        samples: int,
        local: bool,
        density_noise: Float[Tensor, "B K R S"] | None = None,
    ) -> Float[Tensor, "B R 3"]:
        """The colour of each ray in [0, 1], piece by piece.

        Args:
            slots: From `find`, or put together from several of them.
            rays: From `cast_rays`.
            frame: From `frame_of` the input view.
            samples: S.
            local: Whether objects are kept in the box.
            density_noise: Added to the densities (uorf 6.4).
        """

        def piece(slots: Tensor, origin: Tensor, direction: Tensor, length: Tensor, *noise: Tensor) -> Tensor:
            part = Rays(origin, direction, length)
            found = self.composition(
                slots, part, frame, samples=samples, local=local, noise=noise[0] if noise else None
            )
            return see(found, self.frustum.intervals(samples, like=length), length)

        colours = []
        for part in self._pieces(rays, samples):
            chosen = (tensor[:, part] for tensor in rays)
            noise = () if density_noise is None else (density_noise[:, :, part],)
            if torch.is_grad_enabled() and rays.length.numel() * samples > _POINTS_KEPT:
                colours.append(checkpoint(piece, slots, *chosen, *noise, use_reentrant=False, preserve_rng_state=False))
            else:
                colours.append(piece(slots, *chosen, *noise))
        return torch.cat(colours, dim=1)

    @torch.no_grad()
    def render_all(
        self,
        slots: Float[Tensor, "B K D"],
        rays: Rays,
        frame: Float[Tensor, "B 4 4"],
        *,
        samples: int,
        local: bool = False,
        moved: Float[Tensor, "K 3"] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Pixels:
        """Colour, depth and every slot alone, without a graph.

        Args:
            slots, rays, frame, samples, local: As for `render`.
            moved: How far each slot's content is moved, in world units (uorf 10.6); None moves nothing.
            progress: Called with (rays done, rays in all) after each piece.
        """
        seen: list[Pixels] = []
        total = rays.length.shape[1]
        for part in self._pieces(rays, samples):
            chosen = Rays(*(tensor[:, part] for tensor in rays))
            found = self.composition(slots, chosen, frame, samples=samples, local=local, moved=moved)
            seen.append(see_all(found, self.frustum.intervals(samples, like=chosen.length), chosen.length))
            if progress is not None:
                progress(min(part.stop, total), total)
        return joined(seen)

    def composition(
        self,
        slots: Float[Tensor, "B K D"],
        rays: Rays,
        frame: Float[Tensor, "B 4 4"],
        *,
        samples: int,
        local: bool,
        noise: Float[Tensor, "B K R S"] | None = None,
        moved: Float[Tensor, "K 3"] | None = None,
    ) -> Composition:
        """What there is along some rays, all at once; arguments as for `render_all`."""
        points = rays.points(self.frustum.depths(samples, like=rays.length))  # (B, R, S, 3)
        batch, count = points.shape[:2]
        flat = points.flatten(1, 2)  # (B, P, 3) with P = R S
        if moved is None:
            raw_background = self.background_field(encode(flat), slots[:, :1])  # (B, 1, P, 4)
            raw_objects = self._objects(flat, slots[:, 1:], frame, local=local)  # (B, K - 1, P, 4)
        else:
            back = moved / self.frustum.scene_scale  # content that moves there is looked up here
            raw_background = self.background_field(encode(flat - back[0]), slots[:, :1])
            raw_objects = torch.cat(
                [
                    self._objects(flat - back[index], slots[:, index : index + 1], frame, local=local)
                    for index in range(1, slots.shape[1])
                ],
                dim=1,
            )
        raw = torch.cat([raw_background, raw_objects], dim=1).view(batch, -1, count, samples, 4)
        return compose(raw, noise=noise)

    def frame_of(
        self, camera: Float[Tensor, "B 4 4"], azimuth: Float[Tensor, "B 3 3"] | None = None
    ) -> Float[Tensor, "B 4 4"]:
        """The map from the world's scene units to the axes in which objects are described, of an input view.

        Args:
            camera: Camera to world.
            azimuth: Rotation about the vertical that turns with the camera; needed where `object_frame` is "azimuth".

        Raises:
            ValueError: if the azimuth is needed and absent, or a pose cannot be inverted.
        """
        if self.object_frame == "azimuth":
            if azimuth is None:
                raise ValueError("this model describes objects in the input camera's azimuth; pass azimuth.")
            frame = torch.eye(4).to(camera).expand(len(camera), 4, 4).clone()
            frame[:, :3, :3] = azimuth
        else:
            frame = camera.clone()
            if self.object_frame == "camera":
                frame[:, :3, 3] /= self.frustum.scene_scale
        inverse: Tensor
        inverse, info = torch.linalg.inv_ex(frame)
        if info.any():
            raise ValueError("the pose of an input view is singular; give a camera-to-world matrix.")
        return inverse

    @torch.no_grad()
    def occupancy(self, slots: Float[Tensor, "B K D"], frame: Float[Tensor, "B 4 4"]) -> Occupancy:
        """How much of the box's cube the objects fill: whether one is dead shows here first (uorf 13).

        Args:
            slots: From `find`.
            frame: From `frame_of` the input view.
        """
        sides = [
            middle + torch.linspace(-half, half, _GRID).to(slots)
            for middle, half in zip(self.box_middle, self.box_half, strict=True)
        ]
        points = torch.cartesian_prod(*sides).expand(len(slots), -1, 3)  # (B, P, 3), in the world's axes
        objects = self._objects(points, slots[:, 1:], frame, local=False)
        raw = torch.cat([self.background_field(encode(points), slots[:, :1]), objects], dim=1)  # (B, K, P, 4)
        found = compose(raw[:, :, None])  # as the samples of one ray
        is_dense = raw[:, 1:, :, 0] > 0  # (B, K - 1, P)
        owned = found.slot_density[:, 1:, 0].sum(dim=-1) / found.density.sum(dim=-1).clamp(min=1e-12)
        return Occupancy(is_dense.to(slots).mean(dim=-1), owned)

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape, a sample, of each field of `Noise` that this model uses."""
        return self.slot_encoder.noise_shapes

    def _objects(
        self,
        points: Float[Tensor, "B P 3"],
        slots: Float[Tensor, "B k D"],
        frame: Float[Tensor, "B 4 4"],
        *,
        local: bool,
    ) -> Float[Tensor, "B k P 4"]:
        """Raw densities and colours of the objects at points of the world, in scene units."""
        own = points @ frame[:, :3, :3].mT + frame[:, None, :3, 3]  # (B, P, 3)
        if not (local or self.stay_in_box):
            raw: Tensor = self.object_field(encode(own), slots)
            return raw
        # In the world's axes where objects have the camera's: a box around the camera would hold nothing.
        boxed = own if self.object_frame == "azimuth" else points
        off_middle = boxed - boxed.new_tensor(self.box_middle)
        inside = (off_middle.abs() <= boxed.new_tensor(self.box_half)).all(dim=-1)  # (B, P)
        out = points.new_zeros(len(points), slots.shape[1], points.shape[1], 4)
        for scene, chosen in enumerate(inside):  # as many points as each scene has there
            where = chosen.nonzero().squeeze(1)
            # Where nothing is inside, the first point stands in and counts as zero: several processes wait for a
            # gradient of every parameter.
            weight = 1 if len(where) else 0
            where = where if len(where) else chosen.new_zeros(1, dtype=torch.long)
            raw = weight * self.object_field(encode(own[scene, where])[None], slots[scene : scene + 1])
            out[scene] = out[scene].index_copy(1, where, raw[0].to(out))
        return out

    @staticmethod
    def _pieces(rays: Rays, samples: int) -> list[slice]:
        """Slices of the rays, of equal size but for the last one."""
        scenes, count = rays.length.shape
        at_once = max(1, math.floor(_POINTS_AT_ONCE / (scenes * samples)))
        return [slice(first, first + at_once) for first in range(0, count, at_once)]


def all_pixels(views: int, size: int, *, scenes: int = 1) -> Int[Tensor, "B R 3"]:
    """Every pixel of every view, view by view and row by row, for `cast_rays`."""
    along = torch.arange(size)
    return torch.cartesian_prod(torch.arange(views), along, along).repeat(scenes, 1, 1)
