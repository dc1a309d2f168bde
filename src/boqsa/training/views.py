"""Scenes of several posed views, from a packed set: what a radiance model is trained and scored on."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.errors import InputError, RecipeError
from boqsa.models.radiance import Views
from boqsa.training.machine import sent

Scenes: TypeAlias = Sequence[int] | Int[np.ndarray, "B"]
"""Numbers of scenes."""

_NEEDED = ("scene", "camera", "azimuth")


class SceneViews:
    """The scenes of a split, whose views follow one another.

    Args:
        data: With `scene`, `camera` and `azimuth` beside the images.
        device: Where views are wanted.
        least: Views that each scene must have.

    Raises:
        InputError: if the data have no cameras, or a camera is not a pose.
        RecipeError: if a scene has too few views.
    """

    def __init__(self, data: PackedDataset, device: torch.device | str = "cpu", *, least: int = 1) -> None:
        missing = [name for name in _NEEDED if name not in data.manifest.extras]
        if missing:
            raise InputError(
                f"{data.path} has no {' and no '.join(missing)} beside its images; a radiance model needs several "
                "posed views of each scene, as clevr567, room_chair, room_diverse, or scenes with --data.scene-views 4."
            )
        self._data, self._device = data, torch.device(device)
        scenes = data.extra("scene")
        first = np.flatnonzero(np.diff(scenes, prepend=scenes[0] - 1))
        self.starts: NDArray[np.int64] = first
        self.counts: NDArray[np.int64] = np.diff(np.append(first, len(scenes)))
        few = np.flatnonzero(self.counts < least)
        if len(few):
            raise RecipeError(
                f"scene {scenes[first[few[0]]]} of {data.path} ({data.split}) has {self.counts[few[0]]} views, and "
                f"{len(few)} of {len(first)} scenes have fewer than {least}; ask for fewer views, or prepare more."
            )
        self._camera, self._azimuth = data.extra("camera"), data.extra("azimuth")
        _require_poses(data, self._camera, "camera")
        _require_poses(data, self._azimuth, "azimuth")
        if len(np.unique(scenes[first])) < len(first):
            raise InputError(
                f"a scene of {data.path} ({data.split}) comes twice; the views of a scene must follow one another, "
                "prepare the data again."
            )

    def __str__(self) -> str:
        return f"{len(self)} scenes of {self.counts.min()} views or more, read through the memory map"

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def has_masks(self) -> bool:
        """Whether there is a truth to score by."""
        return self._data.has_masks

    def views(self, scenes: Scenes, chosen: Int[np.ndarray, "B N"]) -> Views:
        """Some views of some scenes, the first of each the input, on the device."""
        indices = self._indices(scenes, chosen)
        image = self._data.batch(indices.ravel())["image"]
        return Views(
            image=sent(image.unflatten(0, indices.shape), self._device),  # type: ignore[no-untyped-call]
            camera=sent(torch.from_numpy(self._camera[indices]), self._device),
            azimuth=sent(torch.from_numpy(self._azimuth[indices]), self._device),
        )

    def masks(self, scenes: Scenes, chosen: Int[np.ndarray, "B N"]) -> Int[Tensor, "B N H W"]:
        """The true labels of these views, -1 where a pixel is to be ignored."""
        indices = self._indices(scenes, chosen)
        mask: Tensor = self._data.batch(indices.ravel())["mask"].unflatten(0, indices.shape)  # type: ignore[no-untyped-call]
        return sent(mask, self._device)

    def _indices(self, scenes: Scenes, chosen: Int[np.ndarray, "B N"]) -> NDArray[np.int64]:
        indices: NDArray[np.int64] = self.starts[np.asarray(scenes)][:, None] + chosen
        return indices


def _require_poses(data: PackedDataset, camera: NDArray[np.float32], what: str) -> None:
    """Go on if every matrix is finite, with a rotation that can be inverted."""
    rotation = np.nan_to_num(camera[:, :3, :3].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    is_pose = np.isfinite(camera).all(axis=(1, 2)) & (np.abs(np.linalg.det(rotation)) > 1e-6)
    wrong = np.flatnonzero(~is_pose)
    if len(wrong):
        raise InputError(
            f"the {what} of image {wrong[0]} of {data.path} ({data.split}) is singular or not finite, and those of "
            f"{len(wrong) - 1} more; a rotation expected in it, prepare the data again."
        )
