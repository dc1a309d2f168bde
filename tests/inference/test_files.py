"""Files and folders: which are found, what the outputs are called and hold, and what is left untouched."""

import shutil

import numpy as np
import pytest
from PIL import Image

from boqsa.errors import InputError
from boqsa.inference import Segmenter, files, segment_files
from boqsa.inference.files import find_pictures


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
        alone = Segmenter(model).segment(entry.image)
        with Image.open(entry.labels) as picture:
            assert picture.mode == "P"
            labels = np.asarray(picture)
        assert (labels == alone.labels).mean() > 0.99  # another batch size may round a tie otherwise
        with np.load(entry.arrays, allow_pickle=False) as arrays:
            assert sorted(arrays) == ["labels", "masks", "slots"]
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
        def segment_batch(self, pictures):
            sizes.append(len(pictures))
            return super().segment_batch(pictures)

    for index in range(5):
        paint(tmp_path / "in" / f"{index}.png", size=(10, 10))
    segment_files(Counting(model), [tmp_path / "in"], tmp_path / "out", batch_size=4)
    monkeypatch.setattr(files, "_BATCH_PIXELS", 150)
    shutil.rmtree(tmp_path / "out")
    segment_files(Counting(model), [tmp_path / "in"], tmp_path / "out", batch_size=4)
    assert sizes == [4, 1, 2, 2, 1]
