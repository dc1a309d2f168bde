"""Floating-point operations of convolutions and matrix products, counted as PyTorch dispatches them.

A multiply-add counts as two. Everything else (norms, activations, random numbers, the optimiser) counts as nothing: on
every machine it is memory traffic rather than arithmetic.

Choices:
- What activation checkpointing computes a second time is not counted: the algorithm does not need it.
- Fused attention that is causal counts the visible pairs alone, and in its backward pass the four products that the
  gradients need. PyTorch's unfused attention computes all pairs, and all are counted.
- At the border of an image a kernel counts in full.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(NamedTuple):
    """A number of floating-point operations, by what computes them."""

    convolution: float
    product: float
    """Of matrix products, those inside attention among them."""

    @property
    def total(self) -> float:
        """Of both."""
        return self.convolution + self.product

    def plus(self, other: "Operations", times: float = 1) -> "Operations":
        """These, and `times` the others."""
        return Operations(self.convolution + times * other.convolution, self.product + times * other.product)


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`with OperationCounter() as counter: ...`, then `counter.counted`.

    Counts what this thread computes, and what its backward passes compute.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = Operations(0, 0)
        """So far."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name not in _CONVOLUTIONS and name not in _PRODUCTS:
            # Without autograd some operations arrive whole, as `linear`; what they are made of is counted.
            with self:
                made_of_others = func.decompose(*args, **kwargs)
            if made_of_others is not NotImplemented:
                return made_of_others
        elif not _is_recomputed():
            names = (argument.name for argument in func._schema.arguments)
            named = dict(zip(names, args, strict=False)) | kwargs
            if name in _CONVOLUTIONS:
                self.counted = self.counted.plus(Operations(_CONVOLUTIONS[name](named), 0))
            else:
                self.counted = self.counted.plus(Operations(0, _PRODUCTS[name](named)))
        return func(*args, **kwargs)


def _is_recomputed() -> bool:
    """Inside a backward pass, whether a graph is built: gradients do without, checkpointing computes anew with one."""
    return torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()


def _convolution(named: Mapping[str, Any], passes: int = 1) -> int:
    image: Tensor = named["input"]
    weight: Tensor = named["weight"]
    if named["transposed"]:
        side = list(image.shape[2:])
    else:
        side = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                image.shape[2:], weight.shape[2:], named["stride"], named["padding"], named["dilation"], strict=True
            )
        ]
    return 2 * passes * len(image) * prod(side) * weight.numel()


def _convolution_backward(named: Mapping[str, Any]) -> int:
    of_image, of_weight, _ = named["output_mask"]
    return _convolution(named, passes=of_image + of_weight)


def _product(left: Tensor, right: Tensor) -> int:
    """Of (..., n, m) and (..., m, k)."""
    return 2 * left.numel() * right.shape[-1]


def _attention(named: Mapping[str, Any], products: int) -> int:
    queries: Tensor = named["query"]
    keys: Tensor = named["key"]
    values: Tensor = named["value"]
    rows, columns = queries.shape[-2], keys.shape[-2]
    pairs = rows * columns
    if named.get("is_causal", False):
        pairs = sum(min(row + 1, columns) for row in range(rows))
    # Half of the products are as deep as a query, half as a value.
    return products * queries.shape[:-2].numel() * pairs * (queries.shape[-1] + values.shape[-1])


_CONVOLUTIONS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
}

_PRODUCTS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "mm": lambda named: _product(named["self"], named["mat2"]),
    "bmm": lambda named: _product(named["self"], named["mat2"]),
    "addmm": lambda named: _product(named["mat1"], named["mat2"]),
    "_addmm_activation": lambda named: _product(named["mat1"], named["mat2"]),
    "baddbmm": lambda named: _product(named["batch1"], named["batch2"]),
}
for _kind in ("flash", "efficient", "cudnn"):
    for _where in ("", "_for_cpu"):
        _PRODUCTS[f"_scaled_dot_product_{_kind}_attention{_where}"] = lambda named: _attention(named, products=2)
        _PRODUCTS[f"_scaled_dot_product_{_kind}_attention{_where}_backward"] = lambda named: _attention(named, 4)
