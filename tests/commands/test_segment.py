"""`boqsa segment`: exit codes, one JSON document, and no traceback."""

import contextlib
import io
import json
import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
import supervision
import torch
from PIL import Image
from pycocotools.coco import COCO

from boqsa.atomic import is_held, one_process, write_text
from boqsa.commands import main
from boqsa.inference import exchange
from boqsa.inference.load import build_model, model_config
from boqsa.inference.run import CHECKPOINTS, RECIPE, write_checkpoint
from boqsa.recipes import DataRecipe, MixtureRecipe, Recipe, TransformerRecipe

TINY = MixtureRecipe(
    num_slots=3,
    slot_size=8,
    mlp_size=8,
    encoder_channels=(8,),
    encoder_strides=(1,),
    decoder_channels=(8,),
    decoder_strides=(2,),
)


TINY_TRANSFORMER = TransformerRecipe(
    num_slots=3,
    slot_size=8,
    mlp_size=8,
    vocab_size=10,
    width=8,
    blocks=1,
    heads=2,
    encoder_channels=(4,),
    encoder_strides=(1,),
)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", TINY)


def make_run(folder, model):
    recipe = Recipe(name="tiny", data=DataRecipe(name="scenes", image_size=16), model=model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_model(recipe)
    for name in ("last", "best_ari_fg"):
        write_checkpoint(
            folder / CHECKPOINTS / name, built, config=model_config(recipe), step=1, recipe_hash=recipe.hash
        )
    write_text(folder / RECIPE, recipe.to_json())
    return str(folder)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 30, 3), dtype=np.uint8)
    for name in ("a.png", "sub/b.jpg"):
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_a_folder_in_json(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", run, str(pictures), "--out", str(out), "--json", "--batch-size", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["skipped"] == []
    assert [entry["image"] for entry in found["images"]] == [
        str(pictures / "a.png"),
        str(pictures / "sub" / "b.jpg"),
    ]
    assert found["images"][1]["labels"] == str(out / "sub" / "b_labels.png")
    assert found["images"][1]["overlay"] == str(out / "sub" / "b_overlay.png")
    with np.load(found["images"][1]["arrays"]) as arrays:
        shares = [(arrays["labels"] == slot).mean() for slot in range(3)]
    assert found["images"][1]["areas"] == pytest.approx(shares)


def test_a_transformer_segments_as_a_mixture_does(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", make_run(tmp_path / "run", TINY_TRANSFORMER), str(pictures), "--out", str(out)]) == 0
    assert "2 segmented" in capsys.readouterr().out
    with np.load(out / "a.npz") as arrays:
        assert arrays["masks"].shape == (3, 16, 16)
        assert arrays["masks"].sum(axis=0) == pytest.approx(1, abs=1e-5)
        labels = arrays["labels"]
    assert labels.shape == (12, 30)
    assert labels.max() < 3
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a_labels.png")), labels)


def test_words_without_json(run, pictures, tmp_path, capsys):
    picture = str(pictures / "a.png")
    assert main(["segment", run, picture, "--out", str(tmp_path / "out"), "--checkpoint", "best_ari_fg"]) == 0
    assert f"{picture}: {tmp_path / 'out' / 'a_overlay.png'}" in capsys.readouterr().out


def test_crop_leaves_the_sides_out(run, pictures, tmp_path):
    main(["segment", run, str(pictures / "a.png"), "--out", str(tmp_path / "out"), "--crop"])
    labels = np.asarray(Image.open(tmp_path / "out" / "a_labels.png"))
    assert labels.shape == (12, 30)
    assert (labels == 255).sum() == 12 * 18


def test_iterations_are_passed_on(run, pictures, tmp_path):
    slots = []
    for number in ("1", "4"):
        out = tmp_path / number
        main(["segment", run, str(pictures / "a.png"), "--out", str(out), "--iterations", number])
        slots.append(np.load(out / "a.npz")["slots"])
    assert np.abs(slots[0] - slots[1]).max() > 1e-4


def test_a_broken_picture_is_skipped_with_exit_1(run, pictures, tmp_path, capsys):
    (pictures / "c.png").write_bytes(b"")
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["images"]) == 2
    assert [entry["image"] for entry in found["skipped"]] == [str(pictures / "c.png")]
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out")]) == 1
    assert "skipped: " in capsys.readouterr().err
    listed = tmp_path / "out" / "skipped.txt"
    assert [line.partition(": ")[0] for line in listed.read_text().splitlines()[1:]] == [str(pictures / "c.png")]
    (pictures / "c.png").unlink()
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out")]) == 0
    assert not listed.exists()
    listed.write_text("mine")
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out")]) == 0
    assert listed.read_text() == "mine"


def test_names_do_not_steer_the_terminal(run, pictures, tmp_path, capsys):
    shutil.copy(pictures / "a.png", pictures / "esc\x1b[31mred.png")
    (pictures / "two\nlines\x1b[2J.heic").touch()
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert "\x1b" not in said.out + said.err + listed
    assert r"esc\x1b[31mred_overlay.png" in said.out
    assert r"two\nlines\x1b[2J.heic is HEIC, which is not read" in said.err
    assert len(listed.splitlines()) == 2


def test_of_many_that_are_skipped_some_are_named(run, pictures, tmp_path, capsys):
    for number in range(25):
        (pictures / f"{number}.heic").touch()
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21
    assert said[-1] == f"skipped: ... and 5 more, in {tmp_path / 'out' / 'skipped.txt'}"
    assert len((tmp_path / "out" / "skipped.txt").read_text().splitlines()) == 26


def test_sigterm_stops_it_in_words_and_leaves_nothing_half_written(run, pictures, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def stopped(*_):
        (out / f".partial-{os.getpid()}-instances.json").touch()  # what this process left goes the next time
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(exchange, "write_coco", stopped)
    arguments = ["segment", run, str(pictures), "--out", str(out), "--also", "coco"]
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # or, if it is not looked at, the tests would end here
    try:
        assert main(arguments) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "boqsa segment: stopped.\n"
    monkeypatch.undo()
    assert main(arguments) == 0
    assert not list(out.glob(".partial-*"))


def test_a_second_call_on_the_same_folder_is_refused_and_changes_nothing(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["segment", run, str(pictures), "--out", str(out), "--also", "coco"]
    assert main(arguments) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    with one_process(out / ".lock", wait=False):
        assert main([*arguments, "--again", "--iterations", "1"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"another call is writing to {out}; let it end" in said.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert main(arguments) == 0  # the lock of a call that is gone, as one that was killed leaves it


def test_the_folder_is_held_until_the_last_file_is_written(run, pictures, tmp_path, monkeypatch):
    out, held = tmp_path / "out", []
    real = exchange.write_grey

    def watched(entries):
        held.append(is_held(out / ".lock"))
        real(entries)

    monkeypatch.setattr(exchange, "write_grey", watched)
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "grey"]) == 0
    assert held == [True]
    assert not is_held(out / ".lock")


def test_what_is_refused_leaves_no_lock_and_no_folder(run, pictures, tmp_path, capsys):
    (pictures / "c.png").write_bytes(b"")
    assert main(["segment", run, str(pictures), "--out", str(pictures)]) == 2
    assert main(["segment", run, str(pictures / "c.png"), "--out", str(tmp_path / "deep" / "er")]) == 2
    assert not list(tmp_path.rglob(".lock"))
    assert not (tmp_path / "deep").exists()
    capsys.readouterr()
    assert main(["segment", run, str(pictures), "--out", str(pictures / "a.png")]) == 2
    assert "a.png is a file; choose a folder" in capsys.readouterr().err
    assert main(["segment", run, str(pictures), "--out", str(pictures / "a.png" / "below")]) == 2
    assert "cannot make" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(run, pictures, tmp_path, capsys):
    assert main(["segment", run, str(pictures), "--out", str(tmp_path / "out"), "--device", "abacus"]) == 2
    assert "device 'abacus' cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{pictures}/gone.png"], "does not exist"),
        (["{pictures}/broken.png"], "nothing could be segmented"),
        (["{tmp}/void"], "no pictures"),
        ([], "name files"),
        (["{pictures}", "--checkpoint", "best_loss"], "it has best_ari_fg, last"),
        (["{pictures}", "--checkpoint", "../last"], "no checkpoint"),
        (["{pictures}", "--iterations", "0"], "iterations is 0"),
        (["{pictures}", "--batch-size", "-1"], "batch_size is -1"),
    ],
)
def test_refusals_exit_with_2_and_make_nothing(run, pictures, tmp_path, capsys, *, arguments, said):
    (pictures / "broken.png").write_text("no", encoding="utf-8")
    (tmp_path / "void").mkdir()
    filled = [argument.format(pictures=pictures, tmp=tmp_path) for argument in arguments]
    assert main(["segment", run, *filled, "--out", str(tmp_path / "out"), "--json"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_exits_with_2(pictures, tmp_path, capsys):
    assert main(["segment", str(pictures), str(pictures), "--out", str(tmp_path / "out")]) == 2
    assert "neither a run nor a saved model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_tools_open_the_results(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["segment", run, str(pictures), "--out", str(out), "--also", "coco", "cvat", "grey"]
    assert main(arguments) == 0
    labels = {name: np.asarray(Image.open(out / f"{name}_labels.png")) for name in ("a", "sub/b")}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "instances.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "sub/b.jpg"]
    for image, found in zip(coco.loadImgs(coco.getImgIds()), labels.values(), strict=True):
        assert (image["height"], image["width"]) == found.shape
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [one["category_id"] - 1 for one in annotations] == np.unique(found).tolist()
        for one in annotations:
            np.testing.assert_array_equal(coco.annToMask(one), found == one["category_id"] - 1)
    read = supervision.DetectionDataset.from_coco(str(pictures), str(out / "instances.json"), force_masks=True)
    for (_, _, detections), found in zip(read, labels.values(), strict=True):
        np.testing.assert_array_equal(detections.mask, detections.class_id[:, None, None] == found)
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        colours = {}
        for line in archive.read("labelmap.txt").decode().splitlines()[1:]:
            name, colour = line.split(":")[:2]
            colours[name] = [int(part) for part in colour.split(",")]
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == ["a", "sub/b"]
        for name, found in labels.items():
            with archive.open(f"SegmentationClass/{name}.png") as file:
                shown = np.asarray(Image.open(file).convert("RGB"))
            for slot in np.unique(found):
                assert (shown[found == slot] == colours[f"slot {slot}"]).all()
    for name, found in labels.items():
        with Image.open(out / f"{name}_grey.png") as grey:
            assert grey.mode == "L"
            np.testing.assert_array_equal(np.asarray(grey), found)
    capsys.readouterr()
    assert main(arguments) == 0
    assert "2 segmented, 2 of them by an earlier call" in capsys.readouterr().out


def test_paths_for_other_tools_start_at_the_folder_that_was_given(run, pictures, tmp_path):
    (pictures / "a.png").write_text("broken", encoding="utf-8")  # what is left lies in a sub-folder
    out = tmp_path / "out"
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "coco", "cvat"]) == 1
    assert [image["file_name"] for image in json.loads((out / "instances.json").read_text())["images"]] == ["sub/b.jpg"]
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == ["sub/b"]


def test_what_other_tools_cannot_tell_apart_and_what_is_not_ours_is_refused(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    Image.open(pictures / "a.png").save(pictures / "a.jpg")
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "cvat"]) == 2
    assert "a is there twice; rename one of the two" in capsys.readouterr().err
    assert not out.exists(), "nothing was begun"
    out.mkdir()
    (out / "instances.json").write_text('{"mine": 1}')
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "coco"]) == 2
    assert "was not made by boqsa" in capsys.readouterr().err
    assert (out / "instances.json").read_text() == '{"mine": 1}'
    (out / "cvat.zip").write_text("mine")
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "cvat"]) == 2
    assert "cvat.zip is there and was not made by boqsa" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["cvat.zip", "instances.json"]  # before any picture
    Image.open(pictures / "a.png").save(pictures / "a_grey.png")
    arguments = ["segment", run, str(pictures / "a.png"), str(pictures / "a_grey.png"), "--out", str(pictures)]
    assert main([*arguments, "--also", "grey"]) == 2
    assert "would overwrite the picture" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["#1", " a", "a ", "#sub/a", "a\nb", "a\rb", "a\u3000", "a\\b"])
def test_names_that_cvat_s_list_cannot_hold_are_refused(run, pictures, tmp_path, capsys, name):
    """Read as CVAT reads `default.txt`, they would be other names, several, or none."""
    picture = pictures / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    shutil.copy(pictures / "a.png", picture)
    out = tmp_path / "out"
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "cvat"]) == 2
    said = capsys.readouterr().err
    assert f"CVAT would not find {name!r}" in said
    assert said.count("\n") == 1
    assert not out.exists(), "nothing was begun"


def test_odd_names_reach_cvat_as_they_are(run, pictures, tmp_path):
    names = ["a b/with spaces (1)", "große Blüte", "dots.in.name", "100%_#hash&", "comma, semi;colon", "日本"]
    for name in names:
        (pictures / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures / "a.png", pictures / f"{name}.png")
    out = tmp_path / "out"
    assert main(["segment", run, str(pictures), "--out", str(out), "--also", "cvat"]) == 0
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        lines = io.TextIOWrapper(archive.open("ImageSets/Segmentation/default.txt"), "utf-8")
        listed = [line.strip() for line in lines if not line.startswith("#")]
        maps = [member for member in archive.namelist() if member.startswith("SegmentationClass/")]
    assert sorted(listed) == sorted([*names, "a", "sub/b"])
    assert maps == [f"SegmentationClass/{name}.png" for name in listed]


def test_what_lies_outside_the_crop_has_a_name_for_cvat(run, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["segment", run, str(pictures / "a.png"), "--out", str(out), "--crop", "--also", "cvat"]) == 0
    with zipfile.ZipFile(out / "cvat.zip") as archive, archive.open("SegmentationClass/a.png") as file:
        shown = np.asarray(Image.open(file).convert("RGB"))
        named = [line.split(":")[:2] for line in archive.read("labelmap.txt").decode().splitlines()[1:]]
    known = {tuple(map(int, colour.split(","))) for _, colour in named}
    assert {tuple(colour) for colour in shown.reshape(-1, 3).tolist()} <= known
    assert named[-1][0] == "outside"


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["segment", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for option in (
        "RUN",
        "IMAGE...",
        "--out",
        "--checkpoint",
        "--crop",
        "--iterations",
        "--also",
        "--again",
        "--batch-size",
        "--json",
    ):
        assert option in printed


def test_names_of_slots_stand_where_slots_are_listed(run, pictures, tmp_path, capsys):
    assert main(["concepts", run, "--name", "0=background", "--name", "2=left petal"]) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    arguments = ["segment", run, str(pictures), "--out", str(out), "--also", "coco", "cvat"]
    assert main([*arguments, "--json"]) == 0
    called = ["background", "slot 1", "left petal"]
    assert json.loads(capsys.readouterr().out)["slots"] == called
    assert [one["name"] for one in json.loads((out / "instances.json").read_text())["categories"]] == called
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == called
    assert main(arguments) == 0
    assert "slots: 0 background, 2 left petal\n" in capsys.readouterr().out
    # Naming changes no label, so nothing is made anew.
    assert main(["concepts", run, "--name", "1=stem"]) == 0
    assert main(arguments) == 0
    assert "2 of them by an earlier call" in capsys.readouterr().out
