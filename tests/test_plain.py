"""NaN and infinity become null, what cannot be printed an escape; everything else stays."""

import json

from boqsa.plain import printable, without_nan


def test_floats_that_json_lacks_become_null_at_any_depth() -> None:
    values = {"a": float("nan"), "b": [1.5, (float("inf"), -float("inf"))], "c": {"d": "nan", "e": 3, "f": True}}
    plain = without_nan(values)
    assert plain == {"a": None, "b": [1.5, [None, None]], "c": {"d": "nan", "e": 3, "f": True}}
    json.dumps(plain, allow_nan=False)


def test_what_cannot_be_printed_is_an_escape() -> None:
    assert printable("é, 象 \\ 3") == "é, 象 \\ 3"
    assert printable("\x1b]0;pwned\x07\n\udcff\u202e") == r"\x1b]0;pwned\x07\n\udcff\u202e"
