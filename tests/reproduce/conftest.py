"""Small untrained models and random images that fit them, rows of results, made up, and the paper's numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.models import MixtureModel
from boqsa.reproduce.paper import PaperCell, paper_cells
from boqsa.reproduce.protocol import Protocol
from boqsa.reproduce.rows import Row


def small_mixture(**options: object) -> MixtureModel:
    """16x16 images, three slots of eight numbers; the weights are the same each time."""
    torch.manual_seed(0)
    sizes = {
        "image_size": 16,
        "num_slots": 3,
        "slot_size": 8,
        "mlp_size": 8,
        "encoder_channels": (8,),
        "encoder_strides": (1,),
        "decoder_channels": (8,),
        "decoder_strides": (2,),
    }
    return MixtureModel(**{**sizes, **options}).eval()


@pytest.fixture(scope="session")
def learned() -> MixtureModel:
    """Learned queries."""
    return small_mixture()


@pytest.fixture(scope="session")
def sampled() -> MixtureModel:
    """Slots that are samples of one Gaussian."""
    return small_mixture(queries="shared_gaussian")


@pytest.fixture(scope="session")
def images() -> Tensor:
    """uint8 (10, 3, 16, 16)."""
    return torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_rows() -> Callable[..., list[Row]]:
    """A row for each seed of each method on one data set; what is not named is the built-in scenes' own."""

    def make(
        values: Mapping[str, Sequence[float]],
        *,
        dataset: str = "scenes",
        metric: str = "ari_fg",
        condition: str = "",
        selection: str = "last",
        **protocol: Any,
    ) -> list[Row]:
        parts: dict[str, Any] = {
            "data": dataset,
            "variant": "a1b2c3d4",
            "split": "test",
            "images": 1000,
            "image_size": 32,
            "slots": 5,
            "masks": "decoder",
            "metric": metric,
        }
        text = Protocol(**(parts | protocol)).text
        return [
            Row(method, dataset, metric, condition, seed, selection, text, value)
            for method, of_method in values.items()
            for seed, value in enumerate(of_method)
        ]

    return make


@pytest.fixture(scope="session")
def all_cells() -> list[PaperCell]:
    """The numbers of all tables of the paper that have results, in their order."""
    return [cell for table in (*range(1, 9), *range(14, 20)) for cell in paper_cells(table)]


@pytest.fixture(scope="session")
def find_cell(all_cells: list[PaperCell]) -> Callable[[int, str, str, str], PaperCell]:
    """One number, by table, data set, row and the paper's metric."""
    cells = {(cell.table, cell.dataset, cell.method, cell.metric): cell for cell in all_cells}
    return lambda *key: cells[key]
