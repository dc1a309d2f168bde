"""Nested results as JSON allows them: JSON has no NaN and no infinity, and a score without a value is null."""

import math
from collections.abc import Mapping
from typing import Any


def without_nan(values: Any) -> Any:
    """The same nested data with None for every float that JSON cannot hold; tuples become lists."""
    if isinstance(values, Mapping):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
