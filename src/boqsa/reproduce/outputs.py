"""What a model makes of the first images of a split, a batch at a time.

As in evaluation: no gradients, no dropout, and sampled slots drawn by an image's place in the split, so that neither
the batch size nor what ran before changes a result.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from boqsa.models import Output
from boqsa.training.draws import samples

INSTALL_SCIKIT_LEARN = "it needs the package scikit-learn; type `pip install 'boqsa[reproduce]'`"


def outputs(
    model: nn.Module,
    image: UInt8[Tensor, "N 3 H W"],
    *,
    iterations: int | None = None,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> Iterator[Output]:
    """Run a model over images.

    Args:
        model: Takes images, returns `Output`. Its training flag is left as it was after each batch.
        image: uint8; image i counts as place i of the split.
        iterations: Slot-attention steps; None means the trained number.
        batch_size: Images at a time.
        device: Where the model is.

    Yields:
        The output of each batch, in order, on the device.

    Raises:
        ValueError: if there are no images, or they have another size than the model.
    """
    if not len(image):
        raise ValueError("there are no images; pass at least one.")
    for first in range(0, len(image), batch_size):
        indices = np.arange(first, min(first + batch_size, len(image)))
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                noise = samples(model, indices, device)
                output: Output = model(image[indices].to(device), iterations=iterations, noise=noise)
        finally:
            model.train(was_training)
        yield output
