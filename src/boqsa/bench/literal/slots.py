"""Slot attention as the paper's Algorithm 1 reads, with the graph through all steps (spec 1.2 to 1.7)."""

import math

import torch
from torch import Tensor

from boqsa.layers.slot_encoder import SlotEncoder
from boqsa.models import Noise
from boqsa.slots import LearnedQueries


def literal_slots(part: SlotEncoder, tokens: Tensor, *, sigma: float, noise: Noise | None) -> Tensor:
    """The final slots (B, K, D) of tokens (B, N, C); `noise` as in `LiteralStep.losses`."""
    attend = part.slot_attention
    inputs = attend.norm_tokens(part.feature_mlp(tokens))  # (B, N, D)
    keys, values = attend.to_keys(inputs), attend.to_values(inputs)
    initial = _initial_slots(part, len(tokens), sigma, noise)
    slots = initial
    for number in range(part.iterations):
        if number == part.iterations - 1 and part.gradient != "unrolled":
            slots = slots.detach()
            if part.gradient == "bilevel":
                slots = slots + initial - initial.detach()
        queries = attend.to_queries(attend.norm_slots(slots))
        logits = queries @ keys.transpose(1, 2) * attend.slot_size**-0.5  # (B, K, N)
        attention = logits.softmax(dim=1)
        if attend.epsilon_form == "entry":
            attention = attention + attend.epsilon
            weights = attention / attention.sum(dim=-1, keepdim=True)
        else:
            weights = attention / (attention.sum(dim=-1, keepdim=True) + attend.epsilon)
        updates = weights @ values  # (B, K, D)
        slots = attend.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        added = attend.mlp(attend.norm_mlp(slots))
        if attend.training and attend.drop_path > 0:
            added = _drop_path(added, attend.drop_path, number, noise)
        slots = slots + added
    return slots


def _initial_slots(part: SlotEncoder, batch: int, sigma: float, noise: Noise | None) -> Tensor:
    queries = part.queries
    normal = noise.queries if noise is not None else None
    if noise is None:
        device = next(part.parameters()).device
        normal = torch.randn(batch, queries.num_slots, queries.slot_size, device=device)
    if not isinstance(queries, LearnedQueries):
        assert normal is not None
        return queries.mu + queries.log_sigma.exp() * normal
    initial = queries.weight.expand(batch, -1, -1)  # (B, K, D)
    if normal is None:
        return initial
    normal = normal.to(initial.dtype)
    if queries.perturbation == "additive":
        return initial + math.sqrt(sigma) * normal
    return initial + sigma * normal * initial.detach()


def _drop_path(added: Tensor, probability: float, number: int, noise: Noise | None) -> Tensor:
    """(B, K, D) with that of some samples 0."""
    if noise is None:
        draws = torch.rand(len(added), device=added.device)
    elif noise.drop_path is None:
        return added
    else:
        draws = noise.drop_path[:, number]
    kept = (draws >= probability).to(added.dtype)
    return added * kept[:, None, None] / (1 - probability)
