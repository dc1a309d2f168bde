"""The features of the input view: a small U-Net that sees where each pixel is (uorf 2).

Coordinates enter here and nowhere else on the picture's side: tokens get no position embedding.

Shapes: B batch, D features and slot size, H W image, h w = the token grid.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_INITIAL_STD = 0.02


class ViewEncoder(nn.Module):
    """`tokens = ViewEncoder(64)(image)`: one token a pixel of the image, or of every 2x2 of them.

    Args:
        size: D, channels of every layer and width of a token.
        halved: One more layer at full resolution in front, and tokens at half of it (published as `bottom`).
    """

    def __init__(self, size: int, *, halved: bool = False) -> None:
        super().__init__()
        self.full = _Layer(7, size) if halved else None
        self.down1 = _Layer(size, size, stride=2) if halved else _Layer(7, size)
        self.down2 = _Layer(size, size, stride=2)
        self.down3 = _Layer(size, size, stride=2)
        self.up3 = _Layer(size, size)
        self.up2 = _Layer(2 * size, size)
        self.up1 = _Layer(2 * size, size)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Tokens of an image in [-1, 1], row by row; height and width are multiples of 4, or of 8 if `halved`."""
        features = _with_coordinates(image)
        if self.full is not None:
            features = self.full(features)
        fine = self.down1(features)
        middle = self.down2(fine)
        coarse = self.down3(middle)
        features = _enlarged(self.up3(coarse))
        features = _enlarged(self.up2(torch.cat([features, middle], dim=1)))
        features = self.up1(torch.cat([features, fine], dim=1))  # (B, D, h, w)
        tokens: Tensor = features.flatten(2).mT
        return tokens


class _Layer(nn.Module):
    """3x3 convolution and ReLU."""

    def __init__(self, channels: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, size, kernel_size=3, stride=stride, padding=1)
        nn.init.normal_(self.convolution.weight, std=_INITIAL_STD)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        out: Tensor = self.convolution(features).relu()
        return out


def _with_coordinates(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 7 H W"]:
    """RGB and x, 2 - x, y, 2 - y: two that run from -1 to 1, and two from 3 to 1, as published (uorf 2.2)."""
    batch, _, height, width = image.shape
    x = torch.linspace(-1, 1, width).to(image).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height).to(image)[:, None].expand(batch, 1, height, width)
    return torch.cat([image, x, 2 - x, y, 2 - y], dim=1)


def _enlarged(features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D H W"]:
    return nn.functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
