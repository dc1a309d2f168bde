"""Equal to the published implementation, number by number (spec 10): outputs, loss and the gradient of every parameter.

The tolerance of 1e-8, relative to the largest value of an array, is the project's promise; measured differences are
about 1e-15 for values and 2e-12 for gradients.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.models import MixtureModel, load_published
from boqsa.models.published import published_names
from boqsa.slots import Gradient

TOLERANCE = 1e-8
SCHEMES: tuple[Gradient, ...] = ("bilevel", "implicit", "unrolled")


@pytest.fixture(scope="module")
def arrays(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "parity" / "mixture_small.npz") as file:
        return {name: file[name] for name in file.files}


def build(arrays: dict[str, np.ndarray], gradient: Gradient) -> MixtureModel:
    model = MixtureModel(
        image_size=32,
        num_slots=4,
        slot_size=16,
        mlp_size=24,
        encoder_channels=(8,) * 4,
        encoder_strides=(2, 1, 1, 1),
        decoder_channels=(8,) * 4,
        decoder_strides=(2, 2, 2, 1),
        decoder_grid=4,
        gradient=gradient,
    ).double()
    prefix = "weights/"
    load_published(
        model,
        {
            name.removeprefix(prefix): torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith(prefix)
        },
    )
    return model


def unit_image(arrays: dict[str, np.ndarray]) -> Tensor:
    return (torch.from_numpy(arrays["image"]) + 1) / 2


def difference(found: Tensor, wanted: np.ndarray, at_least: float = 0.0) -> float:
    return float(np.abs(found.detach().numpy() - wanted).max() / max(np.abs(wanted).max(), at_least))


@pytest.mark.parametrize("gradient", SCHEMES)
def test_outputs_and_loss(arrays: dict[str, np.ndarray], gradient: Gradient) -> None:
    output = build(arrays, gradient)(unit_image(arrays))
    assert output.slot_reconstructions is not None
    assert difference(output.slots, arrays["slots"]) < TOLERANCE
    assert difference(output.attention, arrays["attention"]) < TOLERANCE
    assert difference(output.masks, arrays["masks"]) < TOLERANCE
    assert difference(output.reconstruction * 2 - 1, arrays["reconstruction"]) < TOLERANCE
    assert difference(output.slot_reconstructions * 2 - 1, arrays["slot_reconstructions"]) < TOLERANCE
    assert difference(output.loss, arrays[f"{gradient}/loss"]) < TOLERANCE


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_other_numbers_of_iterations(arrays: dict[str, np.ndarray], iterations: int) -> None:
    output = build(arrays, "bilevel").eval()(unit_image(arrays), iterations=iterations)
    assert difference(output.slots, arrays[f"slots_iterations_{iterations}"]) < TOLERANCE


@pytest.mark.parametrize("gradient", SCHEMES)
def test_gradient_of_every_parameter(arrays: dict[str, np.ndarray], gradient: Gradient) -> None:
    model = build(arrays, gradient)
    model(unit_image(arrays)).loss.backward()
    names = published_names(model)
    largest = max(np.abs(value).max() for name, value in arrays.items() if name.startswith(f"{gradient}/grad/"))
    for ours, parameter in model.named_parameters():
        wanted = arrays[f"{gradient}/grad/{names[ours]}"]
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # norm_slots.bias has an analytically zero gradient: rounding noise is compared with the whole model's.
        assert difference(found, wanted, at_least=1e-6 * largest) < TOLERANCE, ours
    if gradient == "implicit":
        queries = model.get_parameter("slot_encoder.queries.weight").grad
        assert queries is None or float(queries.abs().max()) == 0.0
