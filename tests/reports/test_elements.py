import math
from typing import Any

import pytest

from boqsa.reports.elements import NOT_MEASURED, block, duration, number, section, with_code


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NOT_MEASURED),
        (math.nan, NOT_MEASURED),
        (math.inf, "infinite"),
        (0.87349, "0.873"),
        (-0.05, "-0.050"),
        (0.0, "0.000"),
        (0.0031234, "0.00312"),
        (249.84, "249.8"),
        (12345.6, "12,345.6"),
        (8000, "8,000"),
        ("cpu", "cpu"),
    ],
)
def test_number(value: Any, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(512.3, "8 min 32 s"), (3600, "1 h"), (0.2, "0.2 s"), (3725, "1 h 2 min 5 s"), (None, NOT_MEASURED)],
)
def test_duration(seconds: Any, text: str) -> None:
    assert duration(seconds) == text


def test_block_is_empty_where_the_path_breaks() -> None:
    data = {"scores": {"last": {"ari": 1.0}}, "machine": None}
    assert block(data, "scores", "last") == {"ari": 1.0}
    for path in (("scores", "best"), ("scores", "last", "ari"), ("machine",), ("machine", "torch")):
        assert block(data, *path) == {}


def test_backquotes_become_code_and_the_rest_is_escaped() -> None:
    assert with_code("run `a < b` & <i>") == "run <code>a &lt; b</code> &amp; &lt;i&gt;"


def test_section_without_content_is_nothing() -> None:
    assert section("Title", "", "") == ""
