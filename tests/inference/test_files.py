"""Files and folders: which are found, what the outputs are called and hold, and what is left untouched."""

import copy
import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.errors import InputError
from boqsa.inference import Segmenter, files, segment_files
from boqsa.inference.files import find_pictures
from boqsa.models import adaptive


def paint(path, size=(20, 10), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names(pictures, out):
    return [str(name.relative_to(out)) for name in pictures.values()]


def test_the_three_files_hold_what_was_found(model, tmp_path, zoo):
    done, skipped = segment_files(Segmenter(model), [tmp_path / "zoo"], tmp_path / "out", batch_size=4)
    assert not skipped
    assert sorted(entry.image for entry in done) == sorted(zoo.values())
    for entry in done:
        alone = Segmenter(model).predict(entry.image)
        with Image.open(entry.labels) as picture:
            assert picture.mode == "P"
            labels = np.asarray(picture)
        assert (labels == alone.labels).mean() > 0.99  # another batch size may round a tie otherwise
        with np.load(entry.arrays, allow_pickle=False) as arrays:
            assert sorted(arrays) == ["areas", "labels", "made_from", "masks", "slots"]
            np.testing.assert_array_equal(arrays["labels"], labels)
            np.testing.assert_allclose(arrays["masks"], alone.masks, atol=1e-5)
            np.testing.assert_allclose(arrays["slots"], alone.slots, atol=1e-4)
        with Image.open(entry.overlay) as picture:
            assert (picture.mode, picture.size) == ("RGB", labels.shape[::-1])
        assert entry.areas == [float((labels == slot).mean()) for slot in range(4)]
    assert len(list((tmp_path / "out").iterdir())) == 3 * len(zoo)


def test_sub_folders_are_mirrored_and_the_rest_is_left_out(tmp_path):
    source, out = tmp_path / "in", tmp_path / "in" / "results"
    for name in ("b.png", "deep/er/a.JPG", ".hidden.png", ".trash/c.png", "results/b_labels.png"):
        paint(source / name)
    (source / "notes.txt").write_text("no picture", encoding="utf-8")
    (source / "folder.png").mkdir()
    assert names(find_pictures([source], out), out) == ["b", "deep/er/a"]


def test_a_folder_that_may_not_be_listed_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    for name in ("a.png", "locked/b.png", ".hidden/c.png"):
        paint(tmp_path / "in" / name)
    real = os.scandir

    def guarded(folder):  # root may list everything, so permissions would refuse these tests nothing
        if Path(folder).name in locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    for locked in (["locked"], ["in"]):
        with pytest.raises(InputError, match=rf"^cannot read the folder .*/{locked[0]}: Permission denied\.$"):
            find_pictures([tmp_path / "in"], tmp_path / "out")
    locked = [".hidden"]  # nobody looks into it
    assert names(find_pictures([tmp_path / "in"], tmp_path / "out"), tmp_path / "out") == ["a", "locked/b"]


def test_links_are_followed_and_lead_nowhere_twice(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    paint(tmp_path / "elsewhere" / "a.png")
    paint(source / "photo.png")
    paint(source / "z" / "b.png")
    paint(out / "photo_overlay.png")
    (source / "again").symlink_to(source / "z")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "gone.png").symlink_to(tmp_path / "nothing")
    (source / "latest.png").symlink_to("photo.png")
    (source / "results").symlink_to(out)
    (source / "z" / "round").symlink_to(source)
    assert names(find_pictures([source], out), out) == ["folder/a", "latest", "photo", "z/b"]


def test_formats_that_are_not_read_are_skipped_and_rename_nothing(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    good = paint(source / "a.png")
    for name in ("a.heic", "b.NEF", "notes.txt"):
        (source / name).write_text("no picture that is read")
    told = []
    done, skipped = segment_files(
        Segmenter(model), [source], out, progress=lambda done, total: told.append((done, total))
    )
    assert [(entry.image, entry.overlay) for entry in done] == [(good, out / "a_overlay.png")]
    assert [entry.reason for entry in skipped] == [
        f"{source / 'a.heic'} is HEIC, which is not read; convert it to JPEG.",
        f"{source / 'b.NEF'} is NEF, which is not read; convert it to JPEG.",
    ]
    assert told[-1] == (3, 3)
    good.unlink()
    with pytest.raises(InputError, match=r"nothing could be segmented: .*a\.heic is HEIC.* \(1 more were skipped\)"):
        segment_files(Segmenter(model), [source], out)


def test_a_folder_below_the_output_folder_is_searched(tmp_path):
    paint(tmp_path / "in" / "a.png")
    assert names(find_pictures([tmp_path / "in"], tmp_path), tmp_path) == ["a"]


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    inputs = [paint(tmp_path / name) for name in ("a.png", "a.jpg", "x/a.png", "A.bmp", "a_png.jpg", "b.c.png")]
    found = names(find_pictures(inputs, tmp_path / "out"), tmp_path / "out")
    assert found == ["a_png_2", "a_jpg", "a_png_3", "A_bmp", "a_png", "b.c"]


def test_a_picture_named_twice_counts_once(tmp_path):
    path = paint(tmp_path / "in" / "a.png")
    assert list(find_pictures([path, tmp_path / "in", tmp_path / "in" / ".." / "in"], tmp_path / "out")) == [path]


def test_broken_pictures_are_skipped_and_said(model, tmp_path, broken):
    good = paint(tmp_path / "broken" / "good.png")
    done, skipped = segment_files(Segmenter(model), [tmp_path / "broken"], tmp_path / "out")
    assert [entry.image for entry in done] == [good]
    assert [entry.image for entry in skipped] == list(broken.values())
    assert all(entry.image.name in entry.reason for entry in skipped)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good.npz",
        "good_labels.png",
        "good_overlay.png",
    ]


def test_long_names_are_segmented_as_long_as_results_can_be_named(model, tmp_path):
    fits = paint(tmp_path / "in" / f"{'a' * (255 - len('_overlay.png'))}.png")
    one_more = paint(tmp_path / "in" / f"{'b' * (256 - len('_overlay.png'))}.png")
    done, skipped = segment_files(Segmenter(model), [tmp_path / "in"], tmp_path / "out")
    assert [entry.image for entry in done] == [fits]
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert [entry.image for entry in skipped] == [one_more]
    assert "too long a name" in skipped[0].reason


def test_nothing_is_made_where_nothing_could_be_read(model, tmp_path, broken):
    for inputs in ([broken["empty.png"]], list(broken.values())):
        with pytest.raises(InputError, match=r"nothing could be segmented: .*empty\.png"):
            segment_files(Segmenter(model), inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_make_nothing(model, tmp_path):
    segmenter, out = Segmenter(model), tmp_path / "out"
    path = paint(tmp_path / "in" / "a.png")
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        segment_files(segmenter, [path, tmp_path / "gone.png"], out)
    with pytest.raises(InputError, match=r"no pictures in .*void"):
        segment_files(segmenter, [tmp_path / "void"], out)
    with pytest.raises(InputError, match="no pictures"):
        segment_files(segmenter, [], out)
    with pytest.raises(InputError, match="batch_size is 0"):
        segment_files(segmenter, [path], out, batch_size=0)
    with pytest.raises(InputError, match=r"a\.png is a file"):
        segment_files(segmenter, [path], path)
    with pytest.raises(InputError, match="folder of pictures"):
        segment_files(segmenter, [tmp_path / "in"], tmp_path / "in")
    with pytest.raises(InputError, match="cannot make"):
        segment_files(segmenter, [path], path / "below")
    assert not out.exists()
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["a.png"]


def test_a_picture_is_never_overwritten(model, tmp_path):
    inputs = [paint(tmp_path / "a.png"), paint(tmp_path / "a_labels.png", seed=1)]
    before = [path.read_bytes() for path in inputs]
    with pytest.raises(InputError, match=r"overwrite the picture .*a_labels\.png"):
        segment_files(Segmenter(model), inputs, tmp_path)
    assert [path.read_bytes() for path in inputs] == before


def test_old_results_are_replaced(model, tmp_path):
    path = paint(tmp_path / "a.png", size=(20, 10))
    segment_files(Segmenter(model), [path], tmp_path / "out")
    paint(path, size=(6, 8))
    segment_files(Segmenter(model), [path], tmp_path / "out")
    with Image.open(tmp_path / "out" / "a_labels.png") as picture:
        assert picture.size == (6, 8)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_large_pictures_make_smaller_batches(model, tmp_path, monkeypatch):
    sizes = []

    class Counting(Segmenter):
        def predict_batch(self, pictures):
            sizes.append(len(pictures))
            return super().predict_batch(pictures)

    for index in range(5):
        paint(tmp_path / "in" / f"{index}.png", size=(10, 10))
    segment_files(Counting(model), [tmp_path / "in"], tmp_path / "out", batch_size=4)
    monkeypatch.setattr(files, "_BATCH_PIXELS", 150)
    shutil.rmtree(tmp_path / "out")
    segment_files(Counting(model), [tmp_path / "in"], tmp_path / "out", batch_size=4)
    assert sizes == [4, 1, 2, 2, 1]


def made(out):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}


def test_a_call_that_was_cut_off_goes_on(model, tmp_path, monkeypatch):
    for index in range(6):
        paint(tmp_path / "in" / f"{index}.png", seed=index)
    whole = segment_files(Segmenter(model), [tmp_path / "in"], tmp_path / "whole", batch_size=2)[0]
    real = files.save_png

    def dying(path, *rest, **options):
        if path.name == "3_overlay.png":
            raise KeyboardInterrupt
        real(path, *rest, **options)

    monkeypatch.setattr(files, "save_png", dying)
    with pytest.raises(KeyboardInterrupt):
        segment_files(Segmenter(model), [tmp_path / "in"], tmp_path / "out", batch_size=2)
    monkeypatch.setattr(files, "save_png", real)
    before = made(tmp_path / "out")
    assert "0.npz" in before
    assert "3.npz" not in before
    done, _ = segment_files(Segmenter(model), [tmp_path / "in"], tmp_path / "out", batch_size=2)
    assert [entry.areas for entry in done] == [entry.areas for entry in whole]
    assert not done[0].is_new
    assert done[3].is_new
    after = made(tmp_path / "out")
    assert all(after[name] == content for name, content in before.items() if name.startswith(("0", "1")))
    assert {name: content for name, (content, _) in after.items() if name.endswith(".png")} == {
        name: content for name, (content, _) in made(tmp_path / "whole").items() if name.endswith(".png")
    }


def test_needed_slots_of_a_transformer_are_results_of_their_own(transformer, tmp_path, monkeypatch):
    picture = paint(tmp_path / "a.png")
    plain, leaving = Segmenter(transformer), Segmenter(transformer, adaptive=True)
    runs = [segment_files(segmenter, [picture], tmp_path / "out") for segmenter in (plain, leaving, leaving)]
    assert [done[0].is_new for done, _ in runs] == [True, True, False]
    monkeypatch.setattr(adaptive, "LEAST_RISE_OF_TOKENS", 0.5)  # a version with another threshold
    assert segment_files(leaving, [picture], tmp_path / "out")[0][0].is_new


def test_what_is_done_is_done_again_only_if_something_changed(model, tmp_path):
    model = copy.deepcopy(model)  # it is changed below
    paint(tmp_path / "in" / "a.png")
    paint(tmp_path / "in" / "b.png", seed=1)
    out = tmp_path / "out"

    def new(segmenter, **options):
        done, _ = segment_files(segmenter, [tmp_path / "in"], out, **options)
        return [entry.is_new for entry in done]

    assert new(Segmenter(model)) == [True, True]
    assert new(Segmenter(model)) == [False, False]
    assert new(Segmenter(model), again=True) == [True, True]
    assert new(Segmenter(model, iterations=1)) == [True, True]
    assert new(Segmenter(model, iterations=1, crop=True)) == [True, True]
    paint(tmp_path / "in" / "b.png", seed=2)
    assert new(Segmenter(model, iterations=1, crop=True)) == [False, True]
    (out / "a_overlay.png").unlink()
    (out / "b.npz").write_bytes(b"cut off")
    assert new(Segmenter(model, iterations=1, crop=True)) == [True, True]
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert new(Segmenter(model, iterations=1, crop=True)) == [True, True]


def test_few_pictures_are_in_memory(model, tmp_path, monkeypatch):
    """Decoded and not yet written: two batches, and those that are read ahead."""
    for index in range(40):
        paint(tmp_path / "in" / f"{index:02}.png", seed=index)
    lock, alive, most = threading.Lock(), 0, 0
    read, write = files._read, files._write

    def reading(*arguments):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return read(*arguments)

    def writing(*arguments):
        nonlocal alive
        found = write(*arguments)
        with lock:
            alive -= 1
        return found

    monkeypatch.setattr(files, "_read", reading)
    monkeypatch.setattr(files, "_write", writing)
    told = []
    segment_files(
        Segmenter(model),
        [tmp_path / "in"],
        tmp_path / "out",
        batch_size=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert 4 <= most <= 2 * 4 + files._AHEAD + 1
    assert alive == 0
    assert told[-1] == (40, 40)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_picture_that_changes_while_it_is_read_is_skipped(model, tmp_path, monkeypatch):
    paths = [paint(tmp_path / "in" / name) for name in ("a.png", "b.png", "c.png")]
    real = files.read_picture

    def changing(path):
        pixels = real(path)
        if path.name == "a.png":
            paint(path, size=(33, 44))
        if path.name == "b.png":
            path.unlink()
        return pixels

    monkeypatch.setattr(files, "read_picture", changing)
    done, skipped = segment_files(Segmenter(model), [tmp_path / "in"], tmp_path / "out")
    assert [entry.image for entry in done] == paths[2:]
    assert [entry.image for entry in skipped] == paths[:2]
    assert "changed while it was read" in skipped[0].reason
    assert "cannot be read" in skipped[1].reason


def test_results_of_other_settings_that_were_cut_off_are_made_again(model, tmp_path, monkeypatch):
    path, out = paint(tmp_path / "a.png", size=(30, 20)), tmp_path / "out"
    segment_files(Segmenter(model), [path], out)
    before = (out / "a_labels.png").read_bytes()
    real = files.save_png

    def dying(file, *rest, **options):
        if file.name == "a_overlay.png":
            raise KeyboardInterrupt
        real(file, *rest, **options)

    monkeypatch.setattr(files, "save_png", dying)
    with pytest.raises(KeyboardInterrupt):
        segment_files(Segmenter(model, iterations=1, crop=True), [path], out)
    monkeypatch.setattr(files, "save_png", real)
    assert (out / "a_labels.png").read_bytes() != before
    (again,), _ = segment_files(Segmenter(model), [path], out)
    assert again.is_new
    assert (out / "a_labels.png").read_bytes() == before


def test_what_killed_calls_left_half_written_goes(tmp_path):
    out, dead, alive = tmp_path / "out", 2**22 + 1, os.getppid()  # the first is more than a system gives
    left = [out / f".partial-{dead}-a.npz", out / "sub" / f".partial-{dead}-b\nc_labels.png"]
    kept = [out / f".partial-{alive}-a.npz", out / ".partial-mine", out / "other" / f".partial-{dead}-a.npz"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with files.alone_in(out, [out / "a", out / "sub" / "b", out / "new" / "c"]):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_another_picture_of_the_same_name_size_and_time_is_another(model, tmp_path):
    one, other = (paint(tmp_path / name / "a.bmp", seed=seed) for seed, name in enumerate(("x", "y")))
    os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    assert one.stat().st_size == other.stat().st_size
    for path in (one, other):
        (entry,), _ = segment_files(Segmenter(model), [path], tmp_path / "out")
        assert entry.is_new


def test_the_trained_number_of_iterations_and_the_same_number_are_the_same(model, tmp_path):
    path = paint(tmp_path / "a.png")
    segment_files(Segmenter(model), [path], tmp_path / "out")
    trained = model.slot_encoder.iterations
    (entry,), _ = segment_files(Segmenter(model, iterations=trained), [path], tmp_path / "out")
    assert not entry.is_new
