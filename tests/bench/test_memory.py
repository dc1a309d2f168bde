"""Memory of a process that allocates what we know."""

import sys
from functools import partial

import pytest
import torch

from boqsa.bench.memory import PeakMemory, bytes_needed
from boqsa.bench.processes import in_own_process

MEBIBYTE = 1 << 20
SLACK = 8 * MEBIBYTE
"""Pages of libraries that are touched for the first time, and small blocks."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process that is told to begin anew")


def test_a_known_block_is_what_is_needed() -> None:
    block = partial(torch.ones, 100 * MEBIBYTE, dtype=torch.uint8)
    needed = in_own_process(bytes_needed, block)
    assert needed is not None, "the C library is not glibc"
    assert abs(needed - 100 * MEBIBYTE) < SLACK


def test_what_was_freed_is_not_needed_and_a_peak_before_does_not_count() -> None:
    large = torch.ones(200 * MEBIBYTE, dtype=torch.uint8)
    del large
    memory = PeakMemory(torch.device("cpu"))
    block = torch.ones(50 * MEBIBYTE, dtype=torch.uint8)
    del block
    holds = memory.growth().holds
    assert holds is not None
    assert abs(holds - 50 * MEBIBYTE) < SLACK


def test_other_devices_are_not_guessed() -> None:
    assert PeakMemory(torch.device("meta")).growth() == (None, None)
