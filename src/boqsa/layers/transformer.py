"""A causal transformer over slots: pre-norm blocks of self-attention, cross-attention and feed-forward (spec 3.7).

Two ways to run it give the same numbers: all positions at once (`forward`), or one after the other with the keys and
values of earlier positions kept (`start` and `next`), which is how a sequence is generated.

Shapes: B batch, L positions, M positions of the memory (the slots), d width, G heads, e = d/G width of a head.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from boqsa.layers.dropout import Dropout, attention_with_dropout


class Attention(nn.Module):
    """Multi-head attention without biases; fused, and with dropout on a CPU in strips."""

    def __init__(self, width: int, heads: int, dropout: float, gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys = nn.Linear(width, width, bias=False)
        self.to_values = nn.Linear(width, width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        for projection in (self.to_queries, self.to_keys, self.to_values):
            nn.init.xavier_uniform_(projection.weight)
        nn.init.xavier_uniform_(self.project.weight, gain=gain)

    def keys_values(self, memory: Float[Tensor, "B M d"]) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, M, e) of what is attended to."""
        return self._by_head(self.to_keys(memory)), self._by_head(self.to_values(memory))

    def forward(
        self, inputs: Float[Tensor, "B L d"], keys: Tensor, values: Tensor, *, causal: bool = False
    ) -> Float[Tensor, "B L d"]:
        """What each input takes from the values; `causal` hides the positions after it."""
        taken = attention_with_dropout(
            self._by_head(self.to_queries(inputs)),
            keys,
            values,
            probability=self.dropout.probability if self.training else 0.0,
            causal=causal,
        )  # (B, G, L, e)
        dropped: Tensor = self.dropout(self.project(taken.transpose(1, 2).flatten(2)))
        return dropped

    def weights(self, inputs: Float[Tensor, "B L d"], keys: Float[Tensor, "B G M e"]) -> Float[Tensor, "B L M"]:
        """How much each input takes from each of the values, mean over heads; sums to 1 over the values."""
        queries = self._by_head(self.to_queries(inputs))
        logits = queries @ keys.mT / queries.shape[-1] ** 0.5  # (B, G, L, M)
        weights: Tensor = logits.softmax(dim=-1).mean(dim=1)
        return weights

    def _by_head(self, vectors: Float[Tensor, "B M d"]) -> Float[Tensor, "B G M e"]:
        batch, count, width = vectors.shape
        return vectors.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


@dataclass
class Kept:
    """What a block keeps between positions: its own keys and values so far, and those of the memory."""

    keys: Float[Tensor, "B G L e"]
    values: Float[Tensor, "B G L e"]
    memory_keys: Float[Tensor, "B G M e"]
    memory_values: Float[Tensor, "B G M e"]


class Block(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each added to the residual stream.

    In the first block of the published model the stream itself is replaced by its normalised self before anything is
    added to it (spec 3.7, "quirk").
    """

    def __init__(self, width: int, heads: int, dropout: float, gain: float, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, dropout, gain)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads, dropout, gain)
        self.norm_feed_forward = nn.LayerNorm(width)
        widen, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.feed_forward = nn.Sequential(widen, nn.ReLU(inplace=True), narrow, Dropout(dropout))
        nn.init.kaiming_uniform_(widen.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(narrow.weight, gain=gain)
        nn.init.zeros_(widen.bias)
        nn.init.zeros_(narrow.bias)

    def forward(self, stream: Float[Tensor, "B L d"], memory: Float[Tensor, "B M d"]) -> Float[Tensor, "B L d"]:
        """All positions at once; none sees those after it."""
        return self._rest(self._with_own(stream), *self.cross_attention.keys_values(memory))

    def with_weights(
        self, stream: Float[Tensor, "B L d"], memory: Float[Tensor, "B M d"]
    ) -> tuple[Float[Tensor, "B L d"], Float[Tensor, "B L M"]]:
        """As `forward`, and what each position took from the memory, mean over heads."""
        stream = self._with_own(stream)
        keys, values = self.cross_attention.keys_values(memory)
        weights = self.cross_attention.weights(self.norm_cross(stream), keys)
        return self._rest(stream, keys, values), weights

    def start(self, memory: Float[Tensor, "B M d"], length: int) -> Kept:
        """Room for `length` positions, and the memory's keys and values."""
        memory_keys, memory_values = self.cross_attention.keys_values(memory)
        batch, heads, _, width = memory_keys.shape
        room = memory_keys.new_empty(2, batch, heads, length, width)
        return Kept(room[0], room[1], memory_keys, memory_values)

    def next(self, stream: Float[Tensor, "B 1 d"], kept: Kept, position: int) -> Float[Tensor, "B 1 d"]:
        """One position, which sees itself and those before it."""
        normalised = self.norm_self(stream)
        keys, values = self.self_attention.keys_values(normalised)
        kept.keys[:, :, position : position + 1] = keys
        kept.values[:, :, position : position + 1] = values
        own = self.self_attention(
            normalised, kept.keys[:, :, : position + 1], kept.values[:, :, : position + 1], causal=False
        )
        stream = (normalised if self.is_first else stream) + own
        return self._rest(stream, kept.memory_keys, kept.memory_values)

    def _with_own(self, stream: Float[Tensor, "B L d"]) -> Float[Tensor, "B L d"]:
        """The stream after self-attention."""
        normalised = self.norm_self(stream)
        own = self.self_attention(normalised, *self.self_attention.keys_values(normalised), causal=True)
        begun: Tensor = (normalised if self.is_first else stream) + own
        return begun

    def _rest(
        self, stream: Float[Tensor, "B L d"], memory_keys: Tensor, memory_values: Tensor
    ) -> Float[Tensor, "B L d"]:
        """The stream after cross-attention and feed-forward, from that after self-attention."""
        stream = stream + self.cross_attention(self.norm_cross(stream), memory_keys, memory_values)
        added: Tensor = self.feed_forward(self.norm_feed_forward(stream))
        return stream + added


class Transformer(nn.Module):
    """Blocks and a final LayerNorm.

    Args:
        width: d.
        blocks: How many.
        heads: Of each attention; they divide the width.
        dropout: In [0, 1): on attention weights, after each output projection and after the feed-forward. Drawn from
            torch's own random stream.
        recompute: Compute each block again in the backward pass instead of keeping its activations.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, width: int, blocks: int, heads: int, dropout: float, *, recompute: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}; change one of them.")
        gain = (3 * blocks) ** -0.5
        self.recompute = recompute
        self.blocks = nn.ModuleList(
            Block(width, heads, dropout, gain, is_first=number == 0) for number in range(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Float[Tensor, "B L d"], memory: Float[Tensor, "B M d"]) -> Float[Tensor, "B L d"]:
        """All positions at once; none sees those after it."""
        stream = inputs
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                stream = checkpoint(block, stream, memory, use_reentrant=False)
            else:
                stream = block(stream, memory)
        normalised: Tensor = self.norm(stream)
        return normalised

    def with_weights(
        self, inputs: Float[Tensor, "B L d"], memory: Float[Tensor, "B M d"]
    ) -> tuple[Float[Tensor, "B L d"], Float[Tensor, "B L M"]]:
        """As `forward`, and what each position took from the memory in the last block, mean over heads."""
        stream = inputs
        *first, last = self.blocks
        for block in first:
            stream = block(stream, memory)
        assert isinstance(last, Block)
        stream, weights = last.with_weights(stream, memory)
        return self.norm(stream), weights

    def start(self, memory: Float[Tensor, "B M d"], length: int) -> list[Kept]:
        """What `next` needs, for a sequence of up to `length` positions."""
        return [block.start(memory, length) for block in self.blocks]  # type: ignore[operator]  # a list of Block

    def next(self, inputs: Float[Tensor, "B 1 d"], kept: list[Kept], position: int) -> Float[Tensor, "B 1 d"]:
        """The position after those that `kept` has seen; `position` counts from 0."""
        stream = inputs
        for block, of_block in zip(self.blocks, kept, strict=True):
            stream = block.next(stream, of_block, position)  # type: ignore[operator]  # a list of Block
        normalised: Tensor = self.norm(stream)
        return normalised
