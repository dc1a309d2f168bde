"""From tokens to slots: what is shared by both models."""

import pytest
import torch

from boqsa.layers.slot_encoder import SlotEncoder
from boqsa.slots.attention import KeysAndValues


def build(keys_and_values: KeysAndValues = "projected") -> SlotEncoder:
    torch.manual_seed(0)
    return SlotEncoder(
        6,
        3,
        8,
        12,
        iterations=3,
        queries="learned",
        gradient="bilevel",
        perturbation="multiplicative",
        epsilon=1.0,
        epsilon_form="sum",
        drop_path=0.2,
        initial_weights="published",
        keys_and_values=keys_and_values,
    ).double()


@pytest.mark.parametrize("iterations", [1, 3])
def test_folded_keys_and_values_change_nothing_but_rounding(iterations: int) -> None:
    tokens = torch.randn(2, 10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for form in ("projected", "folded"):
        encoder = build(form)  # type: ignore[arg-type]
        slots, attention = encoder(encoder.prepare(tokens), encoder.initial_slots(2), iterations=iterations)
        (slots.square().sum() + attention[:, 0].square().sum()).backward()
        results.append([slots, attention, *(parameter.grad for parameter in encoder.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_drop_path_needs_a_number_for_every_step() -> None:
    encoder = build()
    prepared = encoder.prepare(torch.zeros(2, 10, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match="drop_path has 2 columns; 3 iterations"):
        encoder(prepared, encoder.initial_slots(2), drop_path=torch.rand(2, 2, dtype=torch.float64))
