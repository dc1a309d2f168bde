"""Every item from nothing to its files, on a toy budget; and what is done already."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from boqsa.atomic import write_text
from boqsa.data import builtin
from boqsa.data.packing import write_packed
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError, MachineError, RunError
from boqsa.models.radiance.pretrained import LPIPS
from boqsa.reproduce import drawings, measure
from boqsa.reproduce.carry_out import Done, carry_out
from boqsa.reproduce.experiment import Test
from boqsa.reproduce.items import ITEMS, build
from boqsa.reproduce.measure import Found, look_at, take_looks
from boqsa.reproduce.plan import built, data_needed, looks_of, placed, require_data, runs_of, with_lpips
from boqsa.reproduce.rows import read_rows
from boqsa.reproduce.scales import SMALL, task_of
from boqsa.training.sweep import PlannedRun
from boqsa.training.sweep.engine import Ended, Outcome
from boqsa.training.sweep.worker import work_on

TOY = {
    "train.steps": "2",
    "train.batch_size": "2",
    "train.evaluate_every": "2",
    "train.checkpoint_every": "2",
    "model.slot_size": "8",
    "model.mlp_size": "8",
    "data.scene_count": "4",
}
"""A network and a budget that only show that everything fits together."""

TOY_VIEWS = {
    **{name: value for name, value in TOY.items() if name != "model.mlp_size"},
    **{"train.radiance.rays": "16", "train.radiance.samples": "4", "train.radiance.views": "2"},
    **{"evaluate.radiance.size": "16", "evaluate.radiance.samples": "4", "evaluate.radiance.views": "2"},
}
"""The same for radiance models."""

DATA = (
    *("flowers17", "weizmann_horses", "birds", "dogs", "cars", "flowers"),
    *("objectsroom", "clevrtex_full", "clevrtex_outd", "clevrtex_camo", "ptr", "ycb", "scannet", "coco"),
)


@dataclass
class _Ended:
    end: Ended

    def poll(self) -> Ended:
        return self.end


class InProcess:
    """An engine without processes; runs whose name holds `broken` break."""

    at_once = 1
    stops_jobs = True

    def __init__(
        self, broken: str | None = None, words: str = "the loss is not a number at step 3", *, killed: bool = False
    ) -> None:
        self.broken, self.words = broken, words
        self.outcome = Outcome.BROKEN if killed else Outcome.REFUSED
        self.started: list[str] = []

    def start(self, sweep: Path, run: PlannedRun, *, evaluate: bool) -> _Ended:
        self.started.append(run.name)
        if self.broken is not None and self.broken in run.name:
            return _Ended(Ended(self.outcome, self.words))
        return _Ended(work_on(sweep, run, evaluate=evaluate))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Eight rendered scenes a split in place of every data set, and few built-in ones."""
    folder = tmp_path_factory.mktemp("reproduce")
    scenes = render_scenes(8, seed=3, settings=SceneSettings(image_size=32))
    images, masks = scenes.image[:, 0], scenes.mask[:, 0]
    for name in DATA:
        foreground = task_of(name) == "foreground"
        labels = np.minimum(masks, 1) if foreground else masks
        splits = dict.fromkeys(("train", "val", "test"), (images, labels))
        task = "foreground" if foreground else "multi-object"
        write_packed(
            folder / "data" / name, splits, name=name, source="drawn", licence="none", task=task, split_rule="all"
        )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BOQSA_CACHE", str(folder / "cache"))
        patched.setattr(builtin, "TEST_SCENES", 8)
        patched.setattr(builtin, "VALIDATION_SCENES", 4)
        patched.setattr(builtin, "_STARTS", {"test": 0, "val": 8, "train": 12})
        yield folder


def toy_of(name: str) -> dict[str, str]:
    return TOY_VIEWS if name == "table19" else TOY


def ask(
    place: Path,
    *names: str,
    out: str = "out",
    runs: str = "runs",
    engine: InProcess | None = None,
    datasets: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0,),
    toy: dict[str, str] | None = None,
) -> Done:
    items = [built(name, SMALL, toy or toy_of(name)) for name in names]
    experiments = placed(items, root=place / "data", datasets=datasets)
    looks = looks_of(experiments, seeds)
    require_data(data_needed(looks))
    return carry_out(
        experiments,
        looks,
        whole={item.item: item for item in items},
        runs_folder=place / runs,
        out=place / out,
        engine=engine or InProcess(),
        lookers=0,
    )


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_writes_its_rows_its_table_and_its_pictures(place: Path, name: str) -> None:
    done = ask(place, name)
    assert not done.failed
    experiment = built(name, SMALL, toy_of(name))
    table = place / "out" / f"{name}.csv"
    rows = read_rows(table)
    asked = {(arm.method, test.data.name, test.condition) for arm in experiment.arms for test in arm.tests}
    assert {(row.method, row.dataset, row.condition) for row in rows} >= asked
    text = (place / "out" / f"{name}.md").read_text()
    assert text.startswith(f"# {experiment.title}\n")
    for arm in experiment.arms:
        assert arm.method in text
    pictures = [path for path in done.written if path.suffix == ".png"]
    assert bool(pictures) == bool(experiment.figures)
    for picture in pictures:
        assert min(Image.open(picture).size) > 50


@pytest.mark.parametrize(("item", "deleted"), [("figure6", "consistency_weight=0.01_"), ("figure14", "flowers17_")])
def test_what_is_done_is_not_done_again_and_what_was_deleted_comes_back_bit_for_bit(
    place: Path, item: str, deleted: str
) -> None:
    """Of a mixture whose slots are looked at, and of a transformer that is scored."""
    ask(place, item)
    table = place / "out" / f"{item}.csv"
    before = table.read_bytes()
    again = InProcess()
    ask(place, item, engine=again)
    assert not again.started
    assert table.read_bytes() == before
    gone = next(path for path in (place / "runs").iterdir() if deleted in path.name and "_bo_qsa" in path.name)
    shutil.rmtree(gone)
    table.unlink()
    ask(place, item, engine=again)
    assert again.started == [gone.name]
    assert table.read_bytes() == before


def test_a_run_that_fails_is_told_and_counts_as_failed(place: Path) -> None:
    done = ask(place, "stability", out="broken", engine=InProcess(broken="_i_sa,clip_norm=0"), seeds=(7,))
    assert len(done.failed) == 2
    rows = [row for row in read_rows(place / "broken" / "stability.csv") if row.method == "I-SA"]
    failed = {row.condition: row.value for row in rows if row.metric == "failed"}
    assert failed["warmup=on;clipping=off"] == failed["warmup=off;clipping=off"] == 1
    assert len(failed) == 4
    scored = {row.condition for row in rows if row.metric == "ari_fg"}
    assert scored == {"warmup=on;clipping=on", "warmup=off;clipping=on"}


def test_a_run_that_was_killed_says_nothing_about_its_method(place: Path) -> None:
    engine = InProcess(broken="_bo_sa_seed8", words="no space is left", killed=True)
    done = ask(place, "stability", out="killed", engine=engine, seeds=(8,))
    assert list(done.failed.values()) == ["no space is left"]
    rows = read_rows(place / "killed" / "stability.csv")
    of_method = {row.condition for row in rows if row.method == "BO-SA" and row.metric == "failed"}
    assert of_method == {"warmup=on;clipping=off", "warmup=off;clipping=on", "warmup=off;clipping=off"}


def test_data_sets_that_are_left_out_keep_their_rows(place: Path) -> None:
    ask(place, "table7", out="parts")
    all_of_it = (place / "parts" / "table7.csv").read_bytes()
    ask(place, "table7", out="parts", datasets=("scenes",))
    assert (place / "parts" / "table7.csv").read_bytes() == all_of_it


def test_a_transfer_keeps_the_rows_of_its_other_source(place: Path) -> None:
    ask(place, "table14", out="sources")
    all_of_it = (place / "sources" / "table14.csv").read_bytes()
    (place / "sources" / "table14.csv").unlink()
    everywhere = ("ycb", "coco", "scannet")
    items = [built("table14", SMALL, TOY)]
    for source in ("scannet", "coco"):
        (whole,) = placed(items, root=place / "data", datasets=everywhere)
        part = replace(whole, arms=tuple(arm for arm in whole.arms if arm.recipe.data.name == source))
        carry_out(
            [part],
            looks_of([part], (0,)),
            whole={"table14": items[0]},
            runs_folder=place / "runs",
            out=place / "sources",
            engine=InProcess(),
            lookers=0,
        )
    assert (place / "sources" / "table14.csv").read_bytes() == all_of_it


def test_other_seeds_stay_and_those_of_another_setting_go(place: Path) -> None:
    ask(place, "table17", out="seeds", seeds=(0, 1))
    both = (place / "seeds" / "table17.csv").read_bytes()
    ask(place, "table17", out="seeds", seeds=(1,))
    assert (place / "seeds" / "table17.csv").read_bytes() == both
    done = ask(place, "table17", out="seeds", seeds=(1,), toy={**TOY, "train.learning_rate": "1e-5"})
    assert {row.seed for row in read_rows(place / "seeds" / "table17.csv")} == {1}
    assert "table17: KMeans on scenes" in done.left_out


def test_curves_go_over_the_seeds_of_earlier_commands_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, dict[int, list[float]]]] = []

    def figure(scores: dict[str, dict[int, list[float]]], **_: object) -> np.ndarray:
        drawn.append(scores)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(drawings, "iterations_figure", figure)
    ask(place, "figure2", datasets=("scenes",), seeds=(0,))
    ask(place, "figure2", datasets=("scenes",), seeds=(1,))
    rows = read_rows(place / "out" / "figure2.csv")
    assert list(drawn[1]["SA"]) == [1, 2, 3, 5, 7]
    for count, values in drawn[1]["SA"].items():
        assert values == [
            row.value
            for row in rows
            if (row.method, row.metric, row.condition, row.selection)
            == ("SA", "ari_fg", f"test_iterations={count}", "last")
        ]
        assert len(values) == 2
    assert [len(values) for values in drawn[0]["SA"].values()] == [1] * 5


def test_table_19_has_lpips_where_its_weights_are_given(place: Path, tmp_path: Path) -> None:
    weights = tmp_path / "lpips.pth"
    torch.save({name: value.abs() for name, value in LPIPS(None).state_dict().items()}, weights)
    whole = built("table19", SMALL, {**TOY_VIEWS, "evaluate.radiance.size": "32"})
    experiments = with_lpips(placed([replace(whole, arms=whole.arms[:1])], root=place / "data"), [weights])
    asked = {"whole": {"table19": whole}, "runs_folder": place / "runs-lpips", "out": tmp_path, "lookers": 0}
    carry_out(experiments, looks_of(experiments, [0]), engine=InProcess(), **asked)
    (row,) = [row for row in read_rows(tmp_path / "table19.csv") if (row.metric, row.selection) == ("lpips", "last")]
    assert row.value > 0
    before = (tmp_path / "table19.csv").read_bytes()
    torch.save({name: 2 * value for name, value in LPIPS(None).state_dict().items()}, weights)
    again = InProcess()
    carry_out(experiments, looks_of(experiments, [0]), engine=again, **asked)  # other weights: looked at anew
    assert not again.started
    assert (tmp_path / "table19.csv").read_bytes() != before


def test_lpips_is_refused_before_anything_is_trained(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="figure8 renders none"):
        with_lpips([built("figure8", SMALL, TOY)], [tmp_path / "lpips.pth"])
    with pytest.raises(InputError, match="cannot read"):
        with_lpips([built("table19", SMALL, {})], [tmp_path / "lpips.pth"])
    with pytest.raises(InputError, match="LPIPS needs views of 32 pixels"):
        with_lpips([built("table19", SMALL, {"evaluate.radiance.size": "16"})], [tmp_path / "lpips.pth"])


def test_what_cannot_be_written_is_said_before_anything_is_trained(place: Path) -> None:
    (place / "a-file").write_text("")
    engine = InProcess()
    with pytest.raises(InputError, match=r"cannot write to .*a-file/out.*--out"):
        ask(place, "figure8", out="a-file/out", engine=engine, seeds=(9,))
    (place / "damaged").mkdir()
    (place / "damaged" / "figure8.csv").write_text("method,value\n")
    with pytest.raises(InputError, match=r"figure8\.csv begins with"):
        ask(place, "figure8", out="damaged", engine=engine, seeds=(9,))
    assert not engine.started


def test_a_folder_of_something_else_than_runs_is_refused_before_anything_is_trained(place: Path) -> None:
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter.tex").write_text("words")
    engine = InProcess()
    with pytest.raises(RunError, match=r"thesis is not empty and holds no plan\.json; choose another folder"):
        ask(place, "figure8", runs="thesis", engine=engine)
    with pytest.raises(RunError, match=r"chapter\.tex is a file; choose another folder"):
        ask(place, "figure8", runs="thesis/chapter.tex", engine=engine)
    assert not engine.started
    assert [path.name for path in (place / "thesis").iterdir()] == ["chapter.tex"]


def test_a_folder_that_another_command_just_begins_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has made the folder and no plan yet, and takes away the file that shows whether one can write."""
    (place / "begun" / ".sweep").mkdir(parents=True)

    def written_and_taken_away(path: Path, text: str) -> None:
        write_text(path, text)
        path.unlink()

    monkeypatch.setattr("boqsa.reproduce.carry_out.write_text", written_and_taken_away)
    engine = InProcess(broken="")
    ask(place, "figure8", out="two", runs="begun", engine=engine)
    assert engine.started
    assert (place / "begun" / "plan.json").is_file()


def test_a_look_that_cannot_be_taken_does_not_end_the_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_all = measure.look_at

    def refuse_one(folder: Path, test: Test) -> Found:
        if "_sa_" in folder.name:
            raise InputError("its data is gone")
        return look_at_all(folder, test)

    monkeypatch.setattr(measure, "look_at", refuse_one)
    done = ask(place, "figure6", out="one-less")
    assert list(done.failed.values()) == ["its data is gone"]
    assert {row.method for row in read_rows(place / "one-less" / "figure6.csv")} == {"BO-QSA", "VQ-constraint"}


def test_a_metric_of_fewer_images_says_so() -> None:
    """The spectral norm is a mean over the first eight of a split, whatever the other metrics see."""
    look = looks_of([built("stability", SMALL, TOY)], [0])[0]
    assert "update_spectral_norm" in look.test.metrics
    assert [measure.images_of(look.test, metric, 1000) for metric in ("ari_fg", "update_spectral_norm")] == [1000, 8]
    assert measure.images_of(look.test, "update_spectral_norm", 3) == 3


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (MemoryError(), "the memory does not suffice; end other programs"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the memory does not suffice; end other programs"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory does not suffice; end other programs"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/look"), "no space is left to write /a/look; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/look"), "cannot use /a/look: Permission denied; mend"),
    ],
)
def test_a_look_that_the_machine_ends_is_named_and_the_rest_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, words: str
) -> None:
    look_at_all = measure.look_at

    def refuse_one(folder: Path, test: Test) -> Found:
        if "_sa_" in folder.name:
            raise trouble
        return look_at_all(folder, test)

    monkeypatch.setattr(measure, "look_at", refuse_one)
    done = ask(place, "figure6", out="machine")
    (said,) = done.failed.values()
    assert said.startswith(words)
    assert {row.method for row in read_rows(place / "machine" / "figure6.csv")} == {"BO-QSA", "VQ-constraint"}


def test_a_bug_in_a_look_keeps_its_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, test: Test) -> Found:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(measure, "look_at", broken)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        ask(place, "figure6", out="bug")


def test_an_item_that_the_machine_cannot_write_does_not_end_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[Path]:
        raise OSError(errno.ENOSPC, "No space left on device", "/a/picture.png")

    monkeypatch.setattr("boqsa.reproduce.carry_out.draw", full)
    done = ask(place, "figure6", "figure8", out="full")
    assert done.failed.keys() == {"figure6", "figure8"}
    assert done.failed["figure6"].startswith("no space is left to write /a/picture.png; free some")


def test_a_look_is_taken_again_when_the_data_changes(place: Path, tmp_path: Path) -> None:
    (experiment,) = placed([built("figure8", SMALL, TOY)], root=place / "data")
    look = looks_of([experiment], [0])[0]
    ask(place, "figure8")
    folder = look.run.folder(place / "runs")
    before = look_at(folder, look.test)
    scenes = render_scenes(8, seed=4, settings=SceneSettings(image_size=32))
    other = dict.fromkeys(("train", "val", "test"), (scenes.image[:, 0], scenes.mask[:, 0]))
    words = {"name": "objectsroom", "source": "drawn", "licence": "none", "split_rule": "all"}
    write_packed(tmp_path / "objectsroom", other, task="multi-object", **words)
    moved = replace(look.test, data=replace(look.test.data, root=str(tmp_path / "objectsroom")))
    after = look_at(folder, moved)
    assert after.variant != before.variant
    assert after.values["last"] != before.values["last"]
    assert look_at(folder, look.test) == before


def test_a_look_of_a_gpu_is_none_of_the_cpu_and_the_other_way_round(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment,) = placed([built("figure8", SMALL, TOY)], root=place / "data")
    look = looks_of([experiment], [0])[0]
    ask(place, "figure8")
    folder, taken = look.run.folder(place / "runs"), list[str]()

    def values(*arguments: object) -> dict[str, float]:
        taken.append(str(arguments[-1]))
        return {"ari_fg": 0.5}

    monkeypatch.setattr(measure, "_values", values)
    look_at(folder, look.test)
    assert not taken  # the one of `ask` stands
    for device in ("cuda", "cuda", "cpu", "cpu"):
        monkeypatch.setattr(measure, "device_of", lambda recipe, device=device: device)
        look_at(folder, look.test)
    assert set(taken) == {"cuda", "cpu"}
    assert taken.count("cuda") == taken.count("cpu")
    shutil.rmtree(folder / "looks")  # what was found here is made up


def test_no_look_is_written_through_a_link(place: Path, tmp_path: Path) -> None:
    (experiment,) = placed([built("figure8", SMALL, TOY)], root=place / "data")
    look = looks_of([experiment], [0])[0]
    ask(place, "figure8")
    folder = Path(shutil.copytree(look.run.folder(place / "runs"), tmp_path / "run"))
    (folder / measure.FOLDER).rename(tmp_path / "thesis")
    before = {path.name: path.read_bytes() for path in (tmp_path / "thesis").iterdir()}
    (folder / measure.FOLDER).symlink_to(tmp_path / "thesis", target_is_directory=True)
    with pytest.raises(RunError, match="looks is a link"):
        look_at(folder, replace(look.test, last_alone=True))
    assert {path.name: path.read_bytes() for path in (tmp_path / "thesis").iterdir()} == before


def test_items_share_their_runs(place: Path) -> None:
    ask(place, "table7")
    again = InProcess()
    ask(place, "figure2", "figure3", "figure1", engine=again)
    assert not again.started
    assert runs_of(looks_of([build("figure2", SMALL)], [0]))


@pytest.mark.system
def test_looks_in_processes_of_their_own_find_the_same(place: Path) -> None:
    items = [built("figure8", SMALL, TOY)]
    looks = looks_of(placed(items, root=place / "data"), (0,))
    ask(place, "figure8")
    ((_, here),) = take_looks(place / "runs", looks, workers=0)
    shutil.rmtree(looks[0].run.folder(place / "runs") / "looks")
    ((_, there),) = take_looks(place / "runs", looks, workers=1)
    assert there == here
    shutil.rmtree(looks[0].run.folder(place / "runs") / "checkpoints")
    ((_, gone),) = take_looks(place / "runs", looks, workers=1)
    assert isinstance(gone, RunError)
    shutil.rmtree(looks[0].run.folder(place / "runs"))


@pytest.mark.system
def test_a_process_that_dies_is_told_by_its_looks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [built("figure8", SMALL, TOY)]
    looks = looks_of(placed(items, root=place / "data"), (0,))
    monkeypatch.setattr(measure, "_begin", os.abort)
    found = list(take_looks(place / "runs", looks, workers=1))
    assert [look for look, _ in found] == looks
    for _, one in found:
        assert isinstance(one, MachineError)
        assert str(one).startswith("a process that scores died, perhaps for want of memory; give the command again")


class _Pool:
    """Stands for the pool of processes, without any; keeps what it was made with."""

    made: ClassVar["list[_Pool]"] = []

    def __init__(self, workers: int, *, initargs: Sequence[Any], **_: object) -> None:
        self.places = initargs[0]
        self.gpus = [self.places.get() for _ in range(workers)]
        self.made.append(self)

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, *_: object) -> "Future[MachineError]":
        future: Future[MachineError] = Future()
        future.set_result(MachineError("not looked"))
        return future

    def shutdown(self, **_: object) -> None: ...


@pytest.mark.parametrize(
    ("gpus", "workers", "places"),
    [
        (["3", "5"], None, ["3", "5"]),
        (["3", "5"], 3, ["3", "5", "3"]),
        ([], None, [None] * 3),
        ([], 2, [None, None]),
    ],
)
def test_each_process_that_scores_has_a_gpu_of_its_own_where_there_are_some(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[str],
    workers: int | None,
    places: list[str | None],
) -> None:
    monkeypatch.setattr(_Pool, "made", [])
    monkeypatch.setattr(measure, "ProcessPoolExecutor", _Pool)
    monkeypatch.setattr(measure, "cores", lambda: 3)
    monkeypatch.setattr(measure, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(measure, "device_of", lambda recipe: "cuda" if gpus else "cpu")
    looks = looks_of(placed([built("figure8", SMALL, TOY)], root=place / "data"), range(9))
    assert len(list(take_looks(place / "runs", looks, workers=workers))) == len(looks)
    (pool,) = _Pool.made
    assert pool.gpus == places


def test_a_process_that_scores_sees_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(measure, "end_with_the_parent", lambda: None)
    places: SimpleQueue[str | None] = SimpleQueue()
    for gpu in ("1", None):
        places.put(gpu)
    measure._begin(places)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    measure._begin(places)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
