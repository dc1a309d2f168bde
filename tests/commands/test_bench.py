"""`boqsa bench` on a tiny recipe, in real processes; figures are looked at for their kind, not for their size."""

import json
import re
from pathlib import Path

import pytest

from boqsa.bench import measure
from boqsa.bench.ceilings import CeilingSizes
from boqsa.commands import main
from boqsa.errors import RunError

TINY = {
    "data.image-size": "16",
    "model.num-slots": "3",
    "model.slot-size": "8",
    "model.mlp-size": "16",
    "model.encoder-channels": "8",
    "model.encoder-strides": "2",
    "model.decoder-channels": "8",
    "model.decoder-strides": "2",
}
FAST = [part for name, value in TINY.items() for part in (f"--{name}", value)]
FAST += ["--rounds", "1", "--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.SIZES, "cpu", CeilingSizes(images=1, matrix=64))
    monkeypatch.setenv("COLUMNS", "80")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *FAST, "--batch", "2", "--batches", "1", "4"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "1 threads" in out.splitlines()[0]
    assert "demo at 16x16, batch 2" in out
    for form in ("training, bf16", "evaluation, fp32"):
        assert re.search(rf"│ {form} +│ +[\d.]+ │ +[\d.]+ │", out), form
    assert "reference" not in out
    for batch in (1, 4):
        assert re.search(rf"│ +{batch} │ +[\d.]+ │", out)
    assert re.search(r"reading: [\d,]+ images/s \(random\)", out)
    assert re.search(r"ceilings, bf16: convolution [\d,]+ GFLOP/s, matrix product [\d,]+ GFLOP/s", out)


def test_json_and_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "demo", *FAST, "--batches", "2", "--precision", "fp32", "--reference", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["recipe"], report["batch"], report["precision"]) == ("demo", 2, "fp32")
    assert report["machine"]["threads"] == 1
    assert list(report["forms"]) == ["training", "evaluation", "reference"]
    for found in report["forms"].values():
        assert len(found["rounds"]) == 1
        assert found["images_per_second"] == pytest.approx(2e3 / found["milliseconds"])
        total = found["operations"]["convolution"] + found["operations"]["product"]
        assert found["flops_per_second"] == pytest.approx(1e3 * total / found["milliseconds"])
        floor = sum(found["operations"][name] / found["ceilings"][name] for name in ("convolution", "product"))
        assert found["floor_milliseconds"] == pytest.approx(1e3 * floor)
        assert found["share_of_ceilings"] == pytest.approx(found["floor_milliseconds"] / found["milliseconds"])
        assert found["holds_bytes"] > 0
    forms, ratios = report["forms"], report["against_reference"]
    assert forms["training"]["operations"] == forms["reference"]["operations"]
    assert ratios["speed"] == pytest.approx(forms["reference"]["milliseconds"] / forms["training"]["milliseconds"])
    assert max(ratios["relative_difference_of_losses"].values()) < 1e-4
    assert report["batches"] == [forms["training"]]
    assert report["reading"]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dmo"], "there is no recipe 'dmo'; did you mean demo? `boqsa recipes` lists all."),
        (["--batch", "0"], "train.batch_size is 0; it must be at least 1."),
        (["--batches", "4", "0"], "train.batch_size is 0; it must be at least 1."),
        (["--threads", "-1"], "train.threads is -1; it must be at least 0."),
        (["--rounds", "0"], "--rounds is 0; it must be above 0."),
        (["--seconds", "nan"], "--seconds is nan; it must be above 0."),
        (
            ["demo", "--train.accumulate", "4", "--batch", "6"],
            "train.batch_size 6 cannot be computed in 4 equal pieces; choose train.accumulate that divides it.",
        ),
        (
            ["--model.decoder-grid", "5"],
            "recipe demo: decoder_grid 5 times decoder_strides (2, 2) gives 20 pixels, but image_size is 32; "
            "make them equal.",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"boqsa bench: {line}\n")


def test_data_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["objectsroom_mixture_small", *FAST, "--batch", "2", "--data.root", str(tmp_path / "nothing")]
    assert main(["bench", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(tmp_path / "nothing") in captured.err
    assert "Traceback" not in captured.err


def test_a_batch_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's killer is played by a signal."""
    import signal

    from boqsa.bench.measure import _Line
    from boqsa.bench.operations import Operations
    from boqsa.recipes import get_recipe

    none = (Operations(0, 0), Operations(0, 0))
    line = _Line("training", get_recipe("demo"), none, may_fail=True)
    assert line._attempt(signal.raise_signal, signal.SIGKILL) is None
    assert "does not fit into memory" in line.summary()["fails"]
    line = _Line("training", get_recipe("demo"), none)
    with pytest.raises(RunError, match=r"training, batch 16 does not fit into memory .* pass a smaller --batch\."):
        line._attempt(signal.raise_signal, signal.SIGKILL)
