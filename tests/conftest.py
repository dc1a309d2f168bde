"""What all tests share: runtime shape checks, one torch thread, and the real data where it is present."""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium without a window, as Playwright's `Browser`; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine; `apt install chromium` brings one")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def safe_tar() -> None:
    """Skips where the package refuses tar files, since this Python cannot unpack them safely."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("Python 3.11.4 or later is needed to unpack tar files")


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_encoder("ViT", seed=0, **config)` writes a tiny vision transformer of random weights, as transformers does:
    two blocks, 16 features, patches of 4 pixels, made for 16x16."""

    def make(kind: str = "ViT", *, seed: int = 0, **config: Any) -> Path:
        import torch
        import transformers

        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 4,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes | config))
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    if "norm" not in name:  # fresh weights are so small that a block changes little
                        parameter.copy_(torch.randn_like(parameter) * 0.3)
        folder = tmp_path_factory.mktemp("encoders") / kind.lower()
        network.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def encoder_folder(make_encoder: Callable[..., Path]) -> Path:
    """One of these, for all tests."""
    return make_encoder()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with parity arrays and small real data sets that stands beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED
