"""A literal training step of the transformer model: the published algorithm as it reads, in eager PyTorch and fp32.

The reference of `transformer_step.py`. It takes the weights of a `TransformerModel`, whose convolutions, norms and
linear layers it calls, and writes out everything that the package does in another way (spec 1.3, 1.6, 3.4 to 3.7):
- the graph goes through all slot-attention steps, and the early ones are then cut off;
- tokens are mapped to keys and values before the steps;
- causal attention is a product, a mask, a softmax over (B, G, L, L), a dropout and a product;
- both Gumbel-softmax samples are whole (B, V, h, w) softmaxes; the hard one goes on as one-hot codes, whose arg max is
  looked up, and the cross-entropy multiplies log-probabilities with them;
- the memory layout is contiguous, and Adam is neither fused nor vectorised over parameters.
"""

import torch
from torch import Tensor, nn

from boqsa.layers.transformer import Attention, Block
from boqsa.models import Noise, TransformerModel
from boqsa.recipes import Recipe


class LiteralStep:
    """`losses = LiteralStep(model, recipe).step(image)`: forward, backward, clipping, Adam.

    Args:
        model: Whose weights are trained.
        recipe: Its recipe: learning rates, clipping, and sigma and tau of the first step, which are 1.
    """

    def __init__(self, model: TransformerModel, recipe: Recipe) -> None:
        self.model = model
        self.clip_norm = recipe.train.clip_norm
        dvae = list(model.dvae.parameters())
        rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("dvae.")]
        self.optimizer = torch.optim.Adam(
            [
                {"params": dvae, "lr": recipe.train.dvae.learning_rate},
                {"params": rest, "lr": recipe.train.learning_rate},
            ],
            foreach=False,
        )

    def step(self, image: Tensor) -> dict[str, Tensor]:
        """One optimiser step on uint8 images (B, 3, H, W)."""
        self.optimizer.zero_grad()
        losses = self.losses(image, sigma=1.0, tau=1.0)
        (losses["dvae"] + losses["cross_entropy"]).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return losses

    def losses(
        self, image: Tensor, *, sigma: float, tau: float, noise: Noise | None = None, draw: bool = True
    ) -> dict[str, Tensor]:
        """Both losses. Random numbers are drawn here unless `noise` holds them or `draw` is False."""
        model, noise = self.model, noise or Noise()
        target = image.float() / 255
        batch = len(target)

        log_probs = model.dvae.encoder(target).log_softmax(dim=1)  # (B, V, h, w)
        soft = gumbel_softmax(log_probs, tau, noise.gumbel_soft, draw=draw)
        reconstruction = model.dvae.decoder(soft)
        dvae_loss = ((target - reconstruction) ** 2).sum() / batch
        with torch.no_grad():
            sample = gumbel_softmax(log_probs, tau, noise.gumbel_hard, draw=draw)
            hard = torch.zeros_like(sample).scatter_(1, sample.argmax(dim=1, keepdim=True), 1.0)
            codes = hard.permute(0, 2, 3, 1).flatten(1, 2)  # (B, L, V)
            # One class more for the begin-of-sequence symbol, and one position more that holds it.
            sequence = torch.cat([torch.zeros_like(codes[..., :1]), codes], dim=-1)
            begin = torch.zeros_like(sequence[:, :1])
            begin[..., 0] = 1
            sequence = torch.cat([begin, sequence], dim=1)  # (B, 1 + L, V + 1)
        decoder = model.token_decoder
        embedded = decoder.dropout(decoder.dictionary(sequence.argmax(dim=-1)) + decoder.positions)

        slots = self.slots(target, sigma, noise, draw=draw)
        stream, memory = embedded[:, :-1], decoder.project_slots(slots)
        for block in decoder.transformer.blocks:
            stream = run_block(block, stream, memory)
        logits = decoder.head(decoder.transformer.norm(stream))  # (B, L, V)
        cross_entropy = -(codes * logits.log_softmax(dim=-1)).flatten(1).sum(dim=1).mean()
        return {"dvae": dvae_loss, "cross_entropy": cross_entropy}

    def slots(self, image: Tensor, sigma: float, noise: Noise, *, draw: bool) -> Tensor:
        """The final slots (B, K, D)."""
        model, part = self.model, self.model.slot_encoder
        attend = part.slot_attention
        features = model.encoder(image).permute(0, 2, 3, 1)  # (B, H, W, C)
        features = features + model.encoder_position.project(model.encoder_position.grid)
        tokens = attend.norm_tokens(part.feature_mlp(features.flatten(1, 2)))  # (B, N, D)
        keys, values = attend.to_keys(tokens), attend.to_values(tokens)

        initial = part.queries.weight.expand(len(image), -1, -1)  # (B, K, D)
        normal = noise.queries if noise.queries is not None or not draw else torch.randn_like(initial)
        if normal is not None:
            initial = initial + sigma * normal * initial.detach()
        slots = initial
        for number in range(part.iterations):
            if number == part.iterations - 1:
                slots = slots.detach() + initial - initial.detach()
            queries = attend.to_queries(attend.norm_slots(slots))
            attention = (queries @ keys.transpose(1, 2) * attend.slot_size**-0.5).softmax(dim=1)  # (B, K, N)
            updates = attention / (attention.sum(dim=-1, keepdim=True) + attend.epsilon) @ values
            slots = attend.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            added = attend.mlp(attend.norm_mlp(slots))
            if model.training:
                kept = (torch.rand(len(slots), 1, 1) >= attend.drop_path).to(added.dtype)
                added = added * kept / (1 - attend.drop_path)
            slots = slots + added
        return slots


def gumbel_softmax(log_probs: Tensor, tau: float, gumbel: Tensor | None, *, draw: bool) -> Tensor:
    """A softmax of noisy log-probabilities over `tau`; (B, V, h, w) in and out."""
    if gumbel is None and draw:
        gumbel = -(torch.empty_like(log_probs).exponential_() + torch.finfo(log_probs.dtype).tiny).log()
    return ((log_probs if gumbel is None else log_probs + gumbel) / tau).softmax(dim=1)


def run_block(block: Block, stream: Tensor, memory: Tensor) -> Tensor:
    """A pre-norm block; in the first one the stream itself is normalised (spec 3.7)."""
    normalised = block.norm_self(stream)
    length = stream.shape[1]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)
    stream = (normalised if block.is_first else stream) + run_attention(
        block.self_attention, normalised, normalised, hidden
    )
    stream = stream + run_attention(block.cross_attention, block.norm_cross(stream), memory, None)
    return stream + block.feed_forward(block.norm_feed_forward(stream))


def run_attention(attention: Attention, inputs: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
    """Multi-head attention, written out."""
    batch, length, width = inputs.shape
    of_a_head = width // attention.heads
    queries = attention.to_queries(inputs).view(batch, length, attention.heads, of_a_head).transpose(1, 2)
    keys = attention.to_keys(memory).view(batch, -1, attention.heads, of_a_head).transpose(1, 2)
    values = attention.to_values(memory).view(batch, -1, attention.heads, of_a_head).transpose(1, 2)
    weights = queries * of_a_head**-0.5 @ keys.transpose(-1, -2)  # (B, G, L, M)
    if hidden is not None:
        weights = weights.masked_fill(hidden, float("-inf"))
    weights = nn.functional.dropout(weights.softmax(dim=-1), attention.dropout, attention.training)
    taken = (weights @ values).transpose(1, 2).reshape(batch, length, width)
    return nn.functional.dropout(attention.project(taken), attention.dropout, attention.training)
