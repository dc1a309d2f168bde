"""The transformer model against the published implementation, its Gumbel noise injected (spec 10).

The tolerance of 1e-8, relative to the largest value of an array, is the project's promise.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boqsa.models import Noise, Output, TransformerModel, load_published
from boqsa.models.published import published_names
from boqsa.slots import Gradient
from boqsa.slots.attention import KeysAndValues

TOLERANCE = 1e-8
SCHEMES: tuple[Gradient, ...] = ("bilevel", "implicit", "unrolled")
VARIANTS: tuple[tuple[KeysAndValues, bool], ...] = (("folded", False), ("projected", False), ("folded", True))


@pytest.fixture(scope="module")
def arrays(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "parity" / "transformer_small.npz") as file:
        return {name: file[name] for name in file.files}


def run(
    arrays: dict[str, np.ndarray],
    gradient: Gradient = "bilevel",
    keys_and_values: KeysAndValues = "folded",
    recompute: bool = False,
) -> tuple[TransformerModel, Output]:
    model = TransformerModel(
        image_size=16,
        num_slots=3,
        slot_size=16,
        mlp_size=20,
        vocab_size=24,
        width=16,
        blocks=2,
        heads=4,
        encoder_channels=(8,) * 4,
        gradient=gradient,
        keys_and_values=keys_and_values,
        recompute=recompute,
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
    noise = Noise(
        gumbel_soft=torch.from_numpy(arrays["gumbel_noise_soft"]),
        gumbel_hard=torch.from_numpy(arrays["gumbel_noise_hard"]),
    )
    return model, model.eval()(torch.from_numpy(arrays["image"]), noise=noise, tau=0.5)  # eval: dropout was off


def difference(found: Tensor, wanted: np.ndarray, at_least: float = 0.0) -> float:
    return float(np.abs(found.detach().numpy() - wanted).max() / max(np.abs(wanted).max(), at_least))


@pytest.mark.parametrize(("keys_and_values", "recompute"), VARIANTS)
def test_outputs(arrays: dict[str, np.ndarray], keys_and_values: KeysAndValues, recompute: bool) -> None:
    _, output = run(arrays, keys_and_values=keys_and_values, recompute=recompute)
    assert output.dvae_log_probs is not None
    assert output.logits is not None
    assert output.tokens is not None
    assert difference(output.dvae_log_probs, arrays["dvae_log_probs"]) < TOLERANCE
    assert difference(output.reconstruction, arrays["dvae_reconstruction"]) < TOLERANCE
    assert np.array_equal(output.tokens.numpy(), arrays["tokens"])
    assert difference(output.masks, arrays["attention"]) < TOLERANCE
    assert difference(output.logits, arrays["teacher_forced_logits"]) < TOLERANCE


@pytest.mark.parametrize("gradient", SCHEMES)
@pytest.mark.parametrize(("keys_and_values", "recompute"), VARIANTS)
def test_losses_and_the_gradient_of_every_parameter(
    arrays: dict[str, np.ndarray], gradient: Gradient, keys_and_values: KeysAndValues, recompute: bool
) -> None:
    model, output = run(arrays, gradient, keys_and_values, recompute)
    for name in ("dvae", "cross_entropy"):
        assert difference(output.losses[name], arrays[f"{gradient}/loss_{name}"]) < TOLERANCE
    output.loss.backward()
    names = published_names(model)
    largest = max(np.abs(value).max() for name, value in arrays.items() if name.startswith(f"{gradient}/grad/"))
    compared = 0
    for ours, parameter in model.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if ours.startswith("dvae."):
            wanted = arrays[f"{gradient}/gradnorm/{names[ours]}"]
            found = found.norm()
        else:
            wanted = arrays[f"{gradient}/grad/{names[ours]}"]
        # Some gradients are analytically zero: their rounding noise is compared with the whole model's.
        assert difference(found, wanted, at_least=1e-6 * largest) < TOLERANCE, ours
        compared += 1
    given = sum(name.startswith((f"{gradient}/grad/", f"{gradient}/gradnorm/")) for name in arrays)
    assert compared == given
