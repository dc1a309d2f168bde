"""Time of repeated work on any device, without making the device wait for the host between two repetitions."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

_MOST = 1_000
"""Repetitions that are timed at a time."""


class Stopwatch:
    """Times work on a device.

    On CUDA an event is recorded between repetitions and read at the end: the host may run ahead, as it does in
    training, and what is timed is the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def repeat(self, work: Callable[[int], object], *, seconds: float) -> list[float]:
        """Call `work(0)`, `work(1)`, ... until `seconds` have passed, once at least; seconds of each call."""
        self._finish()
        began = time.perf_counter()
        marks = [self._mark()]
        while len(marks) == 1 or (time.perf_counter() - began < seconds and len(marks) <= _MOST):
            work(len(marks) - 1)
            marks.append(self._mark())
        self._finish()
        if self._device.type == "cuda":
            return [begin.elapsed_time(end) / 1e3 for begin, end in pairwise(marks)]
        return [end - begin for begin, end in pairwise(marks)]

    def _mark(self) -> Any:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type == "mps":
            self._finish()  # it has no events of this kind in every version
        return time.perf_counter()

    def _finish(self) -> None:
        """Wait until the device has done what it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
