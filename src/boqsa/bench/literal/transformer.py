"""The losses of the transformer model and of SLATE as the published algorithm reads (spec 3.4 to 3.7)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from boqsa.bench.literal.layers import add_position, run_layers
from boqsa.bench.literal.slots import literal_slots
from boqsa.layers.position import PositionEmbedding
from boqsa.layers.transformer import Attention, Block
from boqsa.models import Noise, TransformerModel


class LiteralTransformer:
    """Takes the weights of a model; `losses` is its forward pass, written out.

    Args:
        model: The model, whose training flag says whether anything is dropped.
        probability: Of dropout.
    """

    def __init__(self, model: TransformerModel, probability: float) -> None:
        self.model = model
        self.probability = probability
        length = model.token_grid**2
        self.hidden = torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)
        self.hidden = self.hidden.to(next(model.parameters()).device)

    def losses(self, image: Tensor, *, sigma: float, tau: float, noise: Noise | None) -> dict[str, Tensor]:
        """Both losses of uint8 images (B, 3, H, W); arguments as for `LiteralStep.losses`."""
        model = self.model
        target = image.to(model.token_decoder.positions.dtype) / 255
        batch = len(target)

        log_probs = run_layers(model.dvae.encoder, target).log_softmax(dim=1)  # (B, V, h, w)
        soft = _gumbel_softmax(log_probs, tau, noise.gumbel_soft if noise else None, draw=noise is None)
        reconstruction = run_layers(model.dvae.decoder, soft)
        dvae_loss = ((target - reconstruction) ** 2).sum() / batch
        with torch.no_grad():
            sample = _gumbel_softmax(log_probs, tau, noise.gumbel_hard if noise else None, draw=noise is None)
            hard = torch.zeros_like(sample).scatter_(1, sample.argmax(dim=1, keepdim=True), 1.0)
            codes = hard.permute(0, 2, 3, 1).flatten(1, 2)  # (B, L, V)
            # One class more for the begin-of-sequence symbol, and one position more that holds it.
            sequence = torch.cat([torch.zeros_like(codes[..., :1]), codes], dim=-1)
            begin = torch.zeros_like(sequence[:, :1])
            begin[..., 0] = 1
            sequence = torch.cat([begin, sequence], dim=1)  # (B, 1 + L, V + 1)
        decoder = model.token_decoder
        embedded = self._dropout(decoder.dictionary(sequence.argmax(dim=-1)) + decoder.positions)

        slots = literal_slots(model.slot_encoder, self._tokens(target, embedded), sigma=sigma, noise=noise)
        stream, memory = embedded[:, :-1], decoder.project_slots(slots)
        for block in decoder.transformer.blocks:
            assert isinstance(block, Block)
            stream = self._run_block(block, stream, memory)
        logits = decoder.head(decoder.transformer.norm(stream))  # (B, L, V)
        cross_entropy = -(codes * logits.log_softmax(dim=-1)).flatten(1).sum(dim=1).mean()
        return {"dvae": dvae_loss, "cross_entropy": cross_entropy}

    def _tokens(self, image: Tensor, embedded: Tensor) -> Tensor:
        """What slots attend to (B, N, C): features of the image, or in SLATE its embedded tokens."""
        model = self.model
        if model.encoder is None:
            return embedded[:, 1:]
        assert isinstance(model.encoder_position, PositionEmbedding)
        features = add_position(run_layers(model.encoder.children(), image), model.encoder_position)
        return features.permute(0, 2, 3, 1).flatten(1, 2)

    def _run_block(self, block: Block, stream: Tensor, memory: Tensor) -> Tensor:
        """A pre-norm block; in the first one the stream itself is normalised (spec 3.7)."""
        normalised = block.norm_self(stream)
        added = self._attend(block.self_attention, normalised, normalised, self.hidden)
        stream = (normalised if block.is_first else stream) + added
        stream = stream + self._attend(block.cross_attention, block.norm_cross(stream), memory, None)
        widen, _, narrow, _ = block.feed_forward
        assert isinstance(widen, nn.Linear)
        assert isinstance(narrow, nn.Linear)
        hidden = linear(block.norm_feed_forward(stream), widen.weight, widen.bias).relu()
        return stream + self._dropout(linear(hidden, narrow.weight, narrow.bias))

    def _attend(self, attention: Attention, inputs: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
        """Multi-head attention, written out."""
        batch, length, width = inputs.shape
        of_a_head = width // attention.heads
        queries = attention.to_queries(inputs).view(batch, length, attention.heads, of_a_head).transpose(1, 2)
        keys = attention.to_keys(memory).view(batch, -1, attention.heads, of_a_head).transpose(1, 2)
        values = attention.to_values(memory).view(batch, -1, attention.heads, of_a_head).transpose(1, 2)
        weights = queries * of_a_head**-0.5 @ keys.transpose(-1, -2)  # (B, G, L, M)
        if hidden is not None:
            weights = weights.masked_fill(hidden, float("-inf"))
        weights = self._dropout(weights.softmax(dim=-1))
        taken = (weights @ values).transpose(1, 2).reshape(batch, length, width)
        return self._dropout(attention.project(taken))

    def _dropout(self, numbers: Tensor) -> Tensor:
        return dropout(numbers, self.probability, self.model.training)


def _gumbel_softmax(log_probs: Tensor, tau: float, gumbel: Tensor | None, *, draw: bool) -> Tensor:
    """A softmax of noisy log-probabilities over `tau`; (B, V, h, w) in and out."""
    if draw:
        gumbel = -(torch.empty_like(log_probs).exponential_() + torch.finfo(log_probs.dtype).tiny).log()
    return ((log_probs if gumbel is None else log_probs + gumbel) / tau).softmax(dim=1)
