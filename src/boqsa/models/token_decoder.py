"""From slots to the tokens of an image, one after the other: embedding, transformer, next-token logits (spec 3.6, 3.7).

In training the true tokens come in, shifted by one, and all positions are predicted at once. `generate` has nothing but
the slots: it feeds each predicted token back, which is the only way in which slots alone make an image.

Shapes: B batch, K slots, D slot size, L tokens of an image (row-major), S = 1 + L with the begin-of-sequence symbol,
V vocabulary, d width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.layers.dropout import Dropout
from boqsa.layers.transformer import Transformer


class TokenDecoder(nn.Module):
    """`logits = decoder(decoder.embed(tokens), slots)` and `tokens = decoder.generate(slots)`.

    Args:
        vocab_size: V.
        length: L.
        slot_size: D.
        width: d.
        blocks, heads, dropout, recompute: As in `Transformer`.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        slot_size: int,
        *,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.length = length
        self.dictionary = nn.Embedding(vocab_size + 1, width)  # row 0 begins every sequence; token v is row v + 1
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1 + length, width)))
        self.dropout = Dropout(dropout)
        self.project_slots = nn.Linear(slot_size, width, bias=False)
        self.transformer = Transformer(width, blocks, heads, dropout, recompute=recompute)
        self.head = nn.Linear(width, vocab_size, bias=False)
        nn.init.xavier_uniform_(self.project_slots.weight)
        nn.init.xavier_uniform_(self.head.weight)

    def embed(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B S d"]:
        """The begin-of-sequence symbol and all tokens, embedded with their positions."""
        sequence = nn.functional.pad(tokens + 1, (1, 0))
        embedded: Tensor = self.dropout(self.dictionary(sequence) + self.positions)
        return embedded

    def forward(self, embedded: Float[Tensor, "B S d"], slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B L V"]:
        """Logits of every token, given the slots and the tokens before it."""
        logits: Tensor = self.head(self.transformer(embedded[:, :-1], self.project_slots(slots)))
        return logits

    @torch.no_grad()
    def generate(
        self,
        slots: Float[Tensor, "B K D"],
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Int[Tensor, "B L"]:
        """The tokens that the slots stand for. Call it in eval mode: dropout would disturb it.

        Args:
            slots: Of each image.
            temperature: 0 takes the most probable token at each position; above 0 tokens are drawn from the
                distribution with its logits divided by it.
            generator: Of the draws; None means torch's own random stream.
            cached: Keep the keys and values of earlier positions. False computes every prefix anew: the same tokens,
                for L(L + 1)/2 instead of L positions; it is there to be checked against.

        Raises:
            ValueError: if the temperature is negative.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}; pass 0 for the most probable tokens, or above 0 to draw.")
        memory = self.project_slots(slots)
        kept = self.transformer.start(memory, self.length)
        sequence = slots.new_zeros((len(slots), 1 + self.length), dtype=torch.long)
        for position in range(self.length):
            first = position if cached else 0
            inputs = self.dictionary(sequence[:, first : position + 1]) + self.positions[:, first : position + 1]
            features = self.transformer.next(inputs, kept, position) if cached else self.transformer(inputs, memory)
            logits = self.head(features[:, -1])  # (B, V)
            sequence[:, position + 1] = _choose(logits, temperature, generator) + 1
        return sequence[:, 1:] - 1


def _choose(logits: Float[Tensor, "B V"], temperature: float, generator: torch.Generator | None) -> Int[Tensor, "B"]:
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
