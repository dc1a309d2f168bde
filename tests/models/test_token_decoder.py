"""The autoregressive decoder on toy vocabularies, where every sequence can be enumerated."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from boqsa.models.token_decoder import TokenDecoder

VOCABULARY, LENGTH = 3, 4


def build(dropout: float = 0.0) -> TokenDecoder:
    torch.manual_seed(0)
    return TokenDecoder(VOCABULARY, LENGTH, 5, width=16, blocks=2, heads=2, dropout=dropout)


@pytest.fixture
def all_sequences() -> Tensor:
    return torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))  # (81, 4)


def log_likelihood(decoder: TokenDecoder, tokens: Tensor, slots: Tensor) -> Tensor:
    log_probs = decoder(decoder.embed(tokens), slots).log_softmax(dim=-1)
    return log_probs.gather(2, tokens[..., None]).sum(dim=(1, 2))


def test_the_likelihoods_of_all_sequences_sum_to_one(all_sequences: Tensor) -> None:
    """Only if no position sees the token it predicts, and the first sees none at all."""
    decoder = build().double()
    slots = torch.randn(1, 2, 5, dtype=torch.float64).expand(81, -1, -1)
    assert float(log_likelihood(decoder, all_sequences, slots).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_teacher_forcing_multiplies_the_conditionals_of_generation(all_sequences: Tensor) -> None:
    decoder = build().double().eval()
    slots = torch.randn(1, 2, 5, dtype=torch.float64)
    memory = decoder.project_slots(slots)
    by_hand = []
    for sequence in all_sequences.tolist():
        kept = decoder.transformer.start(memory, LENGTH)
        symbol, total = 0, 0.0
        for position, token in enumerate(sequence):
            inputs = decoder.dictionary(torch.tensor([[symbol]])) + decoder.positions[:, position : position + 1]
            log_probs = decoder.head(decoder.transformer.next(inputs, kept, position)).log_softmax(dim=-1)
            total += float(log_probs[0, 0, token])
            symbol = token + 1
        by_hand.append(total)
    found = log_likelihood(decoder, all_sequences, slots.expand(81, -1, -1))
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64))


def test_drawn_sequences_follow_their_likelihood(all_sequences: Tensor) -> None:
    """81 kinds of sequences, 20,000 draws: the chi-squared statistic stays within four standard deviations."""
    decoder = build().eval()
    slots = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = 20_000 * log_likelihood(decoder, all_sequences, slots.expand(81, -1, -1)).exp()
    drawn = decoder.generate(slots.expand(20_000, -1, -1), temperature=1.0, generator=torch.Generator().manual_seed(0))
    kind = (drawn * torch.tensor([27, 9, 3, 1])).sum(dim=1)
    statistic = float(((kind.bincount(minlength=81) - wanted).square() / wanted).sum())
    assert abs(statistic - 80) < 4 * math.sqrt(2 * 80)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_and_uncached_generation_agree_token_by_token(temperature: float) -> None:
    torch.manual_seed(1)
    decoder = TokenDecoder(20, 36, 5, width=16, blocks=3, heads=4, dropout=0.1).double().eval()
    slots = torch.randn(4, 3, 5, dtype=torch.float64)
    found = [
        decoder.generate(slots, temperature=temperature, generator=torch.Generator().manual_seed(7), cached=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*found)
    assert len(found[0].unique()) > 5


def test_greedy_generation_is_teacher_forcing_on_its_own_tokens() -> None:
    torch.manual_seed(1)
    decoder = TokenDecoder(20, 36, 5, width=16, blocks=2, heads=4, dropout=0.1).double().eval()
    slots = torch.randn(2, 3, 5, dtype=torch.float64)
    tokens = decoder.generate(slots)
    assert torch.equal(decoder(decoder.embed(tokens), slots).argmax(dim=-1), tokens)


def test_learns_a_grammar() -> None:
    """The first token is free; each next one is the one before plus a step that only the slots tell.

    What can be learned is exactly ln 3 nats a sequence, against 4 ln 3 without learning.
    """
    decoder = build(dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(3, 1, 5, generator=generator)  # a slot for each of the steps 0, 1, 2
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)

    def sentences(count: int) -> tuple[Tensor, Tensor]:
        first, step = torch.randint(0, 3, (2, count, 1), generator=generator)
        return (first + step * torch.arange(LENGTH)) % 3, step.squeeze(1)

    for _ in range(300):
        tokens, step = sentences(64)
        loss = -log_likelihood(decoder, tokens, steps[step]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, step = sentences(512)
    with torch.no_grad():
        assert float(-log_likelihood(decoder, tokens, steps[step]).mean()) == pytest.approx(math.log(3), abs=0.05)
    decoder.eval()
    step = torch.arange(3).repeat(20)
    drawn = decoder.generate(steps[step], temperature=1.0, generator=generator)
    assert torch.equal(drawn.diff(dim=1) % 3, step[:, None].expand(-1, LENGTH - 1))


def test_a_negative_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        build().generate(torch.zeros(1, 2, 5), temperature=-1.0)
