"""NaN and infinity become null, everything else stays."""

import json

from boqsa.plain import without_nan


def test_floats_that_json_lacks_become_null_at_any_depth() -> None:
    values = {"a": float("nan"), "b": [1.5, (float("inf"), -float("inf"))], "c": {"d": "nan", "e": 3, "f": True}}
    plain = without_nan(values)
    assert plain == {"a": None, "b": [1.5, [None, None]], "c": {"d": "nan", "e": 3, "f": True}}
    json.dumps(plain, allow_nan=False)
