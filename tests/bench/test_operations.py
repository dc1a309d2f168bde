"""Counted operations against counts by hand; a multiply-add is two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from boqsa.bench.operations import OperationCounter, Operations


def counted(work: Callable[[], Tensor]) -> tuple[Operations, Operations]:
    """Of the forward pass, and of the backward pass."""
    with OperationCounter() as forward:
        result = work()
    with OperationCounter() as backward:
        result.sum().backward()
    return forward.counted, backward.counted


def trained(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize("input_is_trained", [True, False])
def test_convolution(input_is_trained: bool) -> None:
    image, weight, bias = torch.randn(2, 3, 10, 12), trained(7, 3, 5, 5), trained(7)
    image.requires_grad_(input_is_trained)
    forward, backward = counted(lambda: conv2d(image, weight, bias, stride=2, padding=2))
    # 2 images, 5 x 6 positions, 7 channels of 3 x 5 x 5 products each
    expected = 2 * 2 * (5 * 6) * 7 * (3 * 5 * 5)
    assert forward == (expected, 0)
    assert backward == ((2 if input_is_trained else 1) * expected, 0)


def test_grouped_and_dilated_convolution() -> None:
    image, weight = trained(2, 4, 9, 9), trained(6, 2, 3, 3)
    forward, _ = counted(lambda: conv2d(image, weight, dilation=2, groups=2))
    assert forward == (2 * 2 * (5 * 5) * 6 * (2 * 3 * 3), 0)


def test_transposed_convolution() -> None:
    image, weight = trained(2, 3, 4, 6), trained(3, 7, 5, 5)
    forward, backward = counted(lambda: conv_transpose2d(image, weight, stride=2, padding=2, output_padding=1))
    # Each of 4 x 6 input positions is spread over 7 x 5 x 5 numbers, for each of 3 channels.
    expected = 2 * 2 * (4 * 6) * 3 * (7 * 5 * 5)
    assert forward == (expected, 0)
    assert backward == (2 * expected, 0)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_matrix_product(with_bias: bool, precision: torch.dtype) -> None:
    inputs, weight, bias = trained(4, 5, 6), trained(3, 6), trained(3)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        forward, backward = counted(lambda: linear(inputs, weight, bias if with_bias else None))
    assert forward == (0, 2 * (4 * 5) * 6 * 3)
    assert backward == (0, 2 * 2 * (4 * 5) * 6 * 3)


def test_batched_product() -> None:
    left, right = trained(2, 3, 4, 5), trained(2, 3, 5, 6)
    forward, backward = counted(lambda: left @ right)
    assert forward == (0, 2 * (2 * 3) * 4 * 5 * 6)
    assert backward == (0, 2 * 2 * (2 * 3) * 4 * 5 * 6)


@pytest.mark.parametrize("causal", [True, False])
def test_fused_attention(causal: bool) -> None:
    queries, keys, values = trained(2, 3, 10, 8), trained(2, 3, 10, 8), trained(2, 3, 10, 8)
    forward, backward = counted(lambda: scaled_dot_product_attention(queries, keys, values, is_causal=causal))
    pairs = 10 * 11 // 2 if causal else 10 * 10
    assert forward == (0, 2 * 2 * (2 * 3) * pairs * 8)
    assert backward == (0, 2 * forward.product)


def test_unfused_attention_computes_every_pair() -> None:
    queries, keys, values = trained(2, 3, 10, 8), trained(2, 3, 10, 8), trained(2, 3, 10, 8)
    forward, backward = counted(
        lambda: scaled_dot_product_attention(queries, keys, values, dropout_p=0.5, is_causal=True)
    )
    assert forward == (0, 2 * 2 * (2 * 3) * (10 * 10) * 8)
    assert backward == (0, 2 * forward.product)


def test_without_a_graph_whole_operations_are_taken_apart() -> None:
    layer, grid = nn.Linear(6, 3), nn.Conv2d(3, 7, 5)
    with torch.inference_mode(), OperationCounter() as counter:
        layer(torch.randn(4, 5, 6))
        grid(torch.randn(2, 3, 9, 9))
    assert counter.counted == (2 * 2 * (5 * 5) * 7 * (3 * 5 * 5), 2 * (4 * 5) * 6 * 3)


def test_what_checkpointing_computes_again_is_not_counted() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    image = trained(2, 3, 8, 8)
    plain = counted(lambda: layers(image))
    recomputed = counted(lambda: checkpoint(layers, image, use_reentrant=False))
    assert plain == recomputed
    assert plain[1].total == 2 * plain[0].total


def test_sums() -> None:
    assert Operations(1, 2).plus(Operations(10, 20), times=3) == (31, 62)
    assert Operations(1, 2).total == 3
