"""What a run is told about its machine, and what it tells the machine."""

import platform
import resource

import pytest
import torch

from boqsa.errors import RecipeError
from boqsa.recipes import TrainRecipe
from boqsa.training.machine import accelerator, keep_freed_memory


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator(TrainRecipe(device="cpu")) == "cpu"
    with pytest.raises(RecipeError, match=r"train\.device is 'cuda'.*pass --train\.device cpu"):
        accelerator(TrainRecipe(device="cuda"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_not_mapped_again() -> None:
    assert keep_freed_memory()
    torch.ones(16 << 20)  # 64 MiB: by default it is unmapped when it goes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1_000  # of 16,384 pages


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
