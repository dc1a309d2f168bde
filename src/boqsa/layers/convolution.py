"""The two convolution stacks of the paper: image encoder (Table 9) and slot decoder (Table 10)."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv_transpose2d


class TransposedConvolution(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` that in training on a CPU adds its bias apart: oneDNN's gradient of it is slow."""

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D H W"]:  # type: ignore[override]
        """Features of the next layer."""
        if not self.training or features.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(features)
        assert self.bias is not None
        assert isinstance(self.padding, tuple)
        sizes = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        grown = conv_transpose2d(features, self.weight, None, *sizes)
        added: Tensor = _AddBias.apply(grown, self.bias)  # type: ignore[no-untyped-call]
        return added


class _AddBias(torch.autograd.Function):
    """In place, since nobody needs the features without it; its gradient is a sum over whole rows of memory."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(features)
        ctx.dtype = bias.dtype
        return features.add_(bias.to(features.dtype)[:, None, None])  # in two dtypes it would make copies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.permute(0, 2, 3, 1).sum(dim=(0, 1, 2)).to(ctx.dtype)


class ConvolutionEncoder(nn.Sequential):
    """5x5 convolutions with padding 2, a ReLU after each. Image (B, 3, H, W) to features (B, C, H/s, W/s).

    Args:
        channels: Output channels of each layer.
        strides: Stride of each layer, as many as channels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise([3, *channels]), strides, strict=True):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=5, stride=stride, padding=2), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class ConvolutionDecoder(nn.Sequential):
    """5x5 transposed convolutions with a ReLU after each, then a 3x3 one to four channels without activation.

    Grid (B, D, h, w) to (B, 4, H, W): three image channels and one mask logit for every pixel.

    Args:
        inputs: Channels of the grid that comes in, here the slot size.
        channels: Output channels of each 5x5 layer.
        strides: Stride of each 5x5 layer, 1 or 2; a stride of 2 doubles the grid exactly.
    """

    def __init__(self, inputs: int, channels: Sequence[int], strides: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise([inputs, *channels]), strides, strict=True):
            layers += [
                TransposedConvolution(before, after, 5, stride=stride, padding=2, output_padding=stride - 1),
                nn.ReLU(inplace=True),
            ]
        layers.append(TransposedConvolution(channels[-1], 4, 3, padding=1))
        super().__init__(*layers)


def require_layers(part: str, channels: Sequence[int], strides: Sequence[int]) -> None:
    """Raise ValueError unless there is a stride for each of the channels, and at least one; `part` is named in it."""
    if not channels or len(channels) != len(strides):
        raise ValueError(
            f"{part}_channels has {len(channels)} entries and {part}_strides {len(strides)}; "
            "give both, one for each 5x5 layer."
        )


def require_encoder(image_size: int, channels: Sequence[int], strides: Sequence[int]) -> None:
    """Raise ValueError unless the layers of an encoder fit together and divide the image."""
    require_layers("encoder", channels, strides)
    if image_size % prod(strides):
        raise ValueError(
            f"image_size {image_size} is not divisible by the encoder's total stride {prod(strides)}; "
            "change image_size or encoder_strides."
        )
