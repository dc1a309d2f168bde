"""What this machine reaches at best: a large convolution and a large matrix product, forward and backward.

Data sheets name peaks that no program reaches, and a machine that is shared or hot reaches less. So the ceilings are
measured, in the process and around the steps that they are compared with.
"""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch.nn.functional import conv2d

from boqsa.bench.operations import Operations
from boqsa.bench.stopwatch import Stopwatch

_CHANNELS, _SIDE, _KERNEL = 64, 64, 5  # those of the paper's layers (Tables 9 and 10)


class Ceilings(NamedTuple):
    """Floating-point operations a second."""

    convolution: float
    product: float

    def floor_s(self, operations: Operations) -> float:
        """Seconds that the operations take if each kind runs at its ceiling."""
        return operations.convolution / self.convolution + operations.product / self.product


class CeilingSizes(NamedTuple):
    """What is computed to find the ceilings."""

    images: int
    """Of 64x64 and 64 channels, for a 5x5 convolution to 64 channels."""
    matrix: int
    """Rows and columns of both matrices."""


SIZES = {"cpu": CeilingSizes(images=16, matrix=1536), "cuda": CeilingSizes(images=128, matrix=8192)}
"""By kind of device: a quarter of a second on a core, and enough to fill a large GPU. Larger ones are no faster."""


def measure_ceilings(device: torch.device, dtype: torch.dtype, sizes: CeilingSizes, *, seconds: float) -> Ceilings:
    """Both ceilings, each the median over `seconds` and over one run at least, after one that is not timed.

    Args:
        device: Where.
        dtype: Of all numbers.
        sizes: How much is computed at a time.
        seconds: For each of the two.
    """

    def numbers(*shape: int) -> torch.Tensor:
        drawn = torch.randn(*shape, device=device).to(dtype)
        return drawn.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else drawn

    image = numbers(sizes.images, _CHANNELS, _SIDE, _SIDE).requires_grad_()
    weight = numbers(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL).requires_grad_()
    gradient = numbers(*image.shape)
    left, right = (numbers(sizes.matrix, sizes.matrix).requires_grad_() for _ in range(2))
    gradient_of_product = numbers(sizes.matrix, sizes.matrix)

    def convolve() -> None:
        image.grad = weight.grad = None
        conv2d(image, weight, padding=_KERNEL // 2).backward(gradient)  # type: ignore[no-untyped-call]

    def multiply() -> None:
        left.grad = right.grad = None
        (left @ right).backward(gradient_of_product)  # type: ignore[no-untyped-call]

    positions = sizes.images * _SIDE * _SIDE
    return Ceilings(
        convolution=3 * 2 * positions * weight.numel() / _seconds_of(convolve, device, seconds),
        product=3 * 2 * sizes.matrix**3 / _seconds_of(multiply, device, seconds),
    )


def _seconds_of(work: Callable[[], None], device: torch.device, seconds: float) -> float:
    work()
    return median(Stopwatch(device).repeat(lambda _: work(), seconds=seconds))
