"""What a message tells to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest

import boqsa
from boqsa.errors import as_typed, first_line

_PATH = r"run|folder|sweep|root|source|target|path|self\.run|chosen\.(?:out|run|resume)|data\.path"
_UNQUOTED = re.compile(rf"(?:boqsa [a-z]+[^`\"]*|--resume|--train\.init-from)\s\{{(?:{_PATH})\}}")


@pytest.mark.parametrize("path", ["plain/run-1_a.b", "a run/of 'mine'", "$HOME/run", "run;ls"])
def test_a_path_is_read_by_the_shell_as_it_is(path: str) -> None:
    assert shlex.split(f"boqsa evaluate {as_typed(Path(path))}") == ["boqsa", "evaluate", path]
    assert (as_typed(path) == path) == (path == "plain/run-1_a.b")


def test_no_command_that_is_told_has_a_path_without_its_quotes() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(boqsa.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if _UNQUOTED.search(line) and 'f"' in line
    ]
    assert not found


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one"), "one"),
        (ValueError(" \n"), "ValueError"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line
