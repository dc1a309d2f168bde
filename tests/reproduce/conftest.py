"""Small untrained models, and random images that fit them."""

import pytest
import torch
from torch import Tensor

from boqsa.models import MixtureModel


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
