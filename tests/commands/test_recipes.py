"""`boqsa recipes`: the list, one recipe in full, and JSON that can be read back."""

import json

import pytest

from boqsa.commands import main
from boqsa.recipes import RECIPES, Recipe, get_recipe


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert list(rows) == list(RECIPES)
    cells = [cell.strip() for cell in rows["clevrtex_mixture"].split("│")[1:-1]]
    assert cells[:5] == ["clevrtex_mixture", "clevrtex_full", "128x128", "11 slots", "250000 steps"]
    assert "Table 2" in cells[5]


def test_list_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split("  ")[0] for line in lines[1:] if not line.startswith(" ")]
    assert heads == list(RECIPES)
    place = lines.index("clevrtex_mixture  clevrtex_full  128x128  11 slots  250000 steps")
    assert lines[place + 1].strip() == "BO-QSA (mixture) on CLEVRTEX, Table 2"


def test_list_in_a_pipe_is_a_line_a_recipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("│")]) == len(RECIPES)
    assert "…" not in "".join(lines)


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(RECIPES)
    for name, values in listed.items():
        recipe = get_recipe(name)
        assert values.pop("hash") == recipe.hash
        assert Recipe.from_json(json.dumps(values)) == recipe


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_one_in_full(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "ptr_mixture", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert Recipe.from_json("\n".join(line for line in lines if line not in comments)) == get_recipe("ptr_mixture")
    if options:
        assert not comments
    else:
        assert "Table 18" in comments[0]
        assert any(get_recipe("ptr_mixture").hash in line for line in comments)


def test_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "ptr"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("boqsa recipes: there is no recipe 'ptr'; did you mean ptr_mixture")
