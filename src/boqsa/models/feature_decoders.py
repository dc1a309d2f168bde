"""From slots back to the features of every patch, in two ways, and which slot each patch is from (baselines 7.1, 7.2).

- `MLPFeatureDecoder` (DINOSAUR): each slot answers for every patch, and a softmax over slots says whose answer counts.
- `AutoregressiveFeatureDecoder` (SPOT): a causal transformer foretells the features of a patch from those before it and
  from the slots; its cross-attention says which slot it asked. In training the order is one of nine, so that the
  patches before are not always the same neighbours and cannot stand in for the slots.

Shapes: B batch, K slots, N patches of the grid, D slot size, F feature size.
"""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boqsa.layers.transformer import Transformer

ORDERS = 9
"""Ways to walk over the grid: rows or columns, each from every corner, and a spiral from the middle."""


class MLPFeatureDecoder(nn.Module):
    """Slot and position of a patch, added, to its features and to how much the slot claims it.

    Args:
        patches: N.
        slot_size: D.
        feature_size: F.
        hidden_size: Width of each hidden layer.
        layers: Number of hidden layers, at least 1.
    """

    def __init__(self, patches: int, slot_size: int, feature_size: int, *, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(patches, slot_size))
        nn.init.normal_(self.positions, std=0.02)
        sizes = [slot_size, *[hidden_size] * layers]
        self.hidden = nn.Sequential(
            *(part for size, wider in pairwise(sizes) for part in (nn.Linear(size, wider), nn.ReLU()))
        )
        self.to_features = nn.Linear(hidden_size, feature_size)
        self.to_claim = nn.Linear(hidden_size, 1)

    def forward(self, slots: Float[Tensor, "B K D"]) -> tuple[Float[Tensor, "B N F"], Float[Tensor, "B K N"]]:
        """The features of all patches, and each slot's share of each patch, which sums to 1 over slots."""
        hidden, shares = self._hidden_and_shares(slots)
        # The last layer is linear and shares sum to 1, so the mean of the slots' features is the features of the mean:
        # it is applied to N patches instead of K N.
        mean = torch.einsum("bkn,bknh->bnh", shares.to(hidden.dtype), hidden)
        return self.to_features(mean).to(self.positions.dtype), shares

    def of_each(self, slots: Float[Tensor, "B K D"]) -> tuple[Float[Tensor, "B K N F"], Float[Tensor, "B K N"]]:
        """The features that each slot has for all patches, and its share of each: `forward` is their weighted sum."""
        hidden, shares = self._hidden_and_shares(slots)
        return self.to_features(hidden).to(self.positions.dtype), shares

    def _hidden_and_shares(self, slots: Float[Tensor, "B K D"]) -> tuple[Tensor, Float[Tensor, "B K N"]]:
        hidden = self.hidden(slots[:, :, None] + self.positions)  # (B, K, N, hidden)
        # The softmax over slots stays in the dtype of the parameters, also under autocast.
        return hidden, self.to_claim(hidden).squeeze(-1).to(self.positions.dtype).softmax(dim=1)


class AutoregressiveFeatureDecoder(nn.Module):
    """A causal transformer over the features of an image, as wide as they are.

    Positions are not told: the features of a pretrained network carry theirs. Each order has its own begin token.

    Args:
        grid: Patches along a side; N is its square.
        slot_size: D.
        feature_size: F, which is the transformer's width.
        blocks: Of the transformer.
        heads: Of each attention; they divide F.
        random_orders: Walk in one of `ORDERS` orders, or row by row alone.

    Raises:
        ValueError: if the heads do not divide F.
    """

    def __init__(
        self, grid: int, slot_size: int, feature_size: int, *, blocks: int, heads: int, random_orders: bool
    ) -> None:
        super().__init__()
        orders = patch_orders(grid) if random_orders else patch_orders(grid)[:1]
        self.orders: Tensor
        self.places: Tensor
        self.register_buffer("orders", orders, persistent=False)
        self.register_buffer("places", orders.argsort(dim=1), persistent=False)
        self.begin = nn.Parameter(torch.empty(len(orders), feature_size))
        nn.init.normal_(self.begin, std=0.02)
        self.project_features = _projection(feature_size, feature_size)
        self.project_slots = _projection(slot_size, feature_size)
        self.transformer = Transformer(feature_size, blocks, heads, dropout=0.0)

    def forward(
        self,
        slots: Float[Tensor, "B K D"],
        features: Float[Tensor, "B N F"],
        patch_order: Float[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B N F"], Float[Tensor, "B K N"]]:
        """The features of each patch given those before it, and each slot's share of each patch.

        Args:
            slots: Of the images.
            features: The true ones: those before a patch are its input.
            patch_order: Uniform in [0, 1), one number an image: which order. None means row by row.
        """
        if patch_order is None:
            order = torch.zeros(len(slots), dtype=torch.long, device=slots.device)
        else:
            order = (patch_order * len(self.orders)).long().clamp(max=len(self.orders) - 1)
        walked = _reordered(features, self.orders[order])
        inputs = torch.cat([self.begin[order][:, None].to(walked.dtype), walked[:, :-1]], dim=1)
        foretold, weights = self.transformer.with_weights(self.project_features(inputs), self.project_slots(slots))
        dtype, places = self.begin.dtype, self.places[order]
        return _reordered(foretold, places).to(dtype), _reordered(weights, places).to(dtype).mT


def patch_orders(grid: int) -> Int[Tensor, "orders N"]:
    """All orders of the patches of a square grid, as indices of its rows one after the other; the first is these rows.

    Args:
        grid: Patches along a side.
    """
    rows = np.arange(grid * grid).reshape(grid, grid)
    walks = [turned for table in (rows, rows.T) for turned in (table, table[:, ::-1], table[::-1], table[::-1, ::-1])]
    return torch.from_numpy(np.stack([*(walk.ravel() for walk in walks), _spiral(rows)]))


def _spiral(rows: Int[np.ndarray, "g g"]) -> Int[np.ndarray, "N"]:
    """From the middle outwards: the rim is peeled off side by side, and what was peeled is read backwards."""
    peeled = []
    while rows.size:
        peeled.append(rows[0])
        rows = np.rot90(rows[1:])
    return np.concatenate(peeled)[::-1]


def _reordered(values: Float[Tensor, "B N c"], order: Int[Tensor, "B N"]) -> Float[Tensor, "B N c"]:
    return values.gather(1, order[:, :, None].expand_as(values))


def _projection(size: int, width: int) -> nn.Sequential:
    """Without bias, and normalised."""
    linear = nn.Linear(size, width, bias=False)
    nn.init.xavier_uniform_(linear.weight)
    return nn.Sequential(linear, nn.LayerNorm(width))
