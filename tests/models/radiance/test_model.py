"""The radiance model as a whole: exact savings are exact, views and crops agree (uorf 5 to 7, 17)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.models import Noise
from boqsa.models.radiance import RadianceModel, Rays, Views, all_pixels, azimuth_of, cast_rays
from boqsa.models.radiance import model as module


def tiny(**changes: Any) -> RadianceModel:
    torch.manual_seed(0)
    arguments = {
        "input_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "near": 4.0,
        "far": 16.0,
        "scene_scale": 4.0,
        "box": 3.0,
    }
    return RadianceModel(**{**arguments, **changes}).double()


def one_view(view: int, size: int) -> Tensor:
    """All pixels of it."""
    return all_pixels(view + 1, size)[:, -size * size :]


def cameras(views: int = 2, *, scenes: int = 1) -> Tensor:
    """On a circle of radius 9 about the origin, 5 up, looking at it."""
    poses = torch.eye(4, dtype=torch.float64).repeat(scenes, views, 1, 1)
    for scene in range(scenes):
        for view in range(views):
            angle = torch.tensor(0.7 * view + 0.3 * scene, dtype=torch.float64)
            position = torch.stack([9 * angle.cos(), 9 * angle.sin(), torch.tensor(5.0).double()])
            forward = -position / position.norm()
            right = torch.linalg.cross(forward, torch.tensor([0.0, 0, 1]).double())
            right = right / right.norm()
            poses[scene, view, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
            poses[scene, view, :3, 3] = position
    return poses


def slots_of(model: RadianceModel, scenes: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    count, size = model.slot_encoder.num_slots, model.slot_encoder.slot_size
    return torch.randn(scenes, count, size, dtype=torch.float64, generator=generator)


def test_occupancy_of_objects_that_are_everywhere_nowhere_and_equal() -> None:
    model = tiny()
    frame = torch.eye(4, dtype=torch.float64)[None]
    for field in (model.object_field, model.background_field):
        for parameter in field.parameters():
            torch.nn.init.zeros_(parameter)
    assert isinstance(model.object_field.density, torch.nn.Linear)
    slots = slots_of(model)
    nowhere = model.occupancy(slots, frame)
    assert nowhere.dense.tolist() == nowhere.owned.tolist() == [[0, 0]]
    torch.nn.init.constant_(model.object_field.density.bias, 2.0)
    alone = model.occupancy(slots, frame)  # two objects of the same density, no background
    assert alone.dense.tolist() == [[1, 1]]
    assert alone.owned[0].tolist() == pytest.approx([0.5, 0.5])
    model.background_field.colour[0].bias.data[0] = 2.0  # a third of everything
    assert model.occupancy(slots, frame).owned[0].tolist() == pytest.approx([1 / 3, 1 / 3])


def looking(model: RadianceModel, size: int = 8, *, views: int = 1) -> tuple[Rays, Tensor]:
    poses = cameras(views)
    pixels = all_pixels(views, size)
    frame = model.frame_of(poses[:, 0], azimuth_of(poses[:, 0]))
    return cast_rays(poses, pixels, size=size, frustum=model.frustum), frame


def views_of(count: int = 2, *, scenes: int = 1, size: int = 16) -> Views:
    image = torch.randint(
        0, 256, (scenes, count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    poses = cameras(count, scenes=scenes)
    return Views(image, poses, azimuth_of(poses))


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"queries": "shared_gaussian"}, 181_464),
        ({"num_slots": 5, "slot_size": 64, "queries": "shared_gaussian"}, 434_952),
        ({"input_size": 128, "num_slots": 5, "slot_size": 64, "halved": True, "queries": "shared_gaussian"}, 471_880),
    ],
)
def test_numbers_of_parameters_are_the_published_ones(arguments: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in RadianceModel(**arguments).parameters()) == count


def test_pieces_equal_the_whole_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their graph is kept or they are computed again."""
    model, slots = tiny(), slots_of(tiny()).requires_grad_()
    rays, frame = looking(model)
    made = []
    for points, kept in ((10_000, 10_000), (100, 10_000), (100, 0), (7, 0)):
        monkeypatch.setattr(module, "_POINTS_AT_ONCE", points)
        monkeypatch.setattr(module, "_POINTS_KEPT", kept)
        colour = model.render(slots, rays, frame, samples=6, local=True)
        made.append((colour, *torch.autograd.grad(colour.square().sum(), [slots, *model.object_field.parameters()])))
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)


def test_leaving_the_outside_out_equals_multiplying_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    model, slots = tiny(), slots_of(tiny()).requires_grad_()
    rays, frame = looking(model)
    parameters = [slots, *model.object_field.parameters(), *model.background_field.parameters()]
    colour = model.render(slots, rays, frame, samples=6, local=True)
    skipped = (colour, *torch.autograd.grad(colour.square().sum(), parameters))

    shares = []

    def multiplied(points: Tensor, slots: Tensor, frame: Tensor, *, local: bool) -> Tensor:
        own = points @ frame[:, :3, :3].mT + frame[:, None, :3, 3]
        raw = model.object_field(module.encode(own), slots)
        inside = (own.abs() <= model.box / model.frustum.scene_scale).all(-1)
        shares.append(inside.double().mean().item())
        density = raw[..., :1] * inside[:, None, :, None]
        return torch.cat([density, raw[..., 1:]], dim=-1)

    monkeypatch.setattr(model, "_objects", multiplied)
    colour = model.render(slots, rays, frame, samples=6, local=True)
    plain = (colour, *torch.autograd.grad(colour.square().sum(), parameters))
    assert 0.1 < sum(shares) / len(shares) < 0.9
    for one, two in zip(skipped, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_the_box_has_a_height_of_its_own_and_objects_may_stay_in_it() -> None:
    model = tiny(box=2.0, box_bottom=-0.5, box_top=1.5, stay_in_box=True, object_frame="camera")
    _, frame = looking(model)
    along = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)
    world = torch.cartesian_prod(along, along, along)[None]
    slots = slots_of(model)
    raw = model._objects(world / model.frustum.scene_scale, slots[:, 1:], frame, local=False)
    inside = ((world[..., :2].abs() <= 2) & (world[..., 2:] >= -0.5) & (world[..., 2:] <= 1.5)).all(dim=-1)[0]
    assert (raw[0, :, ~inside] == 0).all()
    assert (raw[0, :, inside] != 0).any(dim=-1).all()
    free = tiny(box=2.0, box_bottom=-0.5, box_top=1.5, object_frame="camera")
    everywhere = free._objects(world / model.frustum.scene_scale, slots[:, 1:], frame, local=False)
    torch.testing.assert_close(everywhere[0, :, inside], raw[0, :, inside])
    assert (everywhere[0, :, ~inside] != 0).any()
    for heights in ({"box_bottom": 1.0, "box_top": 1.0}, {"box_bottom": 3.0}, {"box_top": float("nan")}):
        with pytest.raises(ValueError, match="box_top must be above"):
            tiny(**heights)


def test_a_crop_is_rendered_as_a_crop_of_the_whole() -> None:
    model, slots = tiny(), slots_of(tiny())
    poses = cameras(1)
    frame = model.frame_of(poses[:, 0], azimuth_of(poses[:, 0]))
    pixels = one_view(0, 12)
    whole = model.render(slots, cast_rays(poses, pixels, size=12, frustum=model.frustum), frame, samples=6, local=False)
    crop = pixels.view(1, 12, 12, 3)[:, 3:8, 2:9].reshape(1, -1, 3)
    part = model.render(slots, cast_rays(poses, crop, size=12, frustum=model.frustum), frame, samples=6, local=False)
    torch.testing.assert_close(part, whole.view(1, 12, 12, 3)[:, 3:8, 2:9].reshape(1, -1, 3), rtol=1e-12, atol=1e-14)


def test_random_rays_are_pixels_of_the_whole() -> None:
    model, views = tiny(), views_of(3)
    everything = all_pixels(3, 16)
    chosen = torch.randperm(everything.shape[1], generator=torch.Generator().manual_seed(0))[:50]
    settings: dict[str, Any] = {"size": 16, "samples": 5, "local": True}
    whole, some = model(views, everything, **settings), model(views, everything[:, chosen], **settings)
    torch.testing.assert_close(some.colour, whole.colour[:, chosen], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(some.target, whole.target[:, chosen])


def test_the_loss_is_the_error_between_minus_1_and_1() -> None:
    model, views = tiny(), views_of()
    output = model(views, one_view(1, 16), size=16, samples=4, local=False)
    expected = views.image[0, 1].permute(1, 2, 0).reshape(1, -1, 3).double() / 255
    torch.testing.assert_close(output.target.double(), expected, rtol=0, atol=1e-6)
    error = ((2 * output.colour - 1) - (2 * expected - 1)).square().mean()
    torch.testing.assert_close(output.loss, error, rtol=1e-6, atol=0)
    assert output.losses.keys() == {"reconstruction"}


def test_beyond_the_box_objects_have_no_density_while_locality_is_on() -> None:
    model, slots = tiny(), slots_of(tiny())
    rays, frame = looking(model)
    with torch.no_grad():
        assert model.object_field.density is not None
        model.object_field.density.bias.fill_(5.0)  # type: ignore[union-attr,operator]  # or some would be 0 anyway
    kept = model.composition(slots, rays, frame, samples=6, local=True)
    free = model.composition(slots, rays, frame, samples=6, local=False)
    points = rays.points(model.frustum.depths(6, like=rays.length))
    own = points @ frame[:, None, :3, :3].mT
    outside = (own.abs() > 3.0 / 4.0).any(-1)  # (B, R, S)
    assert 0 < outside.double().mean() < 1
    assert kept.slot_density[:, 1:].masked_select(outside[:, None]).abs().max() == 0
    assert free.slot_density[:, 1:].masked_select(outside[:, None]).min() > 0
    inside = ~outside
    torch.testing.assert_close(kept.density[inside], free.density[inside])


def test_moving_everything_with_the_camera_changes_nothing() -> None:
    model, slots = tiny(object_frame="camera"), slots_of(tiny())
    rays, frame = looking(model)
    shift = torch.tensor([0.4, -1.0, 0.2], dtype=torch.float64)
    still = model.render_all(slots, rays, frame, samples=6)
    moved = model.render_all(
        slots,
        rays._replace(origin=rays.origin + shift / model.frustum.scene_scale),
        frame,
        samples=6,
        moved=shift.expand(3, 3),
    )
    torch.testing.assert_close(moved.colour, still.colour, rtol=1e-9, atol=1e-11)
    one = torch.zeros(3, 3, dtype=torch.float64)
    one[1] = shift
    apart = model.render_all(slots, rays, frame, samples=6, moved=one)
    assert (apart.slot_masks[:, 1] - still.slot_masks[:, 1]).abs().max() > 1e-4
    unmoved = model.render_all(slots, rays, frame, samples=6, moved=torch.zeros(3, 3).double())
    torch.testing.assert_close(unmoved.colour, still.colour)


@pytest.mark.parametrize(
    "heights", [{}, {"box_bottom": -0.5, "box_top": 1.5, "stay_in_box": True}], ids=["cube", "low"]
)
@pytest.mark.parametrize("object_frame", ["azimuth", "camera"])
def test_objects_leave_the_background_beyond_the_box_as_it_is(object_frame: str, heights: dict[str, Any]) -> None:
    """To the bit, with noise on the densities as well; inside the box nothing is as it would be without objects."""
    model = tiny(object_frame=object_frame, **heights)
    slots, camera = slots_of(model), cameras(2)[:, 1:]  # at an angle: the first one's box looks alike in both axes
    rays = cast_rays(camera, all_pixels(1, 8), size=8, frustum=model.frustum)
    frame = model.frame_of(camera[:, 0], azimuth_of(camera[:, 0]))
    with torch.no_grad():
        assert model.object_field.density is not None
        model.object_field.density.bias.fill_(5.0)  # type: ignore[union-attr,operator]  # or some would be 0 anyway
        model.background_field.colour[0].bias[0] = 1.0  # type: ignore[union-attr,index]
    noise = torch.randn(1, 3, 64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {"samples": 6, "local": not heights}
    points = rays.points(model.frustum.depths(6, like=rays.length)) * 4.0  # (B, R, S, 3), in world units
    if object_frame == "azimuth":  # the box turns with what is in it
        points = points @ frame[:, None, :3, :3].mT
    low, high = heights.get("box_bottom", -3.0), heights.get("box_top", 3.0)
    inside = (points[..., :2].abs() <= 3.0).all(dim=-1) & (points[..., 2] >= low) & (points[..., 2] <= high)
    assert 0.05 < inside.double().mean() < 0.9
    for added in (None, noise):
        together = model.composition(slots, rays, frame, noise=added, **settings)
        alone = model.composition(slots[:, :1], rays, frame, noise=None if added is None else added[:, :1], **settings)
        assert alone.slot_density[:, 0][~inside].abs().min() > 0
        for name in ("density", "colour"):
            with_objects, without = getattr(together, name), getattr(alone, name)
            assert torch.equal(with_objects[~inside], without[~inside]), name
            assert (with_objects[inside] != without[inside]).all(), name
            of_background, own = getattr(together, f"slot_{name}")[:, 0], getattr(alone, f"slot_{name}")[:, 0]
            assert torch.equal(of_background[~inside], own[~inside]), name
            assert (of_background[inside] != own[inside]).all(), name


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_the_order_of_the_objects_changes_nothing_that_is_rendered(*, local: bool, moves: bool) -> None:
    """But for the rounding of sums over slots; the background's place is another matter (uorf 10.7, 17)."""
    model = tiny(num_slots=4)
    slots, (rays, frame) = slots_of(model), looking(model, views=2)
    with torch.no_grad():
        assert model.object_field.density is not None
        model.object_field.density.bias.fill_(1.0)  # type: ignore[union-attr,operator]
    moved = torch.tensor([[0.3, 0, 0], [0, 0.5, 0], [1, 0, 0.2], [0, -0.7, 0]], dtype=torch.float64) if moves else None

    def seen(order: list[int]) -> list[Tensor]:
        distances = None if moved is None else moved[order]
        pixels = model.render_all(slots[:, order], rays, frame, samples=6, local=local, moved=distances)
        return [pixels.colour, pixels.depth, pixels.slot_masks, pixels.slot_colours]

    order = [0, 3, 1, 2]
    colour, depth, masks, colours = seen([0, 1, 2, 3])
    for one, other in zip([colour, depth, masks[:, order], colours[:, order]], seen(order), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-14)
    assert (masks[:, order] - masks).abs().max() > 1e-3
    assert (seen([1, 0, 2, 3])[0] - colour).abs().max() > 1e-3
    if moved is None:
        rendered = model.render(slots[:, order], rays, frame, samples=6, local=local)
        torch.testing.assert_close(rendered, colour, rtol=1e-12, atol=1e-14)


def test_rendering_in_pieces_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POINTS_AT_ONCE", 60)
    model = tiny()
    rays, frame = looking(model)
    told: list[tuple[int, int]] = []
    model.render_all(slots_of(model), rays, frame, samples=6, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (10, 64)
    assert told[-1] == (64, 64)


@pytest.mark.parametrize("object_frame", ["azimuth", "camera", "camera_published"])
def test_frames_of_objects(object_frame: str) -> None:
    model = tiny(object_frame=object_frame)
    pose = cameras(1)[:, 0]
    frame = model.frame_of(pose, azimuth_of(pose))
    centre = torch.cat([pose[0, :3, 3] / 4.0, torch.ones(1).double()])  # of the camera, in scene units
    own = (frame[0] @ centre)[:3]
    if object_frame == "azimuth":
        assert own[2].item() == pytest.approx(5 / 4)  # height stays
        assert own[1].item() == pytest.approx(0, abs=1e-12)  # it looks along its own x axis
        assert own[0].item() == pytest.approx(-9 / 4)
    elif object_frame == "camera":
        torch.testing.assert_close(own, torch.zeros(3).double(), rtol=0, atol=1e-12)
    else:  # the translation is in world units, the point is not
        expected = pose[0, :3, :3].mT @ (pose[0, :3, 3] / 4 - pose[0, :3, 3])
        torch.testing.assert_close(own, expected)


def test_queries_of_the_whole_model_have_a_gradient_from_pixels() -> None:
    model = tiny()
    model(views_of(), one_view(1, 16), size=16, samples=4, local=False).loss.backward()
    weight = model.slot_encoder.queries.weight
    assert isinstance(weight, Tensor)
    assert weight.grad is not None
    assert (weight.grad.norm(dim=1) > 0).all()


def test_noise_on_the_queries_is_the_callers() -> None:
    model, image = tiny(), views_of().image[:, 0]
    noise = Noise(queries=torch.ones(1, 3, 8))
    quiet, noisy = model.find(image), model.find(image, sigma=0.5, noise=noise)
    torch.testing.assert_close(noisy.initial_slots, 1.5 * quiet.initial_slots)
    torch.testing.assert_close(model.find(image, sigma=0.0, noise=noise).slots, quiet.slots)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_size": 18}, "input_size is 18"),
        ({"input_size": 20, "halved": True}, "a multiple of 8"),
        ({"num_slots": 1}, "num_slots is 1"),
        ({"slot_size": 3}, "slot_size is 3"),
        ({"near": 7.0, "far": 6.0}, "near is 7.0 and far is 6.0"),
        ({"box": 0.0}, "box is 0.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(**changes)


def test_a_singular_pose_and_a_missing_azimuth_are_refused() -> None:
    with pytest.raises(ValueError, match="pass azimuth"):
        tiny().frame_of(cameras(1)[:, 0])
    flat = cameras(1)[:, 0].clone()
    flat[:, :3, 0] = 0
    with pytest.raises(ValueError, match="singular"):
        tiny(object_frame="camera").frame_of(flat)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 3, 16, 16\)"):
        tiny().find(torch.zeros(1, 3, 32, 32))


def test_without_a_point_in_the_box_objects_are_nothing_and_have_a_gradient_of_0() -> None:
    model, slots = tiny(box=1e-6), slots_of(tiny())
    rays, frame = looking(model)
    kept = model.composition(slots, rays, frame, samples=6, local=True)
    assert kept.slot_density[:, 1:].abs().max() == 0
    kept.density.sum().backward()
    gradients = [parameter.grad for parameter in model.object_field.parameters()]
    assert all(gradient is not None and gradient.abs().max() == 0 for gradient in gradients)
