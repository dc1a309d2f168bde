"""The dispatcher: quick help, one line for a mistake, a traceback for a bug alone."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from boqsa.commands import COMMANDS, main
from boqsa.errors import InputError, RecipeError, RunError
from boqsa.recipes import get_recipe

Stub = Callable[[BaseException | int], None]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Let `boqsa demo` raise or return what is given."""

    def install(outcome: BaseException | int) -> None:
        def run(_: list[str]) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        module = ModuleType("stub")
        module.main = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "boqsa.commands.demo", module)

    return install


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0), (["help"], 0)])
def test_overview(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    out = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in out
        assert text in out


def test_overview_imports_nothing_heavy() -> None:
    code = (
        "import sys; from boqsa.commands import main; main(['--help']); "
        "print([name for name in ('torch', 'tyro', 'numpy', 'rich', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import boqsa

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"boqsa {boqsa.__version__}, torch ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("trian", "did you mean `boqsa train`?"), ("zzz", "`boqsa --help` lists the commands.")],
)
def test_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert capsys.readouterr().err == f"boqsa: there is no command '{name}'; {hint}\n"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_that_of_the_command(stub: Stub, code: int) -> None:
    stub(code)
    assert main(["demo"]) == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such thing."), 2, "no such thing."),
        (RecipeError("no such field."), 2, "no such field."),
        (RunError("no such run."), 2, "no such run."),
        (PermissionError(13, "Permission denied", "/there"), 2, "Permission denied: /there."),
        (OSError(28, "No space left on device"), 2, "No space left on device."),
        (OSError("image file is truncated"), 2, "image file is truncated"),
        (InputError("features of \x1b]0;pwned\x07."), 2, r"features of \x1b]0;pwned\x07."),
        (FileNotFoundError(2, "No such file", "/a\x1b[2Jb"), 2, r"No such file: /a\x1b[2Jb."),
        (KeyboardInterrupt(), 1, "stopped."),
    ],
)
def test_what_the_user_or_the_machine_did_is_one_line(
    stub: Stub, error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(error)
    assert main(["demo"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"boqsa demo: {line}\n")


def test_a_bug_keeps_its_traceback(stub: Stub) -> None:
    stub(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["demo"])


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["recipes", "demo"], ["recipes", "--help"]])
def test_a_closed_pipe_is_silent(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "boqsa", *arguments], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["--help"], ["recipes", "demo"]])
def test_a_full_disk_below_stdout_is_one_line(arguments: list[str], buffered: bool) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, *([] if buffered else ["-u"]), "-m", "boqsa", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"boqsa( recipes)?: No space left on device\.\n", done.stderr)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([name, "--help"])
    except SystemExit as exit_:  # tyro's way
        code = exit_.code  # type: ignore[assignment]
    assert code in (0, None)
    assert f"usage: boqsa {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        ("training.results.evaluate_run", ["evaluate", "a run"]),
        ("training.concepts.find_concepts", ["concepts", "a run"]),
        ("training.transfer.transfer", ["transfer", "a run", "--to", "scenes"]),
        ("training.demo.run_demo", ["demo", "--out", "a run"]),
    ],
)
def test_the_command_that_a_report_names_can_be_typed_again(
    called: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "recipe.json").write_text(get_recipe("demo").to_json())
    monkeypatch.chdir(tmp_path)
    commands: list[str] = []

    def keep(*_: object, command: str, **__: object) -> None:
        commands.append(command)
        raise RunError("enough.")

    monkeypatch.setattr(f"boqsa.{called}", keep)
    assert main(arguments) == 2
    assert [shlex.split(command) for command in commands] == [["boqsa", *arguments]]


USAGE_ERRORS = [
    (["train", "demo", "--out", "{}", "--train.stepz", "5"], ["--train.stepz", "--train.steps"]),
    (["train", "demo", "--out", "{}", "--train.steps", "abc"], ["--train.steps", "'abc'"]),
    (["train", "demo", "--out", "{}", "--train.steps", "1.5"], ["--train.steps", "'1.5'"]),
    (["train", "demo", "--out", "{}", "--model.gradient", "foo"], ["'foo'", "--model.gradient", "'bilevel'"]),
    (["train", "demo", "--out", "{}", "--model.vocab-size", "5"], ["--model.vocab-size"]),
    (["train", "dogs_slate", "--out", "{}", "--model.decoder-grid", "5"], ["--model.decoder-grid"]),
    (["train", "dogs_slate", "--out", "{}", "--model.kind", "mixture"], ["--model.kind", "'transformer'"]),
    (["train", "demo"], ["--out", "train demo --help"]),
    (["train", "demo", "--outt", "{}"], ["--out PATH; unrecognized: --outt, "]),
    (["train", "demo", "--out"], ["'--out'; give it one."]),
    (["train", "demo", "--out", "{}", "--log-to"], ["--log-to has no value"]),
    (
        ["train", "demo", "--out", "{}", "--data.scene-objects", "2,4"],
        [": cannot read '2,4'; expected --data.scene-objects INT, with spaces between several."],
    ),
    (["evaluate", "{}", "--scene-objects", "2,4"], [": cannot read '2,4'; expected --scene-objects INT INT."]),
    (["evaluate", "{}", "--scene-objects"], [": no value; expected --scene-objects INT INT."]),
    (["evaluate", "{}", "--iterations", "2.5"], [": cannot read '2.5'; expected --iterations INT."]),
    (["recipes", "demo", "more"], ["more"]),
    (["runs", "--state", "done"], ["'done'", "'finished'"]),
    (["plot", "--metric", "--out", "{}"], ["--metric has no value"]),
]


def test_a_misspelt_field_is_named_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--out", "x" * 200, "--train.stepz", "5"]) == 2
    assert capsys.readouterr().err == (
        "boqsa train: unrecognized options: --train.stepz, 5; did you mean --train.steps? "
        "`boqsa train demo --help` explains it.\n"
    )


@pytest.mark.parametrize(("arguments", "named"), USAGE_ERRORS)
def test_usage_errors_name_what_is_wrong(
    arguments: list[str],
    named: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("usage")
    assert main([argument.format(folder / "run") for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"boqsa {arguments[0]}: ")
    assert captured.err.count("\n") == 1
    assert not set("│─╭╯\x1b") & set(captured.err)
    for part in named:
        assert part in captured.err
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train"], "name a recipe first, as in `boqsa train demo --out RUN`; `boqsa recipes` lists them."),
        (["train", "dmo"], "there is no recipe 'dmo'; did you mean demo? `boqsa recipes` lists all."),
        (["train", "demo", "--model.num-slots", "0"], "model.num_slots is 0; it must be at least 1."),
        (["train", "demo", "--model.num_slots", "0"], "model.num_slots is 0; it must be at least 1."),
        (["train", "demo", "--model.num_slots=0"], "model.num_slots is 0; it must be at least 1."),
        (
            ["train", "demo", "--train.learning-rate", "nan"],
            "train.learning_rate is nan; it must be above 0.",
        ),
        (["train", "demo", "--seed", "-1"], "seed is -1; it must be at least 0."),
        (
            ["train", "demo", "--data.scene-objects", "5", "1"],
            "data.scene_objects is 5 1; give the fewest and the most, each 1 to 6, as in --data.scene-objects 2 4.",
        ),
        (
            ["train", "dogs_transformer", "--train.dvae.tau-end", "0"],
            "train.dvae.tau_end is 0.0; it must be above 0.",
        ),
        (
            ["train", "dogs_transformer", "--model.dvae-kernel", "2"],
            "model.dvae_kernel is 2; it must be odd, as 1 or 3.",
        ),
    ],
)
def test_wrong_values_of_a_recipe_are_one_line(
    arguments: list[str],
    line: str,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("values")
    assert main([*arguments, "--out", str(folder / "run")]) == 2
    assert capsys.readouterr().err == f"boqsa train: {line}\n"
    assert not any(folder.iterdir())


@pytest.mark.parametrize("name", ["demo", "birds_transformer"])
def test_the_help_of_train_lists_every_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", name, "--help"])
    out = capsys.readouterr().out
    values = json.loads(get_recipe(name).to_json())
    values["train.dvae"] = values["train"].pop("dvae")
    for owner in ("train", "evaluate"):
        values[f"{owner}.radiance"] = values[owner].pop("radiance")
    for section in values.keys() - {"name", "seed"}:
        for field in values[section]:
            assert re.search(rf"--{section}\.{field.replace('_', '-')}[ ,]", out), field
    others = ("--model.vocab-size", "--model.decoder-channels")
    assert [option in out for option in others] == [name == "birds_transformer", name == "demo"]
    assert "--seed INT" in out
    assert "--out PATH" in out


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_usage_errors_are_read_from_both_kinds_of_boxes(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "boqsa", "train", "demo", "--train.steps", "many"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "boqsa train: missing from boqsa train demo: --out PATH. `boqsa train demo --help` explains it.\n"
    )
