"""The position grid: rows first, inclusive ends, made in float32 (spec 1.1)."""

import torch

from boqsa.layers.position import PositionEmbedding


def test_grid_is_row_column_and_their_complements() -> None:
    grid = PositionEmbedding(8, 3, 5).grid
    assert grid.shape == (3, 5, 4)
    torch.testing.assert_close(grid[1, 4], torch.tensor([0.5, 1.0, 0.5, 0.0]))
    assert torch.equal(grid[0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_grid_keeps_its_float32_values_in_double() -> None:
    embedding = PositionEmbedding(8, 7, 7)
    rounded = embedding.grid.clone()
    assert torch.equal(embedding.double().grid, rounded.double())
    assert "grid" not in embedding.state_dict()


def test_embedding_is_added_to_every_image() -> None:
    embedding = PositionEmbedding(8, 3, 5)
    features = torch.randn(2, 8, 3, 5)
    added = embedding(features) - features
    torch.testing.assert_close(added[0], added[1])
    torch.testing.assert_close(added[0, :, 1, 2], embedding.project(embedding.grid[1, 2]), atol=1e-6, rtol=1e-5)
