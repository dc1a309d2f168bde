"""Pictures from slots alone: both decoders, and what cannot be painted."""

import numpy as np
import pytest
import torch

from boqsa.errors import InputError
from boqsa.inference.decode import decode_slots, paints_slots


def test_a_mixture_paints_what_it_reconstructs(model):
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        output = model(image)
    expected = (output.reconstruction.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    found = decode_slots(model, output.slots)
    assert found.shape == (2, 16, 16, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_transformer_draws_the_same_tokens_for_the_same_seed(transformer):
    slots = torch.randn(1, 3, transformer.slot_size, generator=torch.Generator().manual_seed(1))
    first, again = (decode_slots(transformer, slots, temperature=1.0, seed=4) for _ in range(2))
    other = decode_slots(transformer, slots, temperature=1.0, seed=5)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (1, 16, 16, 3)
    assert (first != other).any()


def test_what_paints_no_picture_is_refused():
    from boqsa.models.radiance import RadianceModel

    model = RadianceModel(num_slots=2, slot_size=8, input_size=16)
    assert not paints_slots(model)
    with pytest.raises(InputError, match="take a mixture or a transformer model"):
        decode_slots(model, torch.zeros(1, 2, 8))
