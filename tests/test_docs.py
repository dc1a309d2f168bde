"""Every command line of README and docs is one that the program takes; what it then does is tested with the command."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from boqsa.commands import COMMANDS, arguments, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class _Understood(Exception):
    """A command line was read to its end."""


def command_lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks that begin with `boqsa`, comments left out, continued lines joined."""
    lines: list[str] = []
    for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "boqsa":
                lines.append(line.strip())
    return lines


STANDS_FOR = {"RECIPE": "demo", "S": "0", "N": "64", "CT": "blocks_all"}
"""What a reader puts in place of a word; other words in capitals are names of files, which are not looked at here."""


def words_of(line: str) -> list[str]:
    """The words of a line after `boqsa`, with what may be left out, and the first of what may be chosen."""
    plain = re.sub(r"\[([^\]|]*(?:\|(?! --)[^\]|]*)*)(?: \| [^\]]*)?\]", r"\1", line)
    return [STANDS_FOR.get(word, word.split("|")[0]) for word in shlex.split(plain, comments=True)[1:]]


FOUND = [(page, line) for page in PAGES for line in command_lines(page)]


def test_there_are_command_lines() -> None:
    assert len(FOUND) > 80
    named = {shlex.split(line, comments=True)[1] for _, line in FOUND}
    assert set(COMMANDS) <= named | {"runs"}, "each command is shown somewhere"


@pytest.mark.parametrize(
    ("page", "line"),
    [pytest.param(page, line, id=f"{page.stem}-{number}") for number, (page, line) in enumerate(FOUND)],
)
def test_a_command_line_is_understood(
    page: Path, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = arguments.parse

    def parse(*given: Any, **options: Any) -> Any:
        real(*given, **options)
        raise _Understood

    for module, _ in COMMANDS.values():
        found = importlib.import_module(f"boqsa.commands.{module}")
        if hasattr(found, "parse"):
            monkeypatch.setattr(found, "parse", parse)
    monkeypatch.chdir(tmp_path)
    words = words_of(line)
    if words == ["--version"] or "--help" in words:
        return
    try:
        code = main(words)
    except _Understood:
        return
    said = capsys.readouterr().err
    # What to resume is read before the options are, since they depend on it.
    assert "--resume" in words, f"{page.name}: {line}: exit code {code}: {said}"
    assert "there is no run folder" in said
