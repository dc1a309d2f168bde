"""Dropout at a quarter of its price on a CPU, and causal attention that drops its weights out strip by strip.

PyTorch draws a float for each number that may be dropped, one after the other, whatever the number of threads; in the
published transformer this is the largest single operation of a training step. Here 64 random bits decide on four
numbers. With dropout, PyTorch's attention on a CPU makes and keeps the weights of all pairs of positions; here a strip
of rows is made at a time, without the columns that the causal mask hides, and made again in the backward pass.

Random numbers come from torch's own stream, so seeding it decides them. On an accelerator, and where the model is
compiled, PyTorch's own operations are used: they are fused there.

Shapes: B batch, G heads, L rows (positions that attend), M columns (positions attended to), e width of a head.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

_STRIP = 128
"""Rows of attention weights at a time: few enough to stay in a core's cache, enough for a fast product."""


class Dropout(nn.Module):
    """As `nn.Dropout`: in training each number is 0 with the given probability, the others are scaled up.

    Args:
        probability: In [0, 1); rounded to 1/65536 on a CPU, the scale too, so that the mean is exact.

    Raises:
        ValueError: if the probability is outside its range.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout is {probability}; it is a probability in [0, 1).")
        self.probability = probability

    def forward(self, numbers: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The numbers, some of them 0."""
        if not self.training or self.probability == 0:
            return numbers
        if not draws_bits(numbers):
            return nn.functional.dropout(numbers, self.probability)
        kept = kept_numbers(numbers.shape, self.probability, numbers.dtype)
        return (numbers * kept).mul_(_scale(self.probability))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"probability={self.probability}"


def attention_with_dropout(
    queries: Float[Tensor, "B G L e"],
    keys: Float[Tensor, "B G M e"],
    values: Float[Tensor, "B G M e"],
    *,
    probability: float,
    causal: bool,
) -> Float[Tensor, "B G L e"]:
    """softmax(queries keys' / sqrt(e)), some of its entries dropped, times values.

    Args:
        queries, keys, values: Of each head.
        probability: Of dropping an attention weight, in [0, 1); 0 outside training.
        causal: Position i attends to positions 0 to i; needs L = M.
    """
    if probability == 0 or not draws_bits(queries):
        return scaled_dot_product_attention(queries, keys, values, dropout_p=probability, is_causal=causal)
    taken: Tensor = _Strips.apply(queries, keys, values, probability, causal)  # type: ignore[no-untyped-call]
    return taken


def draws_bits(numbers: Tensor) -> bool:
    """Whether random bits are drawn here instead of by PyTorch's dropout: on a CPU, and not under `torch.compile`."""
    return numbers.device.type == "cpu" and not torch.compiler.is_compiling()


def kept_numbers(shape: Sequence[int], probability: float, dtype: torch.dtype) -> Tensor:
    """1 where a number stays and 0 where it is dropped, drawn from torch's own stream; 16 bits decide on each."""
    count = math.prod(shape)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = torch.empty(count, dtype=dtype)
    torch.ge(draws.view(torch.int16)[:count], _of_65536(probability) - 32768, out=kept)
    return kept.view(*shape)


def _of_65536(probability: float) -> int:
    """How many of the 65,536 values of 16 bits mean that a number is dropped; never all."""
    return min(round(probability * 65536), 65535)


def _scale(probability: float) -> float:
    """What the numbers that stay are multiplied by, so that the mean stays."""
    return 65536 / (65536 - _of_65536(probability))


class _Strips(torch.autograd.Function):
    """Attention with dropout, a strip of rows at a time. Of the weights, only who was kept is stored, a byte each."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, probability: float, causal: bool) -> Tensor:
        taken = torch.empty_like(queries)
        stays: list[UInt8[Tensor, "B G S M"]] = []
        with torch.autocast("cpu", enabled=False):
            for first, last, columns in _strips(queries.shape[2], keys.shape[2], causal):
                weights = _weights(queries[:, :, first:last], keys[:, :, :columns], first, causal)  # (B, G, S, M)
                kept = kept_numbers(weights.shape, probability, torch.uint8)
                weights = weights.to(values.dtype).mul_(kept.to(values.dtype))
                taken[:, :, first:last] = weights @ values[:, :, :columns]
                stays.append(kept)
        taken.mul_(_scale(probability))
        ctx.save_for_backward(queries, keys, values, taken, *stays)
        ctx.probability, ctx.causal = probability, causal
        return taken

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        queries, keys, values, taken, *stays = ctx.saved_tensors
        root = math.sqrt(queries.shape[-1])
        of_queries = torch.empty_like(queries)
        of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
        # The softmax takes the mean of a row's gradients from each; that mean is this product (Dao et al. 2022, B.2).
        means = (_precise(gradient) * _precise(taken)).sum(dim=-1, keepdim=True)  # (B, G, L, 1)
        gradient = gradient * _scale(ctx.probability)  # of what was taken before it was scaled
        strips = _strips(queries.shape[2], keys.shape[2], ctx.causal)
        for (first, last, columns), kept in zip(strips, stays, strict=True):
            rows, seen = queries[:, :, first:last], keys[:, :, :columns]
            arriving = gradient[:, :, first:last]
            weights = _weights(rows, seen, first, ctx.causal)  # (B, G, S, M)
            stay = kept.to(values.dtype)
            of_values[:, :, :columns] += (weights.to(values.dtype) * stay).mT @ arriving
            of_weights = _precise((arriving @ values[:, :, :columns].mT).mul_(stay))
            of_logits = (of_weights - means[:, :, first:last]).mul_(weights).div_(root).to(values.dtype)
            of_queries[:, :, first:last] = of_logits @ seen
            of_keys[:, :, :columns] += of_logits.mT @ rows
        return of_queries, of_keys, of_values, None, None


def _strips(rows: int, columns: int, causal: bool) -> list[tuple[int, int, int]]:
    """First row, row after the last, and the columns that these rows see."""
    return [
        (first, min(first + _STRIP, rows), min(first + _STRIP, rows) if causal else columns)
        for first in range(0, rows, _STRIP)
    ]


def _precise(numbers: Tensor) -> Tensor:
    """In fp32, or in what is more."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def _weights(rows: Tensor, keys: Tensor, first: int, causal: bool) -> Tensor:
    """Attention of some rows before dropout, in fp32 at least; the first of them is position `first`.

    A logit rounded to bf16 is off by up to 1 in 256 of itself, and its exponential by as many times the logit.
    """
    logits = (_precise(rows) @ _precise(keys).mT).div_(math.sqrt(rows.shape[-1]))  # (B, G, S, M)
    if causal:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu_(1 + first)
        logits.masked_fill_(hidden, -math.inf)
    return logits.softmax(dim=-1)
