"""The built-in scenes against a scalar ray-caster in plain Python, and the promises of `render_scenes`."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boqsa.data.raycast import (
    ABSENT,
    AMBIENT,
    BOX,
    CYLINDER,
    FIELD_OF_VIEW_TANGENT,
    SPHERE,
    SceneParameters,
    draw_images,
    draw_masks,
)
from boqsa.data.scenes import Scenes, SceneSettings, render_scenes, sample_scenes
from boqsa.errors import RecipeError

SMALL = SceneSettings(image_size=32)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return render_scenes(150, seed=4, settings=SMALL)


# The reference: one ray, one scene, Python floats, each surface on its own instead of intervals.


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def along(origin, direction, distance):
    return [o + distance * d for o, d in zip(origin, direction, strict=True)]


def reference_roots(a, b, c):
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return []
    return [(-b - math.sqrt(discriminant)) / (2 * a), (-b + math.sqrt(discriminant)) / (2 * a)]


def reference_sphere(origin, direction, size):
    hits = []
    for t in reference_roots(dot(direction, direction), 2 * dot(origin, direction), dot(origin, origin) - size[0] ** 2):
        hits.append((t, [value / size[0] for value in along(origin, direction, t)]))
    return hits


def reference_box(origin, direction, size):
    hits = []
    for axis, side in itertools.product(range(3), (-1.0, 1.0)):
        t = (side * size[axis] - origin[axis]) / direction[axis]
        point = along(origin, direction, t)
        if all(abs(point[other]) <= size[other] for other in range(3) if other != axis):
            hits.append((t, [side if other == axis else 0.0 for other in range(3)]))
    return hits


def reference_cylinder(origin, direction, size):
    hits = []
    flat_origin, flat_direction = origin[:2], direction[:2]
    for t in reference_roots(
        dot(flat_direction, flat_direction),
        2 * dot(flat_origin, flat_direction),
        dot(flat_origin, flat_origin) - size[0] ** 2,
    ):
        point = along(origin, direction, t)
        if abs(point[2]) <= size[2]:
            hits.append((t, [point[0] / size[0], point[1] / size[0], 0.0]))
    for side in (-1.0, 1.0):
        t = (side * size[2] - origin[2]) / direction[2]
        point = along(origin, direction, t)
        if math.hypot(point[0], point[1]) <= size[0]:
            hits.append((t, [0.0, 0.0, side]))
    return hits


def reference_object_hits(scene, origin, direction):
    """(distance, normal, colour, label) of every meeting of a ray with an object, in front of its origin."""
    shapes = {SPHERE: reference_sphere, BOX: reference_box, CYLINDER: reference_cylinder}
    for slot, kind in enumerate(scene.kind.tolist()):
        if kind == ABSENT:
            continue
        cosine, sine = scene.heading[slot].tolist()
        turn = [[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]]
        moved = [o - p for o, p in zip(origin, scene.position[slot].tolist(), strict=True)]
        local = [dot(row, moved) for row in turn]
        towards = [dot(row, direction) for row in turn]
        for t, normal in shapes[kind](local, towards, scene.half_size[slot].tolist()):
            if t > 1e-4:
                world = [dot(column, normal) for column in zip(*turn, strict=True)]
                yield t, world, scene.colour[slot].tolist(), slot + 1


def reference_room_hits(scene, origin, direction):
    floor, *walls, _ = scene.room_colour.tolist()
    limits = scene.wall_distance.tolist()
    t = -origin[2] / direction[2]
    point = along(origin, direction, t)
    if t > 0 and point[0] <= limits[0] and point[1] <= limits[1]:
        yield t, [0.0, 0.0, 1.0], floor, 0
    for axis in (0, 1):
        t = (limits[axis] - origin[axis]) / direction[axis]
        point = along(origin, direction, t)
        if t > 0 and 0 <= point[2] <= float(scene.wall_height) and point[1 - axis] <= limits[1 - axis]:
            yield t, [-float(other == axis) for other in range(3)], walls[axis], 0


def reference_pixel(scene, view, x, y, image_size):
    """Label and RGB in 0..255 that the ray through the middle of pixel (x, y) brings home."""
    camera = scene.camera[view].tolist()
    ray = [((at + 0.5) / image_size * 2 - 1) * FIELD_OF_VIEW_TANGENT for at in (x, y)] + [1.0]
    length = math.sqrt(dot(ray, ray))
    direction = [dot(row[:3], ray) / length for row in camera[:3]]
    origin = [row[3] for row in camera[:3]]
    hits = [*reference_object_hits(scene, origin, direction), *reference_room_hits(scene, origin, direction)]
    if not hits:
        return 0, [255 * value for value in scene.room_colour[3].tolist()]
    t, normal, colour, label = min(hits)
    light = scene.light.tolist()
    lifted = [p + 1e-3 * n for p, n in zip(along(origin, direction, t), normal, strict=True)]
    shadowed = any(True for _ in reference_object_hits(scene, lifted, light))
    brightness = AMBIENT + (0 if shadowed else (1 - AMBIENT) * max(0.0, dot(normal, light)))
    return label, [255 * brightness * value for value in colour]


def one(batch, index):
    return SceneParameters(*(field[index] for field in batch))


def test_masks_and_colours_agree_with_a_scalar_ray_caster():
    batch = sample_scenes(60, seed=9, settings=SMALL, views=2)
    masks = draw_masks(batch, image_size=32)
    images = draw_images(batch, image_size=32, supersample=1)
    random = np.random.default_rng(0)
    labels = set()
    for index, view in itertools.product(range(60), range(2)):
        for x, y in random.integers(0, 32, size=(25, 2)).tolist():
            label, colour = reference_pixel(one(batch, index), view, x, y, 32)
            assert masks[index, view, y, x] == label
            np.testing.assert_allclose(images[index, view, :, y, x], colour, atol=0.51)
            labels.add(label)
    assert labels == {0, 1, 2, 3, 4}


def test_supersampling_averages_a_finer_image():
    batch = sample_scenes(3, seed=1, settings=SMALL)
    coarse = draw_images(batch, image_size=32, supersample=2)
    fine = draw_images(batch, image_size=64, supersample=1).astype(float)
    mean = fine.reshape(3, 1, 3, 32, 2, 32, 2).mean(axis=(4, 6))
    np.testing.assert_allclose(coarse, mean, atol=1.01)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), start=st.integers(0, 10_000), offset=st.integers(0, 5))
def test_a_scene_depends_on_its_seed_and_index_alone(seed, start, offset):
    several = render_scenes(6, seed=seed, settings=SMALL, start=start)
    single = render_scenes(1, seed=seed, settings=SMALL, start=start + offset, views=2)
    for many, alone in zip(several[:3], single[:3], strict=True):
        np.testing.assert_array_equal(many[offset, 0], alone[0, 0])


def test_chunks_do_not_show(monkeypatch, scenes):
    monkeypatch.setattr("boqsa.data.scenes._RAYS_AT_ONCE", 1)
    one_at_a_time = render_scenes(40, seed=4, settings=SMALL)
    np.testing.assert_array_equal(one_at_a_time.image, scenes.image[:40])
    np.testing.assert_array_equal(one_at_a_time.mask, scenes.mask[:40])


def test_seeds_and_indices_differ(scenes):
    assert len({image.tobytes() for image in scenes.image}) == len(scenes.image)
    other = render_scenes(5, seed=5, settings=SMALL)
    assert (other.image != scenes.image[:5]).any(axis=(1, 2, 3, 4)).all()


def test_shapes_and_types():
    images, masks, cameras, depths, focal = render_scenes(2, seed=0, views=3)
    assert images.shape == (2, 3, 3, 64, 64)
    assert masks.shape == (2, 3, 64, 64)
    assert cameras.shape == (2, 3, 4, 4)
    assert images.dtype == masks.dtype == np.uint8
    assert depths.shape == (2, 3, 64, 64)
    assert cameras.dtype == depths.dtype == np.float32
    assert focal == pytest.approx(32 / FIELD_OF_VIEW_TANGENT)


def test_an_orbit_spreads_the_cameras_and_is_narrow_by_default():
    for orbit in (8.0, 50.0):
        cameras = render_scenes(20, seed=0, settings=SceneSettings(image_size=16, orbit=orbit), views=3).camera
        x, y = cameras[..., 0, 3], cameras[..., 1, 3]
        away = np.degrees(np.arctan2(y, x)) % 360 - 225
        assert orbit * 0.8 < np.abs(away).max() <= orbit


def test_labels_are_contiguous_and_every_object_shows(scenes):
    assert SMALL.min_pixels == 12
    counts = set()
    for mask in scenes.mask[:, 0]:
        labels, pixels = np.unique(mask[mask > 0], return_counts=True)
        assert labels.tolist() == list(range(1, len(labels) + 1))
        assert pixels.min() >= SMALL.min_pixels
        counts.add(len(labels))
    assert counts == {2, 3, 4}


def test_objects_stand_on_the_floor_in_the_room_without_overlap():
    batch = sample_scenes(80, seed=2, settings=SMALL)
    present = batch.kind != ABSENT
    np.testing.assert_array_equal(batch.position[present][:, 2], batch.half_size[present][:, 2])
    reach = np.where(
        batch.kind == BOX, np.hypot(batch.half_size[..., 0], batch.half_size[..., 1]), batch.half_size[..., 0]
    )
    for first, second in itertools.combinations(range(4), 2):
        both = present[:, first] & present[:, second]
        gap = np.linalg.norm(batch.position[both, first, :2] - batch.position[both, second, :2], axis=1)
        assert (gap > reach[both, first] + reach[both, second]).all()
    inside = batch.position[..., :2] + reach[..., None] <= batch.wall_distance[:, None]
    assert inside[present].mean() > 0.9


def test_objects_hide_one_another_in_a_good_share_of_scenes():
    batch = sample_scenes(100, seed=3, settings=SMALL)
    together = draw_masks(batch, image_size=32)[:, 0]
    occluded = np.zeros(100, dtype=bool)
    for slot in range(4):
        kind = np.full_like(batch.kind, ABSENT)
        kind[:, slot] = batch.kind[:, slot]
        alone = draw_masks(batch._replace(kind=kind), image_size=32)[:, 0]
        occluded |= (alone > 0).sum(axis=(1, 2)) > (together == slot + 1).sum(axis=(1, 2))
    assert 0.3 < occluded.mean() < 1


def test_shadows_darken_the_room_and_nothing_else_changes_it():
    batch = sample_scenes(60, seed=6, settings=SMALL)
    empty = batch._replace(kind=np.full_like(batch.kind, ABSENT))
    masks = draw_masks(batch, image_size=32)[:, 0]
    images = draw_images(batch, image_size=32, supersample=1)[:, 0].astype(int).sum(axis=1)
    bare = draw_images(empty, image_size=32, supersample=1)[:, 0].astype(int).sum(axis=1)
    background = masks == 0
    assert (images[background] <= bare[background]).all()
    shadow = ((images < bare) & background).sum(axis=(1, 2))
    assert (shadow > 0).mean() > 0.9
    assert np.median(shadow) >= 5


def test_floor_walls_and_sky_are_in_nearly_every_image():
    batch = sample_scenes(60, seed=8, settings=SMALL)
    paint = np.zeros_like(batch.room_colour)
    paint[:, 0, 0] = paint[:, 1:3, 1] = paint[:, 3, 2] = 1
    empty = batch._replace(room_colour=paint, colour=np.zeros_like(batch.colour))
    shares = (draw_images(empty, image_size=32, supersample=1)[:, 0] > 0).mean(axis=(2, 3))
    assert ((shares > 0.02).mean(axis=0) > 0.95).all()


def test_views_share_the_scene():
    """A sphere's centre, projected with the returned camera and focal length, lies in its own mask."""
    views = 3
    batch = sample_scenes(40, seed=7, settings=SMALL, views=views)
    rendered = render_scenes(40, seed=7, settings=SMALL, views=views)
    np.testing.assert_array_equal(batch.camera, rendered.camera)
    seen = 0
    for index, view, slot in itertools.product(range(40), range(views), range(4)):
        if batch.kind[index, slot] != SPHERE:
            continue
        world_to_camera = np.linalg.inv(rendered.camera[index, view].astype(float))
        x, y, z = (world_to_camera @ [*batch.position[index, slot], 1.0])[:3]
        column, row = (math.floor(rendered.focal_px * at / z + 16) for at in (x, y))
        assert z > 0
        if not (0 <= column < 32 and 0 <= row < 32):
            continue
        alone = np.full_like(batch.kind[index : index + 1], ABSENT)
        alone[0, slot] = SPHERE
        single = SceneParameters(*(field[index : index + 1] for field in batch))._replace(kind=alone)
        assert draw_masks(single, image_size=32)[0, view, row, column] == slot + 1
        seen += rendered.mask[index, view, row, column] == slot + 1
    assert seen > 50


def test_cameras_are_rigid_and_above_the_floor():
    cameras = render_scenes(10, seed=0, settings=SMALL, views=4).camera.reshape(-1, 4, 4)
    rotation = cameras[:, :3, :3].astype(float)
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3)[None].repeat(40, 0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)
    np.testing.assert_array_equal(cameras[:, 3], [[0, 0, 0, 1]] * 40)
    assert (rotation[:, 2, 1] < 0).all(), "the camera's y axis points down"
    elevation = np.degrees(np.arcsin(-rotation[:, 2, 2]))
    assert ((elevation > 19.9) & (elevation < 38.1)).all()
    assert len(np.unique(cameras[:, 0, 3])) == 40


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("image_size", {"image_size": 4}),
        ("min_objects", {"min_objects": 0}),
        ("min_objects", {"min_objects": 3, "max_objects": 2}),
        ("max_objects", {"max_objects": 7}),
        ("min_visible", {"min_visible": 0.0}),
        ("min_visible", {"min_visible": 0.5}),
        ("supersample", {"supersample": 0}),
    ],
)
def test_bad_settings_are_refused_by_name(field, values):
    with pytest.raises(RecipeError, match=rf"^{field} of the scenes is .*; give "):
        SceneSettings(**values)


def test_settings_that_leave_no_room_are_refused():
    crowded = SceneSettings(image_size=32, min_objects=6, max_objects=6, min_visible=0.1)
    with pytest.raises(RecipeError, match=r"^scene \d+ found no draft .* lower min_visible"):
        sample_scenes(10, seed=0, settings=crowded)


@pytest.mark.parametrize("bad", [{"count": 0}, {"views": 0}, {"seed": -1}, {"start": -1}])
def test_bad_arguments_are_refused_by_name(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"^{name} is "):
        render_scenes(**{"count": 1, "seed": 0, "settings": SMALL, **bad})
