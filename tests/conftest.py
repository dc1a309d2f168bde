"""What all tests share: runtime shape checks, one torch thread, and the real data where it is present."""

import tarfile
from pathlib import Path

import jaxtyping
import pytest

# The shapes in the signatures of these packages are checked while tests run. Metrics and data check by hand and say
# so in their own words, which their tests read.
jaxtyping.install_import_hook(["boqsa.slots", "boqsa.layers", "boqsa.models"], "beartype.beartype")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os

    os.environ["BOQSA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def safe_tar() -> None:
    """Skips where the package refuses tar files, since this Python cannot unpack them safely."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("Python 3.11.4 or later is needed to unpack tar files")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with parity arrays and small real data sets that stands beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED
