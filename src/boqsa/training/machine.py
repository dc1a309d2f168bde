"""What a run executes on: the device that the recipe asks for, and the facts that bit-identity depends on."""

import platform
from pathlib import Path
from typing import Any

import torch

import boqsa
from boqsa.errors import RecipeError
from boqsa.recipes import TrainRecipe
from boqsa.training.log import read_log

_DECIDES_BITS = ("torch", "device", "threads")


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


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads, for the log."""
    return {
        "boqsa": boqsa.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def changed_since_start(run: Path, facts: dict[str, Any]) -> list[str]:
    """What decides the last bits and is not as it was when the run started, as `threads 1 -> 2`."""
    started = next((row for row in read_log(run) if row["event"] == "started"), facts)
    return [
        f"{name} {started.get(name)} -> {facts[name]}" for name in _DECIDES_BITS if started.get(name) != facts[name]
    ]
