"""The layers of both models as functions of their weights."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional

from boqsa.layers.position import PositionEmbedding
from boqsa.models.dvae import Block


def run_layers(layers: Iterable[nn.Module], features: Tensor) -> Tensor:
    """Convolutions, transposed convolutions, the dVAE's blocks, ReLU and PixelShuffle, one after the other."""
    for layer in layers:
        features = _run(layer, features)
    return features


def _run(layer: nn.Module, features: Tensor) -> Tensor:
    match layer:
        case Block():
            norm = layer.norm
            convolved = _run(layer.convolution, features)
            return functional.group_norm(convolved, norm.num_groups, norm.weight, norm.bias, norm.eps).relu()
        case nn.ConvTranspose2d():
            padding = [int(entry) for entry in layer.padding]
            return functional.conv_transpose2d(
                features, layer.weight, layer.bias, layer.stride, padding, layer.output_padding
            )
        case nn.Conv2d():
            return functional.conv2d(features, layer.weight, layer.bias, layer.stride, layer.padding)
        case nn.ReLU():
            return features.relu()
        case nn.PixelShuffle():
            return functional.pixel_shuffle(features, layer.upscale_factor)
        case _:
            raise TypeError(f"{type(layer).__name__} is none of the published layers.")


def add_position(features: Tensor, position: PositionEmbedding) -> Tensor:
    """(B, C, H, W) with four coordinates a cell, mapped to channels, added (spec 1.1)."""
    embedding = functional.linear(position.grid, position.project.weight, position.project.bias)  # (H, W, C)
    return features + embedding.permute(2, 0, 1)
