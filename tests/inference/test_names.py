"""Names of slots: what can be one, that they are stored whole, and that a foreign file is left alone."""

import importlib
import json
import threading

import numpy as np
import pytest
from huggingface_hub.errors import EntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

import boqsa
from boqsa.errors import InputError, RunError
from boqsa.inference.exchange import coco_categories, label_map_text
from boqsa.inference.names import (
    LONGEST,
    NAMES,
    checked_names,
    name_slots,
    names_from_file,
    names_text,
    parsed_names,
    read_names,
)
from boqsa.inference.run import CONFIG, MODEL
from boqsa.inference.share import share
from boqsa.reports.naming import name_field

load_module = importlib.import_module("boqsa.inference.load")  # the package's own name is the function


def test_names_come_back_and_later_ones_are_added(run):
    assert read_names(run, 4) == {}
    assert name_slots(run, {2: "petal", 0: "background"}) == {0: "background", 2: "petal"}
    assert name_slots(run, {1: "  Blätter,\tgrün "}) == {0: "background", 1: "Blätter, grün", 2: "petal"}
    assert json.loads((run / NAMES).read_text(encoding="utf-8")) == {
        "0": "background",
        "1": "Blätter, grün",
        "2": "petal",
    }
    assert name_slots(run, {0: "petal", 2: ""}) == {0: "petal", 1: "Blätter, grün"}  # one goes, another takes its name
    assert read_names(run, 4) == {0: "petal", 1: "Blätter, grün"}


def test_two_slots_exchange_their_names(run):
    name_slots(run, {0: "floor", 1: "wall"})
    assert name_slots(run, {0: "wall", 1: "floor"}) == {0: "wall", 1: "floor"}


def test_of_two_that_name_slots_at_once_no_name_is_lost(run, monkeypatch):
    other = threading.Thread(target=name_slots, args=(run, {1: "wall"}))

    def read_while_another_names(folder, num_slots):
        found = read_names(folder, num_slots)
        if other.ident is None:
            other.start()
            other.join(1)  # without a lock it is done by then
        return found

    monkeypatch.setattr("boqsa.inference.names.read_names", read_while_another_names)
    name_slots(run, {0: "floor"})
    other.join()
    assert read_names(run, 4) == {0: "floor", 1: "wall"}


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({4: "far"}, r"slot 4 does not exist; slots are 0 to 3"),
        ({4: ""}, r"slot 4 does not exist"),
        ({-1: "before"}, r"slot -1 does not exist"),
        ({0: "a" * (LONGEST + 1)}, "61 characters, at most 60"),
        ({0: "a\x00b"}, "cannot be printed"),
        ({0: "a\u202eb"}, "cannot be printed"),
        ({0: "a\udc80"}, "cannot be printed"),
        ({0: "sky: blue"}, "colon"),
        ({0: "#sky"}, "begin with a letter or a digit"),
        ({0: "Outside"}, "outside the crop"),
        ({0: "Slot 3"}, "slot without a name"),
        ({0: "leaf", 3: "Leaf"}, r"slots 0 and 3 are both named 'Leaf'; tell them apart, as by 'Leaf 1' and 'Leaf 2'"),
        ({2: "PETAL"}, "slots 1 and 2 are both named"),
    ],
)
def test_what_cannot_be_a_name_changes_nothing(run, names, reason):
    name_slots(run, {1: "petal"})
    before = (run / NAMES).read_bytes()
    with pytest.raises(InputError, match=reason) as caught:
        name_slots(run, names)
    assert "\n" not in str(caught.value)
    assert (run / NAMES).read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"0": 1}',
        b'{"00": "a"}',
        b'{"-1": "a"}',
        b'{"0": ""}',
        b'{"4": "a"}',
        b'{"0": "a", "1": "A"}',
        b'{"0": "a\\u0007"}',
        b'{"0": "a"',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_file_is_one_line_and_stays(run, content):
    (run / NAMES).write_bytes(content)
    for attempt in (
        lambda: read_names(run, 4),
        lambda: name_slots(run, {0: "floor"}),
        lambda: boqsa.Segmenter.from_pretrained(run),
        lambda: share(run, run.parent / "shared"),
    ):
        with pytest.raises(RunError, match=r"names\.json does not hold names of slots .*move it away") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert (run / NAMES).read_bytes() == content
    assert not (run.parent / "shared").exists()
    boqsa.load(run)  # the model needs no names


def test_nothing_is_written_through_a_link(run, tmp_path):
    (tmp_path / "theirs").write_text("{}")
    (run / NAMES).symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match="is a link"):
        name_slots(run, {0: "floor"})
    assert (tmp_path / "theirs").read_text() == "{}"


def test_names_as_they_are_typed():
    assert parsed_names(["0=background", "2=left = petal", "3="]) == {0: "background", 2: "left = petal", 3: ""}
    for wrong in ("background", "a=b", "=b", "1.0=b", "-1=b", "²=b"):
        with pytest.raises(InputError, match="expected SLOT=NAME"):
            parsed_names([wrong])
    with pytest.raises(InputError, match="slot 0 is named twice"):
        parsed_names(["0=a", "00=b"])


def test_names_of_a_downloaded_file(tmp_path):
    (tmp_path / NAMES).write_text(names_text({0: "Blätter", 3: "b"}), encoding="utf-8")
    assert names_from_file(tmp_path / NAMES) == {0: "Blätter", 3: "b"}
    with pytest.raises(InputError, match="does not exist"):
        names_from_file(tmp_path / "missing.json")
    (tmp_path / NAMES).write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        names_from_file(tmp_path / NAMES)


def test_what_is_found_has_the_names(run):
    name_slots(run, {0: "background", 2: "petal"})
    segmenter = boqsa.Segmenter.from_pretrained(run)
    assert segmenter.names == {0: "background", 2: "petal"}
    found = segmenter.predict(np.zeros((9, 7, 3), np.uint8))
    assert found.names == segmenter.names
    owners = found.to_supervision().class_id
    called = ["background", "slot 1", "petal", "slot 3"]
    assert found.to_supervision()["class_name"].tolist() == [called[slot] for slot in owners]
    assert [one["name"] for one in coco_categories(len(found.slots), found.names)] == called
    assert [line.split(":")[0] for line in label_map_text(4, found.names).splitlines()[1:]] == called
    with pytest.raises(InputError, match="slot 9 does not exist"):
        boqsa.Segmenter(segmenter.model, names={9: "far"})


def test_names_are_shared_and_come_back_from_the_hub(run, tmp_path, monkeypatch):
    name_slots(run, {1: "petal_*x*"})
    folder = share(run, tmp_path / "shared")
    assert boqsa.Segmenter.from_pretrained(folder).names == {1: "petal_*x*"}
    assert NAMES in json.loads((folder / "manifest.json").read_text())["sha256"]
    assert r"1 petal\_\*x\*." in (folder / "README.md").read_text()
    share(run, folder)  # made again in its place

    def download(repo_id, name, *, revision, local_files_only):
        if name not in there:
            raise EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(load_module.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(load_module, "hf_hub_download", download)
    there = {CONFIG, MODEL, NAMES}
    assert boqsa.Segmenter.from_pretrained("someone/model").names == {1: "petal_*x*"}
    (folder / NAMES).unlink()
    there = {CONFIG, MODEL}
    assert boqsa.Segmenter.from_pretrained("someone/model").names == {}


def test_a_field_of_the_page_takes_as_much_as_a_name_may_have():
    assert f'maxlength="{LONGEST}"' in name_field(0, {}, "")


@given(st.dictionaries(st.integers(0, 6), st.text(max_size=LONGEST + 2), max_size=7))
def test_whatever_passes_is_a_line_of_its_own_for_cvat(names):
    try:
        checked = checked_names(names, 7)
    except InputError:
        return
    lines = label_map_text(7, checked, with_outside=True).splitlines()[1:]
    assert len({line.split(":")[0].casefold() for line in lines}) == 8
    assert all(line.count(":") == 3 and not line.startswith("#") for line in lines)
