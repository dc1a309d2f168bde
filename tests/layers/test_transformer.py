"""The causal transformer: against a slow one written out by hand, cached against uncached, and what it may not see."""

import math

import pytest
import torch
from torch import Tensor

from boqsa.layers.transformer import Block, Transformer


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(2, 7, 8, generator=generator, dtype=torch.float64)
    memory = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    return stream, memory


def build(**options: bool) -> Transformer:
    torch.manual_seed(0)
    return Transformer(8, 2, 2, 0.0, **options).double()


def slow_attention(attention: torch.nn.Module, inputs: Tensor, memory: Tensor, *, causal: bool) -> Tensor:
    """One head, one pair of positions at a time."""
    queries, keys, values = attention.to_queries(inputs), attention.to_keys(memory), attention.to_values(memory)
    width = queries.shape[-1] // attention.heads
    taken = torch.zeros_like(queries)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for position in range(inputs.shape[1]):
            seen = position + 1 if causal else memory.shape[1]
            scores = [
                (queries[:, position, part] * keys[:, other, part]).sum(-1) / math.sqrt(width) for other in range(seen)
            ]
            weights = torch.stack(scores, dim=-1).softmax(dim=-1)
            for other in range(seen):
                taken[:, position, part] += weights[:, other, None] * values[:, other, part]
    return attention.project(taken)


def slow_block(block: Block, stream: Tensor, memory: Tensor, *, is_first: bool) -> Tensor:
    normalised = block.norm_self(stream)
    if is_first:
        stream = normalised
    stream = stream + slow_attention(block.self_attention, normalised, normalised, causal=True)
    stream = stream + slow_attention(block.cross_attention, block.norm_cross(stream), memory, causal=False)
    return stream + block.feed_forward(block.norm_feed_forward(stream))


def test_equals_the_slow_one(inputs: tuple[Tensor, Tensor]) -> None:
    transformer = build().eval()
    stream, memory = inputs
    for number, block in enumerate(transformer.blocks):
        stream = slow_block(block, stream, memory, is_first=number == 0)
    torch.testing.assert_close(transformer(*inputs), transformer.norm(stream))


def test_weights_are_what_the_last_block_takes_from_the_memory(inputs: tuple[Tensor, Tensor]) -> None:
    transformer = build().eval()
    stream, memory = inputs
    found, weights = transformer.with_weights(stream, memory)
    assert torch.equal(found, transformer(stream, memory))
    first, last = transformer.blocks
    stream = first(stream, memory)
    normalised = last.norm_self(stream)
    stream = stream + slow_attention(last.self_attention, normalised, normalised, causal=True)
    queries = last.cross_attention.to_queries(last.norm_cross(stream))
    keys = last.cross_attention.to_keys(memory)
    expected = torch.zeros(2, 7, 3, dtype=torch.float64)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        expected += (queries[..., part] @ keys[..., part].mT / 2).softmax(dim=-1) / 2
    torch.testing.assert_close(weights, expected)


def test_a_position_sees_itself_and_those_before_it_alone(inputs: tuple[Tensor, Tensor]) -> None:
    transformer = build()
    stream, memory = inputs
    changed = stream.clone()
    changed[:, 4, 0] += 1
    before, after = transformer(stream, memory), transformer(changed, memory)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all(dim=-1).any()


def test_one_after_the_other_gives_the_same(inputs: tuple[Tensor, Tensor]) -> None:
    transformer = build().eval()
    stream, memory = inputs
    kept = transformer.start(memory, stream.shape[1])
    one_by_one = [transformer.next(stream[:, i : i + 1], kept, i) for i in range(stream.shape[1])]
    torch.testing.assert_close(torch.cat(one_by_one, dim=1), transformer(stream, memory))


def test_recomputing_changes_neither_values_nor_gradients(inputs: tuple[Tensor, Tensor]) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        transformer = Transformer(8, 2, 2, 0.3, recompute=recompute).double()  # dropout: drawn again, the same
        torch.manual_seed(1)
        output = transformer(*inputs)
        output.square().sum().backward()
        gradients.append([output.detach(), *(parameter.grad for parameter in transformer.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    block = Transformer(64, 4, 4, 0.1).blocks[1]
    gain = 12**-0.5
    bound = math.sqrt(6 / 128)
    assert float(block.self_attention.to_queries.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(block.cross_attention.project.weight.detach().abs().max()) == pytest.approx(gain * bound, rel=0.01)
    widen, _, narrow, _ = block.feed_forward
    assert float(widen.weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / 64), rel=0.01)
    assert float(narrow.weight.detach().abs().max()) == pytest.approx(gain * math.sqrt(6 / 320), rel=0.01)
    assert not widen.bias.any()
    assert not narrow.bias.any()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 4"):
        Transformer(10, 1, 4, 0.0)
