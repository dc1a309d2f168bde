"""What a run is told about its machine, and what it tells the machine."""

import platform
import subprocess
import sys

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
    # In a process of its own: what other tests left in this one's heap decides where the second tensor lands.
    program = (
        "import resource, torch\n"
        "from boqsa.training.machine import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(16 << 20)\n"  # 64 MiB
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    # By default 16,384 pages each time. Now once, or a few times: an aligned block may need another place.
    assert int(faults) < 6 * 16_384


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
