"""What happened since the last row of the log: losses, gradient norms, and the speed of the steps alone.

A loss that is not a number counts in no mean: the step that it belongs to was skipped.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Interval:
    """Collects steps; nothing is read from the device before someone asks.

    Args:
        batch_size: Images in a step.
        losses: Of the steps since the last row that were taken before the run was resumed.
        parts: The same for each part of the loss.
    """

    def __init__(
        self, batch_size: int, losses: Tensor | None = None, parts: Mapping[str, Tensor] | None = None
    ) -> None:
        self._batch_size = batch_size
        self._losses: list[Tensor] = [] if losses is None else list(losses.unbind())
        self._parts = {name: list(values.unbind()) for name, values in (parts or {}).items()}
        self._norms: list[Tensor] = []
        self._query_norm: Tensor | None = None
        self._began = time.monotonic()

    def add(
        self,
        loss: Tensor,
        norm: Tensor,
        parts: Mapping[str, Tensor] | None = None,
        query_norm: Tensor | None = None,
    ) -> None:
        """Take in a step: its loss, the norm of its gradient, the parts of the loss if it has several, and the norm of
        the learned queries' gradient if there are any; scalars."""
        self._losses.append(loss)
        self._norms.append(norm)
        self._query_norm = query_norm
        for name, value in (parts or {}).items():
            self._parts.setdefault(name, []).append(value)

    @property
    def losses(self) -> Tensor:
        """The loss of every step, (steps,)."""
        return torch.stack(self._losses) if self._losses else torch.zeros(0)

    @property
    def parts(self) -> dict[str, Tensor]:
        """Each part of the loss of every step, (steps,)."""
        return {name: torch.stack(values) for name, values in self._parts.items()}

    @property
    def mean_loss(self) -> float:
        """Mean over the steps whose loss is a number; NaN if there is none."""
        return _finite_mean(self.losses)

    @property
    def mean_parts(self) -> dict[str, float]:
        """The same for each part of the loss."""
        return {name: _finite_mean(values) for name, values in self.parts.items()}

    @property
    def last_loss(self) -> float:
        """Loss of the last step, a number or not."""
        return float(self._losses[-1])

    @property
    def last_norm(self) -> float:
        """Gradient norm of the last step, a number or not."""
        return float(self._norms[-1])

    @property
    def last_query_norm(self) -> float | None:
        """Norm of the learned queries' gradient of the last step; None without learned queries."""
        return None if self._query_norm is None else float(self._query_norm)

    @property
    def images_per_second(self) -> float:
        """Of the steps taken in this process, pauses left out."""
        return len(self._norms) * self._batch_size / max(time.monotonic() - self._began, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside, on evaluation and checkpoints, is not time of the steps."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began


def _finite_mean(values: Tensor) -> float:
    return float(values[values.isfinite()].mean())
