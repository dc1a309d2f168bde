"""A step of a radiance model with its exact savings, against the same step as the spec words it.

Both render all pixels of four views at 64x64 with 64 samples a ray (the published step, 1,048,576 points), forward and
backward. The plain way evaluates every field on every point with every slot at once, each layer on all that it sees,
and multiplies densities outside the box by zero. The other way is the model's own: pieces that are computed again in
the backward pass, no object outside the box, layers in parts. First both must give the same pixels and gradients on a
small scene. Each way has a process of its own; time is the median of its steps, memory the growth of its peak.
    python benchmarks/radiance_step.py --threads 2
    python benchmarks/radiance_step.py --side 32          # a quick look
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from boqsa.bench.memory import PeakMemory
from boqsa.models.radiance import RadianceModel, Rays, all_pixels, azimuth_of, cast_rays
from boqsa.models.radiance.fields import Field, encode
from boqsa.models.radiance.rendering import compose, see

GOALS = {"speed": 3.0, "memory": 0.25}
"""Promises of the project: at least three times as fast, at most a quarter of the memory."""
SIZES: dict[str, dict[str, int]] = {
    "clevr567": {"num_slots": 8, "slot_size": 40},
    "rooms": {"num_slots": 5, "slot_size": 64},
}


def plain_field(field: Field, points: Tensor, slots: Tensor) -> Tensor:
    """Every point with every slot, whole layers."""
    encoded = encode(points)[:, None].expand(-1, slots.shape[1], -1, -1)
    conditions = slots[:, :, None].expand(-1, -1, points.shape[1], -1)

    def layer(part: Any, *inputs: Tensor) -> Tensor:
        maps = [part.from_point.weight, part.from_slot.weight]
        maps += [] if part.from_hidden is None else [part.from_hidden.weight]
        return nn.functional.linear(torch.cat(inputs, dim=-1), torch.cat(maps, dim=1), part.from_point.bias)

    hidden = field.before(layer(field.first, encoded, conditions).relu())
    hidden = field.after(layer(field.again, encoded, conditions, hidden).relu())
    if field.density is None:
        raw: Tensor = field.colour(hidden)
        return raw
    return torch.cat([field.density(hidden), field.colour(hidden)], dim=-1)


def plain_render(model: RadianceModel, slots: Tensor, rays: Rays, frame: Tensor, samples: int) -> Tensor:
    """The colour of each ray, all at once."""
    points = rays.points(model.frustum.depths(samples, like=rays.length))
    flat = points.flatten(1, 2)
    own = flat @ frame[:, :3, :3].mT + frame[:, None, :3, 3]
    raw_background = plain_field(model.background_field, flat, slots[:, :1])
    raw = plain_field(model.object_field, own, slots[:, 1:])
    inside = (own.abs() <= model.box / model.frustum.scene_scale).all(-1)
    raw = torch.cat([raw[..., :1] * inside[:, None, :, None], raw[..., 1:]], dim=-1)
    raw = torch.cat([raw_background, raw], dim=1).view(1, -1, *points.shape[1:3], 4)
    return see(compose(raw), model.frustum.intervals(samples, like=rays.length), rays.length)


def scene(sizes: dict[str, int], side: int, *, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """A model, slots, the rays of four views like the data sets', and the frame of the first."""
    torch.manual_seed(0)
    model = RadianceModel(**sizes).to(dtype)  # type: ignore[arg-type]
    poses = torch.eye(4, dtype=dtype).repeat(1, 4, 1, 1)
    for view in range(4):
        angle = torch.tensor(1.5 * view, dtype=dtype)
        position = torch.stack([9.45 * angle.cos(), 9.45 * angle.sin(), torch.tensor(8.02, dtype=dtype)])  # uorf 11
        forward = -position / position.norm()
        right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0], dtype=dtype))
        right = right / right.norm()
        poses[0, view, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
        poses[0, view, :3, 3] = position
    rays = cast_rays(poses, all_pixels(4, side), size=side, frustum=model.frustum)
    slots = torch.randn(1, sizes["num_slots"], sizes["slot_size"], dtype=dtype, requires_grad=True)
    return model, slots, rays, model.frame_of(poses[:, 0], azimuth_of(poses[:, 0]))


def step(way: str, model: RadianceModel, slots: Tensor, rays: Rays, frame: Tensor, samples: int) -> Tensor:
    """Forward and backward; gives the colours."""
    if way == "plain":
        colour = plain_render(model, slots, rays, frame, samples)
    else:
        colour = model.render(slots, rays, frame, samples=samples, local=True)
    colour.square().mean().backward()
    return colour.detach()


def require_same(sizes: dict[str, int]) -> None:
    """Both ways give the same colours and gradients, in float64."""
    found = []
    for way in ("plain", "saving"):
        model, slots, rays, frame = scene(sizes, 8, dtype=torch.float64)
        colour = step(way, model, slots, rays, frame, 16)
        found.append([colour, slots.grad, *(parameter.grad for parameter in model.object_field.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def measure(way: str, sizes: dict[str, int], side: int, samples: int, repeats: int, threads: int) -> dict[str, float]:
    """In this process."""
    if threads:
        torch.set_num_threads(threads)
    model, slots, rays, frame = scene(sizes, side)
    step(way, model, slots, *_some(rays, 64), frame=frame, samples=samples)  # what is done once
    memory, seconds = PeakMemory(torch.device("cpu")), []
    for _ in range(repeats):
        model.zero_grad(set_to_none=True)
        began = time.perf_counter()
        step(way, model, slots, rays, frame, samples)
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "bytes": float(memory.growth().needs or 0)}


def _some(rays: Rays, count: int) -> tuple[Rays]:
    return (Rays(*(values[:, :count] for values in rays)),)


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description="A step of a radiance model with and without its exact savings.")
    parser.add_argument("--sizes", choices=SIZES, default="clevr567", help="of the model")
    parser.add_argument("--side", type=int, default=64, help="pixels of a view")
    parser.add_argument("--samples", type=int, default=64, help="of a ray")
    parser.add_argument("--repeats", type=int, default=3, help="steps of the saving way")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 keeps its choice")
    parser.add_argument("--way", choices=("plain", "saving"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = SIZES[options.sizes]
    if options.way:
        repeats = 1 if options.way == "plain" else options.repeats
        print(json.dumps(measure(options.way, sizes, options.side, options.samples, repeats, options.threads)))
        return
    require_same(sizes)
    print("both ways give the same pixels and gradients (float64)")
    found = {}
    for way in ("saving", "plain", "saving"):  # the saving way before and after, in case the machine changes
        words = [*sys.argv, "--way", way]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way}: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}")
        found.setdefault(way, []).append(json.loads(done.stdout))
        last = found[way][-1]
        print(f"{way}: {last['seconds']:.2f} s a step, {last['bytes'] / 2**20:,.0f} MiB")
    saving = {name: statistics.mean(entry[name] for entry in found["saving"]) for name in ("seconds", "bytes")}
    plain = found["plain"][0]
    print(f"speed: {plain['seconds'] / saving['seconds']:.2f} x (aim {GOALS['speed']})")
    print(f"memory: {saving['bytes'] / max(plain['bytes'], 1):.3f} of the plain way's (aim {GOALS['memory']} or less)")


if __name__ == "__main__":
    main()
