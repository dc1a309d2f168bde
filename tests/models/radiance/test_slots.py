"""Slot attention with a background slot: four combinations, and what belongs to whom (uorf 3, 12)."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from boqsa.models.radiance.encoder import ViewEncoder
from boqsa.models.radiance.slots import BackgroundSlotEncoder
from boqsa.slots import Gradient


def made(slots: int = 4, size: int = 8, **changes: Any) -> BackgroundSlotEncoder:
    torch.manual_seed(0)
    encoder = BackgroundSlotEncoder(slots, size, **changes).double()
    with torch.no_grad():  # weights of std 0.02 would hide differences
        for parameter in encoder.parameters():
            parameter.normal_(std=0.5)
    return encoder


def tokens(size: int = 8, *, batch: int = 2) -> Tensor:
    return torch.randn(batch, 11, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def found(encoder: BackgroundSlotEncoder, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:
    noise = torch.randn(2, encoder.num_slots, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    start = encoder.initial_slots(2, noise=noise) if initial is None else initial
    return encoder(encoder.prepare(tokens()), start)


@pytest.mark.parametrize(("size", "sampled", "learned"), [(40, 47_456, 47_616), (64, 100_352, 100_416)])
def test_numbers_of_parameters_are_the_published_ones(size: int, sampled: int, learned: int) -> None:
    slots = 8 if size == 40 else 5
    for queries, count in (("shared_gaussian", sampled), ("learned", learned)):
        encoder = BackgroundSlotEncoder(slots, size, queries=queries)  # type: ignore[arg-type]
        assert sum(parameter.numel() for parameter in encoder.parameters()) == count


@pytest.mark.parametrize(("size", "halved", "count"), [(40, False, 103_560), (64, False, 262_464), (64, True, 299_392)])
def test_the_u_net_has_the_published_number_of_parameters(size: int, halved: bool, count: int) -> None:
    encoder = ViewEncoder(size, halved=halved)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == count
    side = 32 if halved else 16
    assert encoder(torch.zeros(2, 3, side, side)).shape == (2, 256, size)


@pytest.mark.parametrize("queries", ["learned", "shared_gaussian"])
def test_the_three_gradients_have_one_value(queries: str) -> None:
    outputs = [found(made(queries=queries, gradient=gradient)) for gradient in get_args(Gradient)]
    for slots, attention in outputs[1:]:
        torch.testing.assert_close(slots, outputs[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(attention, outputs[0][1], rtol=0, atol=1e-12)


def test_bilevel_queries_get_the_gradient_of_the_last_steps_input() -> None:
    encoder = made(gradient="bilevel")
    (slots, _) = found(encoder)
    slots.square().sum().backward()
    weight = encoder.queries.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        prepared, slots = encoder.prepare(tokens()), encoder.initial_slots(2)
        for _ in range(2):
            slots, _ = encoder.step(prepared, slots)
    last = slots.clone().requires_grad_()
    encoder.step(prepared, last)[0].square().sum().backward()
    assert last.grad is not None
    torch.testing.assert_close(weight.grad, last.grad.sum(0), rtol=1e-10, atol=1e-10)
    assert weight.grad.abs().min() > 0


def test_bilevel_samples_have_a_gradient_too_and_implicit_ones_none() -> None:
    for gradient, has in (("bilevel", True), ("implicit", False), ("unrolled", True)):
        encoder = made(queries="shared_gaussian", gradient=gradient)
        found(encoder)[0].square().sum().backward()
        for name, parameter in encoder.queries.named_parameters():
            assert (parameter.grad is not None) == has, name


def test_learned_queries_leave_no_gaussian_in_the_weights() -> None:
    names = set(made().state_dict())
    assert "queries.weight" in names
    assert not any("mu" in name.split(".") or "log_sigma" in name for name in names)


def test_row_0_is_the_backgrounds_and_the_others_are_interchangeable() -> None:
    encoder = made()
    initial = torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    slots, attention = found(encoder, initial)
    objects = found(encoder, initial[:, [0, 2, 1, 3]])
    torch.testing.assert_close(objects[0], slots[:, [0, 2, 1, 3]])
    torch.testing.assert_close(objects[1], attention[:, [0, 2, 1, 3]])
    with_background, _ = found(encoder, initial[:, [1, 0, 2, 3]])
    assert (with_background - slots[:, [1, 0, 2, 3]]).abs().max() > 1e-3


def test_attention_is_a_softmax_over_all_slots_together() -> None:
    _, attention = found(made())
    torch.testing.assert_close(attention.sum(1), torch.full((2, 11), 1 + 4e-8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_background_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="num_slots is 1"):
        BackgroundSlotEncoder(1, 8)
