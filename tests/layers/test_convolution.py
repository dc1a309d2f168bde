"""Sizes and parameter counts of the two stacks (Tables 9 and 10, spec 2.7)."""

import pytest
import torch
from torch import nn

from boqsa.layers.convolution import ConvolutionDecoder, ConvolutionEncoder, TransposedConvolution


def test_encoder_has_the_published_number_of_parameters() -> None:
    encoder = ConvolutionEncoder((64,) * 4, (1, 1, 1, 1))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 312_256


@pytest.mark.parametrize(("strides", "side"), [((1, 1), 16), ((2, 1), 8), ((2, 2), 4)])
def test_encoder_divides_the_size_by_its_strides(strides: tuple[int, int], side: int) -> None:
    assert ConvolutionEncoder((4, 6), strides)(torch.randn(2, 3, 16, 16)).shape == (2, 6, side, side)


@pytest.mark.parametrize(("strides", "side"), [((1, 1), 4), ((2, 1), 8), ((2, 2), 16)])
def test_decoder_doubles_exactly(strides: tuple[int, int], side: int) -> None:
    assert ConvolutionDecoder(5, (4, 6), strides)(torch.randn(2, 5, 4, 4)).shape == (2, 4, side, side)


def test_decoder_ends_without_an_activation() -> None:
    torch.manual_seed(0)
    assert ConvolutionDecoder(5, (4,), (1,))(torch.randn(2, 5, 4, 4)).min() < 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "stride"), [(5, 1), (5, 2), (3, 1)])
def test_a_bias_added_apart_changes_nothing(size: int, stride: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    options = {"stride": stride, "padding": size // 2, "output_padding": stride - 1, "dtype": torch.float64}
    ours, theirs = TransposedConvolution(4, 6, size, **options), nn.ConvTranspose2d(4, 6, size, **options)
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(2, 4, 5, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = []
    for layer in (ours, theirs):
        grown = layer(features)
        arriving = torch.arange(grown.numel(), dtype=torch.float64).view_as(grown).sin()
        found.append([grown, *torch.autograd.grad(grown.relu_(), (features, layer.weight, layer.bias), arriving)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
