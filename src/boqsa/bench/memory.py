"""Peak memory of some work, as the growth of this process over what it was before.

Two figures. What the work *needs*: every block of 64 KiB or more is handed back to the system when it is freed, so
resident memory is what is in use. What a process *holds*: freed blocks are kept, as allocators do and as the training
loop asks for; it is what the machine must have. On a CPU each needs a process of its own.

On Linux the peak is `VmHWM`, which begins anew where it is asked to and is not inherited from the parent, as
`getrusage` is.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
_BLOCK = 1 << 16


class Peak(NamedTuple):
    """Growth in bytes; None where this machine cannot tell."""

    needs: int | None
    holds: int | None


class PeakMemory:
    """`memory = PeakMemory(device)`, some work, `memory.growth()`.

    Args:
        device: Where the work is. On CUDA both figures are those of PyTorch's allocator; on a CPU there is one, the
            resident memory, and whether it is what is needed or what is held is up to the C library's settings.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            give_back_free_memory()
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._before = self._peak()

    def growth(self) -> Peak:
        """Of the peak, since this was made."""
        grown = [
            None if now is None or before is None else now - before
            for now, before in zip(self._peak(), self._before, strict=True)
        ]
        return Peak(*grown)

    def _peak(self) -> Peak:
        if self._device.type == "cuda":
            return Peak(torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device))
        if self._device.type == "cpu":
            resident = _peak_resident()
            return Peak(resident, resident)
        return Peak(None, None)


def hand_back_freed_memory() -> bool:
    """Have glibc map every block of 64 KiB or more by itself, so that freeing it hands it back.

    Returns:
        Whether the C library took the settings; others than glibc have none of this kind.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    taken = [set_option(_MMAP_THRESHOLD, _BLOCK), set_option(_TRIM_THRESHOLD, _BLOCK), set_option(_TOP_PAD, 0)]
    return all(taken)


def give_back_free_memory() -> None:
    """What is free at the moment goes back to the system, where that is possible."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def bytes_needed(work: Callable[[], object]) -> int | None:
    """What some work on the CPU needs at most beyond what this process has; None where no machine can tell.

    Call it in a process of its own: the C library's settings stay as they are set here.
    """
    if not hand_back_freed_memory():
        return None
    memory = PeakMemory(torch.device("cpu"))
    work()
    return memory.growth().needs


def _peak_resident() -> int:
    """Bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not everywhere

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
