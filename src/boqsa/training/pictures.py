"""The picture of what a model finds in the first images of a split: for the report, and for logs while it trains."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from boqsa.data import PackedDataset
from boqsa.models import Output, TransformerModel
from boqsa.models.radiance import RadianceModel, photographs
from boqsa.reports import segmentation_grid
from boqsa.training.draws import samples
from boqsa.training.evaluation import ImageSplit
from boqsa.training.features import mask_options, model_input
from boqsa.training.view_evaluation import labels_at
from boqsa.training.views import SceneViews


def draw_scenes(
    model: nn.Module,
    split: ImageSplit,
    count: int,
    *,
    iterations: int | None = None,
    generates: bool = False,
    device: torch.device | str = "cpu",
) -> Image.Image:
    """Draw the first scenes of a split with what the model makes of them.

    Args:
        model: Takes images, or features, and returns `Output`. Its training flag is left as it was.
        split: Images; their true masks are drawn where there are any.
        count: At most so many scenes.
        iterations: Slot-attention steps; None means the trained number.
        generates: Of a transformer model: whether to decode the slots alone too, which is dear.
        device: Where the model is.

    Returns:
        RGB picture, one scene a row; of a radiance model one view a row, the first of each scene its input.
    """
    if isinstance(model, RadianceModel):
        assert isinstance(split, PackedDataset)
        return _draw_views(model, split, count, iterations=iterations, device=device)
    indices = np.arange(min(count, len(split)))
    sample = split.batch(indices)
    image = sample["image"].to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            taken = model_input(model, sample).to(device)
            noise = samples(model, indices, device)
            output: Output = model(taken, iterations=iterations, noise=noise, **mask_options(model, sample))
            more = {}
            if isinstance(model, TransformerModel):
                assert output.reconstruction is not None
                more = {"dVAE": output.reconstruction, "teacher-forced": model.teacher_forced(output).image}
                if generates:
                    more["generated"] = model.generate(output.slots).image
    finally:
        model.train(was_training)
    return segmentation_grid(
        image,
        output.masks,
        true=sample.get("mask"),
        rows=count,
        slot_reconstructions=output.slot_reconstructions,
        reconstruction=None if more else output.reconstruction,
        more=more,
    )


_VIEWS, _SAMPLES = 3, 64
"""Most views of a scene that are drawn, and samples of a ray."""


def _draw_views(
    model: RadianceModel, split: PackedDataset, count: int, *, iterations: int | None, device: torch.device | str
) -> Image.Image:
    """Rows of views, scene after scene, at the size of the model's input."""
    scenes = SceneViews(split, device)
    of_scene = min(_VIEWS, int(scenes.counts.min()))
    number = min(-(-count // of_scene), len(scenes))
    chosen = np.arange(of_scene)[None].repeat(number, axis=0)
    views = scenes.views(range(number), chosen)
    size = model.image_size
    was_training = model.training
    model.eval()
    noise = samples(model, np.arange(number), device)
    try:
        _, seen = model.look(views, size=size, samples=_SAMPLES, iterations=iterations, noise=noise)
    finally:
        model.train(was_training)
    true = labels_at(scenes.masks(range(number), chosen), size) if scenes.has_masks else None
    return segmentation_grid(
        photographs(views.image, size).flatten(0, 1),
        seen.shares().flatten(0, 1),
        true=None if true is None else true.flatten(0, 1),
        rows=count,
        slot_reconstructions=seen.slot_images.flatten(0, 1),
        reconstruction=seen.image.flatten(0, 1),
    )
