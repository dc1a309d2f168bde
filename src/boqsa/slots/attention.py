"""One step of slot attention: slots compete for tokens, take a weighted mean, and update themselves.

Follows Locatello et al. 2020 with the constants that produced the numbers of the BO-QSA paper (spec 1.3, 1.4).
Choices that differ from other packages:
- epsilon = 1 is added to a slot's *total* attention, so a slot that owns little is pulled towards zero;
  `epsilon=1e-8, epsilon_form="entry"` is the original form.
- drop-path 0.2 on the residual MLP (not in the paper's text). Its random numbers come from the caller.
- the step runs in the dtype of its parameters, outside autocast: the softmax over slots, the sum with epsilon, the
  LayerNorms and the GRU are where low precision hurts.

Shapes: B batch, N tokens, C token size, K slots, D slot size, M hidden size of the MLP.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

EpsilonForm = Literal["sum", "entry"]
InitialWeights = Literal["published", "torch"]
KeysAndValues = Literal["projected", "folded"]

_GROUP = 256
"""Folded tokens that are multiplied at a time: with few slots, one product over all of them waits for memory."""


class KeysValues(NamedTuple):
    """What a step needs of the tokens; computed once, used by every step."""

    keys: Float[Tensor, "B N D"]
    values: Float[Tensor, "B N D"]


class FoldedTokens(NamedTuple):
    """The same where keys and values are never made: the normalised tokens, which stand for both."""

    tokens: Float[Tensor, "B N C"]


class SlotAttention(nn.Module):
    """`slots, attention = SlotAttention(64, 128)(tokens, slots)`: one step, to be repeated by `refine`.

    Args:
        slot_size: D, width of a slot.
        mlp_size: M, hidden width of the residual MLP after the GRU.
        token_size: C, width of a token; None means `slot_size`.
        epsilon: Added when attention is normalised over tokens, >= 0.
        epsilon_form: "sum": A / (sum of A + epsilon). "entry": (A + epsilon) / sum of (A + epsilon).
        drop_path: Probability, in [0, 1), that a sample skips the residual MLP in training.
        initial_weights: "published" (Xavier, Kaiming, orthogonal, zero biases; spec 1.4) or "torch" (PyTorch's own).
        keys_and_values: "projected": tokens are mapped to keys and values, once. "folded": both maps are linear, so
            the slots' side can carry them: q (x W_k)' = (q W_k') x' and A (x W_v) = (A x) W_v. Equal up to rounding,
            with K instead of N vectors to map and no N x D keys and values in memory; at 16,384 tokens this decides.

    Raises:
        ValueError: if an argument is outside its range; the message names it.
    """

    def __init__(
        self,
        slot_size: int,
        mlp_size: int,
        *,
        token_size: int | None = None,
        epsilon: float = 1.0,
        epsilon_form: EpsilonForm = "sum",
        drop_path: float = 0.2,
        initial_weights: InitialWeights = "published",
        keys_and_values: KeysAndValues = "projected",
    ) -> None:
        super().__init__()
        _require(slot_size >= 1 and mlp_size >= 1, f"slot_size {slot_size} and mlp_size {mlp_size} must be positive.")
        _require(epsilon >= 0, f"epsilon is {epsilon}; it must not be negative.")
        _require(0 <= drop_path < 1, f"drop_path is {drop_path}; it is a probability in [0, 1).")
        _require(epsilon_form in get_args(EpsilonForm), f"epsilon_form is {epsilon_form!r}; pass 'sum' or 'entry'.")
        _require(
            initial_weights in get_args(InitialWeights),
            f"initial_weights is {initial_weights!r}; pass 'published' or 'torch'.",
        )
        _require(
            keys_and_values in get_args(KeysAndValues),
            f"keys_and_values is {keys_and_values!r}; pass 'projected' or 'folded'.",
        )
        self.slot_size = slot_size
        self.token_size = slot_size if token_size is None else token_size
        self.epsilon = epsilon
        self.epsilon_form = epsilon_form
        self.drop_path = drop_path
        self.keys_and_values = keys_and_values

        self.norm_tokens = nn.LayerNorm(self.token_size)
        self.norm_slots = nn.LayerNorm(slot_size)
        self.norm_mlp = nn.LayerNorm(slot_size)
        self.to_keys = nn.Linear(self.token_size, slot_size, bias=False)
        self.to_values = nn.Linear(self.token_size, slot_size, bias=False)
        self.to_queries = nn.Linear(slot_size, slot_size, bias=False)
        self.gru = nn.GRUCell(slot_size, slot_size)
        widen, narrow = nn.Linear(slot_size, mlp_size), nn.Linear(mlp_size, slot_size)
        self.mlp = nn.Sequential(widen, nn.ReLU(), narrow)
        if initial_weights == "published":
            self._initialise_as_published(widen, narrow)

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        slots: Float[Tensor, "B K D"],
        drop_path: Float[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """One step on raw tokens. To run several on the same tokens, `prepare` once and call `step`."""
        return self.step(self.prepare(tokens), slots, drop_path)

    def prepare(self, tokens: Float[Tensor, "B N C"]) -> KeysValues | FoldedTokens:
        """Normalise the tokens and, unless folded, project them to keys and values.

        Raises:
            ValueError: if `tokens` is not (batch, tokens, token_size).
        """
        _require(
            tokens.dim() == 3 and tokens.shape[-1] == self.token_size,
            f"tokens have shape {tuple(tokens.shape)}; expected (batch, tokens, {self.token_size}).",
        )
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = self.norm_tokens(tokens.to(self.to_keys.weight.dtype))
            if self.keys_and_values == "folded":
                return FoldedTokens(tokens)
            return KeysValues(self.to_keys(tokens), self.to_values(tokens))

    def step(
        self,
        prepared: KeysValues | FoldedTokens,
        slots: Float[Tensor, "B K D"],
        drop_path: Float[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """Let slots compete for the tokens once.

        Args:
            prepared: From `prepare`.
            slots: Current slots.
            drop_path: One uniform number in [0, 1) a sample; in training a sample keeps the residual MLP where it is
                at least the drop-path probability. None turns drop-path off. Random numbers are passed in, so that
                recomputation, compilation and other ranks see the same ones.

        Returns:
            The new slots, and the attention: softmax over slots, before it is normalised over tokens.

        Raises:
            ValueError: if `slots` is not (batch, slots, slot_size).
        """
        _require(
            slots.dim() == 3 and slots.shape[-1] == self.slot_size,
            f"slots have shape {tuple(slots.shape)}; expected (batch, slots, {self.slot_size}).",
        )
        with torch.autocast(slots.device.type, enabled=False):
            slots = slots.to(self.to_keys.weight.dtype)
            queries = self.to_queries(self.norm_slots(slots))
            if isinstance(prepared, FoldedTokens):
                tokens = _in_groups(prepared.tokens)
                logits = _match(queries @ self.to_keys.weight, tokens) / math.sqrt(self.slot_size)  # (B, K, N)
                attention = logits.softmax(dim=1)
                updates = self.to_values(_gather(self._weights(attention), tokens))  # (B, K, D)
            else:
                logits = queries @ prepared.keys.mT / math.sqrt(self.slot_size)  # (B, K, N)
                attention = logits.softmax(dim=1)
                updates = self._weights(attention) @ prepared.values  # (B, K, D)

            # The hidden state is the slot before its LayerNorm; nn.GRUCell wants (samples, size).
            hidden = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            return hidden + self._keep(self.mlp(self.norm_mlp(hidden)), drop_path), attention

    def _weights(self, attention: Float[Tensor, "B K N"]) -> Float[Tensor, "B K N"]:
        if self.epsilon_form == "entry":
            attention = attention + self.epsilon
            return attention / attention.sum(dim=-1, keepdim=True)
        return attention / (attention.sum(dim=-1, keepdim=True) + self.epsilon)

    def _keep(self, branch: Float[Tensor, "B K D"], drop_path: Float[Tensor, "B"] | None) -> Float[Tensor, "B K D"]:
        if drop_path is None or not self.training or self.drop_path == 0:
            return branch
        kept = (drop_path >= self.drop_path).to(branch.dtype) / (1 - self.drop_path)
        return branch * kept[:, None, None]

    def _initialise_as_published(self, widen: nn.Linear, narrow: nn.Linear) -> None:
        for projection in (self.to_keys, self.to_values, self.to_queries, narrow):
            nn.init.xavier_uniform_(projection.weight)
        nn.init.kaiming_uniform_(widen.weight, nonlinearity="relu")
        nn.init.zeros_(widen.bias)
        nn.init.zeros_(narrow.bias)
        nn.init.xavier_uniform_(self.gru.weight_ih)
        nn.init.orthogonal_(self.gru.weight_hh)
        nn.init.zeros_(self.gru.bias_ih)
        nn.init.zeros_(self.gru.bias_hh)


def _in_groups(tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B n G C"]:
    """Groups of tokens; all of them in one where they do not divide."""
    batch, count, size = tokens.shape
    return tokens.reshape(batch, -1, count if count % _GROUP else _GROUP, size)


def _match(queries: Float[Tensor, "B K C"], tokens: Float[Tensor, "B n G C"]) -> Float[Tensor, "B K N"]:
    """Every query times every token."""
    return (queries[:, None] @ tokens.mT).transpose(1, 2).flatten(2)


def _gather(weights: Float[Tensor, "B K N"], tokens: Float[Tensor, "B n G C"]) -> Float[Tensor, "B K C"]:
    """The weighted sum of the tokens."""
    batch, groups, size, _ = tokens.shape
    in_groups = weights.view(batch, -1, groups, size).transpose(1, 2)  # (B, n, K, G)
    gathered: Tensor = (in_groups @ tokens).sum(dim=1)
    return gathered


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
