"""What a run executes on: the device that the recipe asks for, and the facts that bit-identity depends on."""

import ctypes
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import boqsa
from boqsa.errors import RecipeError
from boqsa.recipes import TrainRecipe
from boqsa.training.log import read_log

_DECIDES_BITS = ("boqsa", "torch", "device", "gpu", "threads", "processes", "deterministic")

_GLIBC_TRIM_THRESHOLD, _GLIBC_TOP_PAD, _GLIBC_MMAP_THRESHOLD = -1, -2, -3
_MEBIBYTE = 1 << 20


def accelerator(settings: TrainRecipe) -> str:
    """The device's name for Fabric.

    Raises:
        RecipeError: if this machine, or this build of torch, does not have it.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if settings.device != "auto" and not available[settings.device]:
        has = ", ".join(name for name, there in available.items() if there)
        raise RecipeError(
            f"train.device is {settings.device!r}, but this machine and torch have {has}; pass --train.device cpu."
        )
    return settings.device


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on the device. A GPU fetches them from pinned memory while the host goes on.

    The host, which never waits in a step, is so always a step or more ahead: what it reads and draws is there in time.
    """
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


def require_compiler() -> None:
    """What `torch.compile` calls for its kernels.

    Raises:
        RecipeError: if there is none.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RecipeError(
            f"train.compile is on and needs a C++ compiler, but there is no {compiler}; install it or set CXX, "
            "or pass --train.no-compile."
        )


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step instead of handing them back to the kernel.

    A step frees and asks again for the same large blocks. By default each of them is mapped anew and every page is
    zeroed at the first touch: thousands of page faults a step, a sixth of its time (`benchmarks/allocator.py`).
    The process then holds what its largest step needed until it ends.

    Returns:
        Whether the C library took the settings; others than glibc have none of this kind.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    taken = [
        set_option(_GLIBC_MMAP_THRESHOLD, 1024 * _MEBIBYTE),
        set_option(_GLIBC_TRIM_THRESHOLD, 2047 * _MEBIBYTE),
        set_option(_GLIBC_TOP_PAD, 16 * _MEBIBYTE),
    ]
    return all(taken)


def machine_facts(device: torch.device, *, processes: int = 1) -> dict[str, Any]:
    """Versions, device, threads and processes, for the log."""
    return {
        "boqsa": boqsa.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def changed_since_start(run: Path, facts: dict[str, Any]) -> list[str]:
    """What decides the last bits and is not as it was when the run started, as `threads 1 -> 2`."""
    started = next((row for row in read_log(run) if row["event"] == "started"), facts)
    defaults = {"processes": 1, "deterministic": False}  # logs of earlier versions do not name them
    before, now = {**defaults, **started}, {**defaults, **facts}
    return [
        f"{name} {before.get(name)} -> {now.get(name)}" for name in _DECIDES_BITS if before.get(name) != now.get(name)
    ]
