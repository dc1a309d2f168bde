"""The spectral norm of the slot update against the whole Jacobian, by singular values."""

from typing import Any

import pytest
import torch

from boqsa.inference.load import build_model
from boqsa.models import MixtureModel, Noise
from boqsa.recipes import Recipe
from boqsa.slots import SlotAttention
from boqsa.training.stability import step_spectral_norms, update_spectral_norm


def small_mixture(**options: Any) -> MixtureModel:
    torch.manual_seed(0)
    return MixtureModel(
        image_size=16,
        num_slots=3,
        slot_size=8,
        mlp_size=16,
        encoder_channels=(4,),
        encoder_strides=(2,),
        decoder_channels=(4,),
        decoder_strides=(2,),
        iterations=2,
        **options,
    ).eval()


@pytest.mark.parametrize("keys_and_values", ["projected", "folded"])
def test_each_image_has_the_largest_singular_value_of_its_own_jacobian(keys_and_values: Any) -> None:
    torch.manual_seed(0)
    attention = SlotAttention(8, 16, keys_and_values=keys_and_values).double().eval()
    prepared = attention.prepare(torch.randn(2, 20, 8, dtype=torch.float64) * 3)
    slots = torch.randn(2, 3, 8, dtype=torch.float64)
    whole = torch.func.jacrev(lambda slots: attention.step(prepared, slots)[0])(slots)
    expected = [torch.linalg.matrix_norm(whole[b, :, :, b].reshape(24, 24), ord=2) for b in range(2)]
    found = step_spectral_norms(attention, prepared, slots)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0.03, atol=0)
    assert (found <= torch.stack(expected) * (1 + 1e-9)).all()  # approached from below


def test_a_step_that_forgets_its_slots_has_norm_zero_and_one_that_keeps_them_norm_one() -> None:
    torch.manual_seed(0)
    attention = SlotAttention(8, 16).double().eval()
    with torch.no_grad():
        for parameter in (attention.mlp[2].weight, attention.mlp[2].bias, attention.to_queries.weight):
            parameter.zero_()
        attention.gru.weight_hh.zero_()
        prepared = attention.prepare(torch.randn(1, 20, 8, dtype=torch.float64))
        slots = torch.randn(1, 3, 8, dtype=torch.float64)
        for gate, norm in ((-50.0, 0.0), (50.0, 1.0)):  # the GRU's update gate: 0 takes the new slot, 1 keeps the old
            attention.gru.bias_ih[8:16] = gate
            torch.testing.assert_close(
                step_spectral_norms(attention, prepared, slots), torch.tensor([norm], dtype=torch.float64)
            )


def test_it_is_the_same_each_time_and_leaves_the_model_alone() -> None:
    model = small_mixture()
    image = torch.rand(2, 3, 16, 16)
    first = update_spectral_norm(model, image)
    assert first is not None
    assert first > 0
    assert update_spectral_norm(model, image) == first
    assert not model.slot_encoder._forward_pre_hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


def test_it_looks_where_the_refinement_ends() -> None:
    model, image = small_mixture(), torch.rand(2, 3, 16, 16)
    assert update_spectral_norm(model, image, iterations=1) != update_spectral_norm(model, image, iterations=2)


def test_slots_that_are_samples_take_their_noise() -> None:
    model, image = small_mixture(queries="shared_gaussian"), torch.rand(2, 3, 16, 16)
    noise = [Noise(queries=torch.full((2, 3, 8), value) * torch.arange(3)[:, None]) for value in (0.5, 2.0)]
    assert update_spectral_norm(model, image, noise=noise[0]) != update_spectral_norm(model, image, noise=noise[1])


def test_a_transformer_has_one_too(transformer_recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = build_model(transformer_recipe).eval()
    assert (update_spectral_norm(model, torch.rand(2, 3, 16, 16)) or 0) > 0


def test_a_model_without_slot_attention_has_none() -> None:
    assert update_spectral_norm(torch.nn.Identity(), torch.rand(2, 3, 16, 16)) is None
