"""What tells photographs from renderings, for the adversarial loss of Room-Diverse (uorf 7.1): StyleGAN2-like, small.

Notable choices:
- Weights are N(0, 1) and scaled when they are used, so that Adam moves all layers alike.
- The stem's 1x1 convolution pads, as published: 64 pixels become 66, then 33, 16, 8 and 4.
- The standard deviation over images is taken within groups of the views of one scene, at most four in a group.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SIZE = 64
_CHANNELS = (32, 64, 64, 128, 128)
"""After the stem and after each block."""
_GAIN = 1.4
MOST_IN_A_GROUP = 4


class Discriminator(nn.Module):
    """`logits = Discriminator()(image)`: above 0 for photographs; images are (n, 3, 64, 64) in [-1, 1].

    Args:
        group: Images that are compared with each other: neighbours, so the views of a scene.
    """

    def __init__(self, *, group: int = MOST_IN_A_GROUP) -> None:
        super().__init__()
        self.group = group
        self.stem = _Convolution(3, _CHANNELS[0], kernel=1, padding=1, activated=True)
        self.blocks = nn.Sequential(*(_Block(*widths) for widths in pairwise(_CHANNELS)))
        last = _CHANNELS[-1]
        self.last = _Convolution(last + 1, last, kernel=3, padding=1, activated=True)
        self.hidden = _Linear(last * 4 * 4, last, activated=True)
        self.logit = _Linear(last, 1, activated=False)

    def forward(self, image: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n"]:
        """A logit an image; a multiple of `group` images.

        Raises:
            ValueError: if images have another size, or do not form groups.
        """
        if tuple(image.shape[1:]) != (3, _SIZE, _SIZE):
            raise ValueError(f"images have shape {tuple(image.shape)}; expected (n, 3, {_SIZE}, {_SIZE}).")
        features = _with_spread(self.blocks(self.stem(image)), self.group)
        logit: Tensor = self.logit(self.hidden(self.last(features).flatten(1))).squeeze(1)
        return logit


class _Block(nn.Module):
    """Two convolutions, the second at half the size, beside a shorter way."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.same = _Convolution(width, width, kernel=3, padding=1, activated=True)
        self.halved = _Convolution(width, out, kernel=3, padding=1, activated=True)
        self.skip = _Convolution(width, out, kernel=1, padding=0, activated=False)

    def forward(self, features: Float[Tensor, "n C H W"]) -> Float[Tensor, "n D h w"]:
        longer = self.halved(nn.functional.avg_pool2d(self.same(features), 2))
        shorter = _GAIN * self.skip(nn.functional.avg_pool2d(features, 2))
        out: Tensor = (longer + shorter) / math.sqrt(2)
        return out


class _Convolution(nn.Module):
    """A convolution whose weights are scaled by 1/sqrt(inputs), without bias."""

    def __init__(self, channels: int, out: int, *, kernel: int, padding: int, activated: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, channels, kernel, kernel))
        self.padding, self.activated = padding, activated

    def forward(self, features: Float[Tensor, "n C H W"]) -> Float[Tensor, "n D h w"]:
        scale = 1 / math.sqrt(self.weight[0].numel())
        out = nn.functional.conv2d(features, scale * self.weight, padding=self.padding)
        return _activated(out) if self.activated else out


class _Linear(nn.Module):
    """The same for a linear layer."""

    def __init__(self, size: int, out: int, *, activated: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, size))
        self.bias = nn.Parameter(torch.zeros(out))
        self.activated = activated

    def forward(self, features: Float[Tensor, "n C"]) -> Float[Tensor, "n D"]:
        out = nn.functional.linear(features, self.weight / math.sqrt(self.weight.shape[1]), self.bias)
        return _activated(out) if self.activated else out


def _activated(features: Tensor) -> Tensor:
    return _GAIN * nn.functional.leaky_relu(features, 0.2)


def _with_spread(features: Float[Tensor, "n C h w"], size: int) -> Float[Tensor, "n D h w"]:
    """One more channel: how much the images of a group differ, the same everywhere."""
    count, channels, height, width = features.shape
    if count % size:
        raise ValueError(f"{count} images do not form groups of {size}; give a multiple of it.")
    groups = features.view(count // size, size, channels, height, width)
    spread = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (groups,)
    spread = spread.repeat_interleave(size)[:, None, None, None].expand(count, 1, height, width)
    return torch.cat([features, spread], dim=1)
