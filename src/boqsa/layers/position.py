"""Position embedding: four coordinates a cell, mapped to channels by one linear layer (spec 1.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """Adds a learned linear map of (row, column, 1 - row, 1 - column), each in [0, 1], to every cell of a grid.

    Args:
        channels: C of the features it is added to.
        height: Rows of the grid.
        width: Columns of the grid.
    """

    grid: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(4, channels)
        # float32 on purpose, 1 - x too: the published arrays were made so, and a float64 grid differs by 1e-8.
        rows = torch.linspace(0, 1, height, dtype=torch.float32)
        columns = torch.linspace(0, 1, width, dtype=torch.float32)
        coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)  # (H, W, 2)
        self.register_buffer("grid", torch.cat([coordinates, 1 - coordinates], dim=-1), persistent=False)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Features with the embedding added; the grid must be the one given at construction."""
        embedding: Tensor = self.project(self.grid)  # (H, W, C)
        # With channels innermost the gradient of the embedding is summed over whole rows of memory, ten times as fast.
        return (features.permute(0, 2, 3, 1) + embedding).permute(0, 3, 1, 2)
