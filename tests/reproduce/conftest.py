"""Rows of results, made up."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from boqsa.reproduce.protocol import Protocol
from boqsa.reproduce.rows import Row

MakeRows = Callable[..., list[Row]]


@pytest.fixture
def make_rows() -> MakeRows:
    """A row for each seed of each method on one data set; what is not named is the built-in scenes' own."""

    def make(
        values: Mapping[str, Sequence[float]],
        *,
        dataset: str = "scenes",
        metric: str = "ari_fg",
        condition: str = "",
        selection: str = "last",
        **protocol: Any,
    ) -> list[Row]:
        parts: dict[str, Any] = {
            "data": dataset,
            "variant": "a1b2c3d4",
            "split": "test",
            "images": 1000,
            "image_size": 32,
            "slots": 5,
            "masks": "decoder",
            "metric": metric,
        }
        text = Protocol(**(parts | protocol)).text
        return [
            Row(method, dataset, metric, condition, seed, selection, text, value)
            for method, of_method in values.items()
            for seed, value in enumerate(of_method)
        ]

    return make
