"""Dropout from random bits, and attention in strips: against themselves written out, and in their counts."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from boqsa.layers import dropout
from boqsa.layers.dropout import Dropout, attention_with_dropout, kept_numbers


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_should_be(probability: float) -> None:
    torch.manual_seed(0)
    kept = kept_numbers((1_000_001,), probability, torch.uint8)
    assert kept.unique().tolist() == [0, 1]
    deviation = math.sqrt(probability * (1 - probability) / 1_000_001)
    assert abs(1 - float(kept.double().mean()) - probability) < 5 * deviation + 1 / 65536


def test_neighbours_are_dropped_independently() -> None:
    """Four numbers share 64 random bits: all 16 patterns must be as frequent as chance has them."""
    torch.manual_seed(0)
    fours = kept_numbers((200_000, 4), 0.5, torch.int64)
    counts = (fours @ torch.tensor([1, 2, 4, 8])).bincount(minlength=16).double()
    expected = 200_000 / 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # chi-squared of 15 degrees: 1 in 10,000


def test_the_mean_stays_exactly() -> None:
    """0.1 is no multiple of 1/65536; the scale goes with what is drawn, not with what was asked for."""
    dropped = dropout._of_65536(0.1) / 65536
    assert dropped != 0.1
    assert (1 - dropped) * dropout._scale(0.1) == pytest.approx(1, abs=1e-15)


def test_dropout_drops_in_training_alone_and_its_gradient_is_what_it_let_through() -> None:
    layer, numbers = Dropout(0.25), drawn(50, 7).requires_grad_()
    assert layer.eval()(numbers) is numbers
    torch.manual_seed(0)
    result = layer.train()(numbers)
    (gradient,) = torch.autograd.grad(result.sum(), numbers)
    assert torch.equal(result, numbers * gradient)
    assert sorted(gradient.unique().tolist()) == [0.0, pytest.approx(4 / 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    assert Dropout(0.5)(torch.ones(9, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_out_of_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="dropout is"):
        Dropout(probability)


def written_out(queries: Tensor, keys: Tensor, values: Tensor, probability: float, causal: bool) -> Tensor:
    """All weights at once; the same draws, strip after strip."""
    torch.manual_seed(1)
    rows, columns = queries.shape[2], keys.shape[2]
    logits = queries @ keys.mT / math.sqrt(queries.shape[-1])
    if causal:
        logits = logits.masked_fill(torch.ones(rows, columns, dtype=torch.bool).triu(1), -math.inf)
    weights = logits.softmax(dim=-1)
    kept = torch.zeros_like(weights)
    for first in range(0, rows, dropout._STRIP):
        last = min(first + dropout._STRIP, rows)
        seen = last if causal else columns
        kept[:, :, first:last, :seen] = kept_numbers((*weights.shape[:2], last - first, seen), probability, kept.dtype)
    return weights * kept * dropout._scale(probability) @ values


@pytest.mark.parametrize("causal", [True, False])
def test_strips_are_the_whole_values_and_gradients(causal: bool) -> None:
    columns = 300 if causal else 5
    inputs = [drawn(2, 3, 300, 4, seed=1), drawn(2, 3, columns, 4, seed=2), drawn(2, 3, columns, 4, seed=3)]
    inputs = [each.requires_grad_() for each in inputs]
    expected = written_out(*inputs, 0.3, causal)
    torch.manual_seed(1)
    found = attention_with_dropout(*inputs, probability=0.3, causal=causal)
    torch.testing.assert_close(found, expected)
    arriving = drawn(*found.shape, seed=4)
    for one, other in zip(
        torch.autograd.grad(found, inputs, arriving), torch.autograd.grad(expected, inputs, arriving), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_in_bf16_logits_are_not_rounded() -> None:
    """Rounded logits would make the errors 1.2 % and more; what is left is the rounding of weights and results."""
    inputs = [scale * drawn(1, 4, 512, 48, seed=seed).bfloat16() for seed, scale in enumerate((2, 2, 1))]
    arriving = drawn(1, 4, 512, 48, seed=3).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        exact = [each.to(dtype).requires_grad_() for each in inputs]
        torch.manual_seed(1)
        taken = attention_with_dropout(*exact, probability=0.1, causal=True)
        found.append([taken, *torch.autograd.grad(taken, exact, arriving.to(dtype))])
    for rounded, exact in zip(*found, strict=True):
        assert float((rounded.double() - exact).norm() / exact.norm()) < 0.008


def test_the_mean_over_draws_is_attention_without_dropout() -> None:
    queries, keys, values = (drawn(1, 1, 6, 4, seed=seed) for seed in range(3))
    torch.manual_seed(0)
    draws = torch.stack(
        [attention_with_dropout(queries, keys, values, probability=0.2, causal=True) for _ in range(4000)]
    )
    expected = scaled_dot_product_attention(queries, keys, values, is_causal=True)
    errors = (draws.mean(0) - expected).abs() / (draws.std(0) / math.sqrt(len(draws)) + 1e-12)
    assert float(errors.max()) < 5


def test_without_dropout_it_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(dropout, "scaled_dot_product_attention", lambda *_, **options: called.append(options) or _[0])
    queries = drawn(1, 1, 3, 4)
    attention_with_dropout(queries, queries, queries, probability=0.0, causal=True)
    assert called == [{"dropout_p": 0.0, "is_causal": True}]
