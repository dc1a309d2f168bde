"""The picture of what a model finds in the first images of a split: for the report, and for logs while it trains."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from boqsa.models import Output, TransformerModel
from boqsa.reports import segmentation_grid
from boqsa.training.draws import samples
from boqsa.training.evaluation import ImageSplit


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
        model: Takes images, returns `Output`. Its training flag is left as it was.
        split: Images; their true masks are drawn where there are any.
        count: At most so many scenes.
        iterations: Slot-attention steps; None means the trained number.
        generates: Of a transformer model: whether to decode the slots alone too, which is dear.
        device: Where the model is.

    Returns:
        RGB picture, one scene a row.
    """
    indices = np.arange(min(count, len(split)))
    sample = split.batch(indices)
    image = sample["image"].to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            output: Output = model(image, iterations=iterations, noise=samples(model, indices, device))
            more = {}
            if isinstance(model, TransformerModel):
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
