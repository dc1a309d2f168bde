"""`boqsa data`: the whole way by hand, every wrong turn in one line, nothing left behind by any."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boqsa.commands import data as command
from boqsa.commands import main
from boqsa.data import CATALOG, Manifest
from boqsa.data.readers import READERS
from boqsa.recipes import RECIPES

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve pictures with masks, in a folder whose name is not easy."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "my pictures é"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"images/{index:02} ö.png")
        Image.fromarray(rng.integers(0, 4, (20, 24), dtype=np.uint8)).save(folder / f"masks/{index:02} ö.png")
    return folder


@pytest.fixture
def packed(images: Path, tmp_path: Path, capsys: Capture) -> Path:
    """The pictures, packed at 16x16."""
    assert main(["data", "prepare", "folder", str(images), "packed set", "--size", "16"]) == 0
    capsys.readouterr()
    return tmp_path / "packed set"


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, and the bytes of the files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def outcome(arguments: list[str], capsys: Capture) -> tuple[int, str]:
    """Exit code and stderr of a command that must say nothing on stdout."""
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return code, captured.err


# --- list ---


def test_list(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == list(CATALOG)
    birds = rows[list(CATALOG).index("birds")]
    assert birds == ["birds", "foreground", "128x128", "ready", CATALOG["birds"].what]
    assert "`boqsa data list NAME`" in out


@pytest.mark.parametrize("name", CATALOG)
def test_list_of_one(name: str, capsys: Capture) -> None:
    assert main(["data", "list", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == name
    told = {line.split(":")[0].strip() for line in lines[1:]}
    assert {"what", "owners", "SOURCE", "published", "licence", "paper", "pixels"} <= told
    assert all(f"--split {split}" in told for split in CATALOG[name].splits)
    if name != "scenes":  # every option of a reader is explained, by its docstring
        options = set(inspect.signature(READERS[name]).parameters) - {"source", "progress", "image_size", "split"}
        assert {f"--{option.replace('_', '-')}" for option in options} <= told


def test_list_as_json(capsys: Capture) -> None:
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(CATALOG)
    assert listed["ptr"]["image_size"] == [128, 128]
    assert "400x700" in listed["ptr"]["options"]["crop"]


# --- prepare ---


def test_prepare_says_what_was_made_and_what_is_next(images: Path, capsys: Capture) -> None:
    assert main(["data", "prepare", "folder", str(images), "new/a set", "--size=32", "--limit=6"]) == 0
    captured = capsys.readouterr()
    manifest = Manifest.load("new/a set")
    lines = captured.out.splitlines()
    assert lines[0] == "new/a set: folder, 32x32, multi-object"
    assert lines[1 : 1 + len(manifest.counts)] == [
        f"  {split}: {count} images" for split, count in manifest.counts.items()
    ]
    assert max(manifest.counts.values()) == 6
    assert "`boqsa data show 'new/a set'`" in lines[-1]
    assert lines[-1].endswith("Next: `boqsa train demo --data.root 'new/a set' --data.name folder --out RUN`.")
    assert captured.err == ""


def test_prepare_as_json(images: Path, capsys: Capture) -> None:
    options = ["--size", "16", "--crop", "none", "--masks", str(images / "masks"), "--json"]
    assert main(["data", "prepare", "folder", str(images), "packed", *options]) == 0
    values = json.loads(capsys.readouterr().out)
    manifest = Manifest.load("packed")
    assert values["manifest"]["fingerprint"] == manifest.fingerprint
    assert values["manifest"]["options"]["crop"] == "none"
    assert values["target"] == "packed"


def test_every_option_reaches_the_library(monkeypatch: pytest.MonkeyPatch, packed: Path) -> None:
    seen: dict[str, Any] = {}

    def prepare(*arguments: Any, **options: Any) -> Manifest:
        seen.update(options, arguments=arguments)
        return Manifest.load(packed)

    monkeypatch.setattr("boqsa.data.prepare", prepare)
    options = "--size 8 9 --masks m --crop none --mask-resample published --mask-threshold 3 --variant ccs_all"
    options += " --limit 2 --skip-broken 4"
    assert main(["data", "prepare", "shapestacks", "s", "t", *options.split()]) == 0
    del seen["progress"]
    assert {name: value for name, value in seen.items() if value is not None and value is not False} == {
        "arguments": ("shapestacks", Path("s"), Path("t")),
        "image_size": (8, 9),
        "masks": Path("m"),
        "crop": "none",
        "mask_resample": "published",
        "mask_threshold": 3,
        "variant": "ccs_all",
        "limit": 2,
        "skip_broken": 4,
    }


def test_skipped_files_are_listed_and_exit_with_1(images: Path, capsys: Capture) -> None:
    broken = images / "images" / "03 ö.png"
    broken.write_bytes(broken.read_bytes()[:100])
    arguments = ["data", "prepare", "folder", str(images), "packed", "--size", "16"]
    before = everything(Path.cwd())
    code, error = outcome(arguments, capsys)
    assert code == 2
    assert "03 ö.png" in error
    assert everything(Path.cwd()) == before
    assert main([*arguments, "--skip-broken", "1"]) == 1
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 1
    assert "03 ö.png" in skipped[0]
    assert sum(Manifest.load("packed").counts.values()) == 11


def test_progress_is_a_line_now_and_then(images: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_SECONDS_BETWEEN_LINES", 0.0)
    assert main(["data", "prepare", "folder", str(images), "packed"]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("packing")]
    assert lines == [f"packing: {done} of 12, 0 min left" for done in range(1, 13)]
    assert "packing" not in captured.out


def test_after_sigterm_the_same_command_goes_on(images: Path, tmp_path: Path) -> None:
    slow = (
        "import sys, time, boqsa.data.preparing; from boqsa.commands import main\n"
        "p = sys.modules['boqsa.data.preparing']\n"
        "class Slow(p.PackedWriter):\n"
        "    def append(self, *a, **k):\n"
        "        super().append(*a, **k)\n"
        "        if sum(self.counts.values()) == 3: print('three', flush=True); time.sleep(30)\n"
        "p.PackedWriter = Slow; sys.exit(main(['data', 'prepare', 'folder', sys.argv[1], 'deep/packed']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", slow, str(images)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "three\n"
    child.send_signal(signal.SIGTERM)
    _, error = child.communicate(timeout=20)
    assert child.returncode == 1
    assert error == "boqsa data: stopped; what is done is kept, and the same command goes on.\n"
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [".preparing-packed"]
    assert main(["data", "prepare", "folder", str(images), "deep/packed"]) == 0
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["packed"]
    assert main(["data", "prepare", "folder", str(images), "unbroken"]) == 0
    assert Manifest.load("deep/packed") == Manifest.load("unbroken")


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("name", ["folder", "objectsroom", "birds", "ycb"])
def test_the_next_command_is_one_that_parses(packed: Path, name: str, size: int) -> None:
    import shlex
    from dataclasses import replace

    import tyro

    from boqsa.commands.arguments import parse
    from boqsa.commands.train import Train

    task = CATALOG[name].task
    manifest = replace(Manifest.load(packed), name=name, task=task, image_size=(size, size))
    text = command.next_command(manifest, packed)
    arguments = shlex.split(text.removeprefix("Next: `").removesuffix("`."))
    assert arguments[:2] == ["boqsa", "train"]
    default = Train(out=tyro.MISSING, recipe=RECIPES[arguments[2]]())
    recipe = parse(Train, arguments[3:], command="train", default=default).recipe
    assert (recipe.data.name, recipe.data.root, recipe.data.image_size) == (name, str(packed), size)
    is_instances = name == "ycb" and size != 32  # its own recipes score whole objects
    assert recipe.evaluate.task == ("instances" if is_instances else task.replace("-", "_"))


@pytest.mark.parametrize(("name", "recipe"), [("birds", "birds_transformer"), ("folder", "photographs_transformer")])
def test_photographs_are_sent_to_the_transformer(packed: Path, name: str, recipe: str) -> None:
    from dataclasses import replace

    manifest = replace(Manifest.load(packed), name=name, task="foreground", image_size=(128, 128))
    assert command.next_command(manifest, packed).startswith(f"Next: `boqsa train {recipe} --data.root ")


def test_the_next_command_where_no_recipe_fits(packed: Path) -> None:
    text = command.next_command(Manifest.load(packed), packed)
    assert text.startswith("No recipe is for 16x16 images: prepare with --size 32 or 64 or 96 or 128")


def test_the_next_command_where_recipes_read_features_alone(packed: Path) -> None:
    from dataclasses import replace

    manifest = replace(Manifest.load(packed), image_size=(224, 224))
    expected = f"Next: `boqsa data features '{packed}' ENCODER OUT`; recipes for 224x224 images read their features."
    assert command.next_command(manifest, packed) == expected
    larger = replace(manifest, image_size=(320, 320))
    assert f"`boqsa data features '{packed}' ENCODER OUT --size 224`" in command.next_command(larger, packed)
    known = {"encoder_patch_size": 14, "encoder_feature_size": 384}
    manifest = replace(manifest, name="folder", task="foreground", extras=("features",), options=known)
    assert command.next_command(manifest, packed) == (
        f"Next: `boqsa train folder_features_small --data.root '{packed}' --model.patch-size 14 --out RUN`."
    )
    scored_larger = replace(manifest, image_size=(320, 320), options={**known, "encoder_image_size": 224})
    assert command.next_command(scored_larger, packed) == command.next_command(manifest, packed)
    oblong = command.next_command(replace(manifest, image_size=(224, 336)), packed)
    assert "of the set without features again, with a square --size such as 336" in oblong


# --- check and show ---


def test_check(packed: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(packed)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok"
    with open(packed / "train.image.000.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert main(["data", "check", str(packed)]) == 1
    assert "WRONG: train.image.000.npy was changed" in capsys.readouterr().out
    assert main(["data", "check", str(packed), "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    assert values["ok"] is False
    assert "train.image.000.npy" in values["findings"][0]
    assert values["splits"]["train"]["images"] == values["manifest"]["counts"]["train"]


def test_show(packed: Path, capsys: Capture) -> None:
    count = Manifest.load(packed).counts["train"]
    assert main(["data", "show", str(packed), "--rows", "2", "--columns", "1"]) == 0
    assert capsys.readouterr().out == f"packed set_train.png: train, 2 of {count} images\n"
    with Image.open("packed set_train.png") as sheet:
        assert sheet.height > sheet.width // 2 > 96
    assert main(["data", "show", str(packed), "--split", "train", "--out", "a.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sheet": "a.png", "split": "train", "images": count}
    assert Path("a.png").stat().st_size > 0


def test_show_names_the_sheet_after_the_folder_one_stands_in(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed)
    assert main(["data", "show", "."]) == 0
    assert (packed / "packed set_train.png").is_file()


# --- wrong turns ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("prepar", "there is no command 'prepar'; did you mean `boqsa data prepare`?"),
        ("zzz", "there is no command 'zzz'; choose from list, prepare, features, mimic, check, show."),
        ("prepare foldr IMAGES out", "there is no data set 'foldr'; did you mean folder? `boqsa data list` has them."),
        ("prepare scenes IMAGES out", "'scenes' is built in"),
        ("prepare birds IMAGES out", "my pictures"),
        ("prepare folder none out", "none does not exist; give a folder of images."),
        ("prepare folder note.txt out", "note.txt is not a folder"),
        ("prepare folder empty a/b/out", "empty has no images"),
        ("prepare folder IMAGES /dev/null/x", "cannot write"),
        ("prepare folder IMAGES /dev/null/x/y", "cannot write"),
        ("prepare folder IMAGES note.txt/x", "cannot write"),
        ("prepare folder IMAGES note.txt", "the target note.txt is a file"),
        ("prepare folder IMAGES PACKED", "is not empty; delete it or name another folder."),
        ("prepare folder IMAGES .", "no name of its own"),
        (
            "prepare folder IMAGES a/out --size 0",
            "image_size is 0; a whole number from 1 to 4096 expected.",
        ),
        ("prepare folder IMAGES a/out --size 99999", "image_size is 99999"),
        ("prepare folder IMAGES a/out --limit 0", "limit is 0"),
        ("prepare folder IMAGES a/out --crop square", "crop 'square' is unknown; choose one of centre, none."),
        ("prepare folder IMAGES a/out --split default", "'folder' has no option --split; it has --size, "),
        ("prepare folder IMAGES a/out --masks none", "the mask folder none does not exist."),
        ("prepare folder IMAGES a/out --mask-threshold 300", "mask_threshold is 300"),
        ("prepare arrays IMAGES a/out", "my pictures"),
        ("prepare arrays none.npz a/out", "none.npz"),
        ("prepare arrays note.txt a/out", "note.txt"),
        ("prepare arrays cut.npz a/out", "cut.npz"),
        ("prepare objectsroom IMAGES a/out", "my pictures"),
        ("prepare objectsroom cut.tfrecords a/out", "cut.tfrecords"),
        ("prepare shapestacks IMAGES a/out", "my pictures"),
        ("check none", "none does not exist; run `boqsa data prepare NAME SOURCE none` first."),
        ("check empty", "empty is not a packed data set (it has no manifest.json)"),
        ("check note.txt", "note.txt is not a packed data set"),
        ("check damaged", "cannot read"),
        ("show none", "none does not exist"),
        ("show PACKED --split tset", "has no split 'tset'; it has train"),
        ("show PACKED --rows 0", "--rows is 0; a whole number from 1 to 100 expected."),
        ("show PACKED --columns 100000", "--columns is 100000"),
        ("show PACKED --out sheet.jpg", "--out is sheet.jpg; a name that ends in .png expected."),
        ("show PACKED --out none/sheet.png", "cannot write none/sheet.png: No such file or directory"),
        ("show PACKED --out /dev/null/sheet.png", "cannot write /dev/null/sheet.png"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: str, message: str, images: Path, packed: Path, capsys: Capture
) -> None:
    Path("empty").mkdir()
    Path("note.txt").write_text("not a picture")
    Path("damaged").mkdir()
    Path("damaged/manifest.json").write_text('{"format": ')
    np.savez("whole.npz", image=np.zeros((4, 8, 8, 3), np.uint8))
    Path("cut.npz").write_bytes(Path("whole.npz").read_bytes()[:300])
    Path("cut.tfrecords").write_bytes(b"\x40\0\0\0\0\0\0\0" + bytes(20))
    before = everything(Path.cwd())
    places = {"IMAGES": str(images), "PACKED": str(packed)}
    code, error = outcome(["data", *(places.get(word, word) for word in arguments.split())], capsys)
    assert code == 2
    assert error.startswith("boqsa data: ")
    assert message in error
    assert error.count("\n") == 1
    assert everything(Path.cwd()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("prepare", "NAME"),
        ("prepare folder", "SOURCE"),
        ("prepare folder a", "TARGET"),
        ("prepare folder a b c", "c"),
        ("prepare folder a b --limt 3", "--limit"),
        ("prepare folder a b --limit three", "--limit"),
        ("check", "TARGET"),
        ("show", "TARGET"),
        ("show a --rows many", "--rows"),
        ("list --jsn", "--json"),
    ],
)
def test_wrong_usage(arguments: str, named: str, capsys: Capture) -> None:
    code, error = outcome(["data", *arguments.split()], capsys)
    assert code == 2
    assert named in error
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["list", "prepare", "check", "show"])
def test_help(name: str, capsys: Capture) -> None:
    assert main(["data"]) == 2
    assert main(["data", "--help"]) == 0
    assert capsys.readouterr().out.count(f"  {name} ") == 2
    with pytest.raises(SystemExit) as exit_:
        main(["data", name, "--help"])
    assert not exit_.value.code
    assert capsys.readouterr().out.startswith(f"usage: boqsa data {name}")


def test_the_next_command_of_sets_with_several_views_and_of_test_sets(packed: Path) -> None:
    from dataclasses import replace

    manifest = Manifest.load(packed)
    views = replace(manifest, name="clevr567", task="views", image_size=(128, 128))
    assert "`boqsa train clevr567_radiance --data.root p --train" in command.next_command(views, Path("p"))
    own = command.next_command(replace(views, name="folder", image_size=(64, 64)), Path("p"))
    assert "clevr567_radiance --data.root p --data.name folder --data.image-size 64 --train" in own
    only_test = replace(manifest, name="clevrtex_outd", counts={"test": 3})
    text = command.next_command(only_test, Path("p"))
    assert text == "Next: `boqsa evaluate RUN --dataset clevrtex_outd --data.root p --split test` of a trained run."
