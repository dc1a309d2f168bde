"""Random squares of the images, mirrored or not: more pictures out of few. Off in the paper (spec 5.4).

Shapes: B batch, H W image pixels.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def augment(
    image: UInt8[Tensor, "B 3 H W"], draws: Float[Tensor, "B 4"], *, flip: bool, least_crop: float
) -> Float[Tensor, "B 3 H W"]:
    """Cut a square out of each image and enlarge it to the image's size, bilinearly.

    Args:
        image: As stored.
        draws: From `draw_crops`, on the device of the images.
        flip: Mirror where the first number is below a half.
        least_crop: The square's side is between this share of the image's and 1, in (0, 1].

    Returns:
        In [0, 1].
    """
    mirror, side, across, down = draws.unbind(dim=1)
    side = least_crop + (1 - least_crop) * side
    transform = torch.zeros(len(image), 2, 3, device=image.device)
    transform[:, 0, 0] = torch.where(mirror < 0.5, -side, side) if flip else side
    transform[:, 1, 1] = side
    transform[:, 0, 2] = (2 * across - 1) * (1 - side)  # the centre, in units where the image is [-1, 1]
    transform[:, 1, 2] = (2 * down - 1) * (1 - side)
    grid = affine_grid(transform, list(image.shape), align_corners=False)
    return grid_sample(image.float() / 255, grid, padding_mode="border", align_corners=False).clamp(0, 1)
