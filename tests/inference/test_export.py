"""Exported models: the same numbers as eager, for any batch, and without this package or torch."""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch

from boqsa.app.serve import bundled_model
from boqsa.commands import main
from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import InputError, MachineError
from boqsa.inference import Segmenter, export
from boqsa.inference.export import ExportedModel
from boqsa.inference.load import build_model
from boqsa.models.radiance import RadianceModel
from boqsa.recipes import Recipe


@pytest.fixture(autouse=True)
def _without_shape_checks() -> Iterator[None]:
    """An exporter's batch size is a symbol, which the checks that tests run under do not take for an int."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(params=["mixture", "transformer", "slate"])
def segmenter(request: pytest.FixtureRequest, model, transformer, transformer_recipe: Recipe) -> Segmenter:
    if request.param != "slate":
        return Segmenter({"mixture": model, "transformer": transformer}[request.param])
    of_tokens = {"features": "tokens", "queries": "shared_gaussian", "gradient": "unrolled"}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        slate = build_model(replace(transformer_recipe, model=replace(transformer_recipe.model, **of_tokens)))
    return Segmenter(slate)


def test_onnx_equals_the_model_on_a_hundred_images(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert export.export(segmenter, path, to="onnx") < 1e-4
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["image_size"] == "16"
    image = torch.rand(100, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        own = ExportedModel(segmenter)(image)
    for one, other in zip(own, session.run(list(export.OUTPUTS), {"image": image.numpy()}), strict=True):
        np.testing.assert_allclose(other, one.numpy(), rtol=0, atol=1e-4)
    (alone, *_) = session.run(list(export.OUTPUTS), {"image": image[:1].numpy()})
    np.testing.assert_allclose(alone[0], own[0][0].numpy(), rtol=0, atol=1e-4)


def test_of_a_trained_model_the_file_is_as_near_to_exact_arithmetic_as_the_model_is(tmp_path: Path) -> None:
    """On a hundred held-out scenes; where two slots want a pixel alike, fp32 itself is further off than 1e-4."""
    segmenter = Segmenter.from_pretrained(bundled_model())
    export.export(segmenter, tmp_path / "model.onnx", to="onnx")
    session = onnxruntime.InferenceSession((tmp_path / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    scenes = render_scenes(100, seed=12345, settings=SceneSettings(image_size=32))
    image = torch.from_numpy(scenes.image[:, 0]).float() / 255
    eager = ExportedModel(segmenter)
    with torch.no_grad():
        own, exact = eager(image)[0].double(), copy.deepcopy(eager).double()(image.double())[0]
    exported = torch.from_numpy(session.run(["masks"], {"image": image.numpy()})[0]).double()
    apart, own_error, error = (
        (one - other).abs().flatten(1).amax(dim=1) for one, other in ((exported, own), (own, exact), (exported, exact))
    )  # (100,) each
    assert (apart < 1e-4).sum() >= 90
    assert error.max() < 3 * own_error.max()
    assert error.median() < 2 * own_error.median()
    assert (exported.argmax(dim=1) == own.argmax(dim=1)).double().mean() > 0.9999


def test_torch_equals_the_model(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    export.export(segmenter, path, to="torch")
    image = torch.rand(7, 3, 16, 16)
    with torch.no_grad():
        own = ExportedModel(segmenter)(image)
        other = torch.export.load(path).module()(image)
    for pair in zip(own, other, strict=True):
        torch.testing.assert_close(*pair, rtol=0, atol=1e-5)


def test_the_export_sees_what_the_segmenter_sees(segmenter: Segmenter) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = segmenter.predict(picture)
    with torch.no_grad():
        masks, slots, _ = ExportedModel(segmenter)(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    np.testing.assert_allclose(masks[0].numpy(), found.masks, atol=1e-5)
    np.testing.assert_allclose(slots[0].numpy(), found.slots, atol=1e-4)


def test_the_example_of_the_docs_needs_onnxruntime_and_numpy_alone(model, tmp_path: Path) -> None:
    export.export(Segmenter(model), tmp_path / "model.onnx", to="onnx")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    blocked = "import sys\nfor name in ('torch', 'boqsa', 'PIL', 'scipy'):\n    sys.modules[name] = None\n"
    (tmp_path / "example.py").write_text(blocked + code, encoding="utf-8")
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "picture.npy", picture)
    files = ["model.onnx", "picture.npy", "labels.npy"]
    subprocess.run([sys.executable, "example.py", *files], cwd=tmp_path, check=True, timeout=120)
    found = Segmenter(model).predict(picture).labels
    assert (np.load(tmp_path / "labels.npy") == found).mean() > 0.99  # ties may round otherwise


def test_iterations_are_those_that_were_asked_for(model, tmp_path: Path) -> None:
    export.export(Segmenter(model, iterations=1), tmp_path / "one.onnx", to="onnx")
    session = onnxruntime.InferenceSession((tmp_path / "one.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["iterations"] == "1"
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        once, often = model(image, iterations=1).slots, model(image).slots
    (slots,) = session.run(["slots"], {"image": image.numpy()})
    np.testing.assert_allclose(slots, once.numpy(), atol=1e-4)
    assert np.abs(slots - often.numpy()).max() > 1e-3


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_a_file_that_differs_is_not_written(
    wrong: float, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    real = export._run_onnx

    def other(file: Path):
        run = real(file)
        return lambda image: tuple(value + wrong for value in run(image))

    monkeypatch.setattr(export, "_run_onnx", other)
    with pytest.raises(MachineError, match=r"differs from the model by (2\.\de-04|inf)"):
        export.export(Segmenter(model), path, to="onnx")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_exported_is_said(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radiance = RadianceModel(input_size=16, num_slots=3, slot_size=8)
    with pytest.raises(InputError, match="use `boqsa render`"):
        export.export(Segmenter(radiance), tmp_path / "a.onnx", to="onnx")
    with pytest.raises(InputError, match="leave adaptive out"):
        export.export(Segmenter(model, adaptive=True), tmp_path / "a.onnx", to="onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MachineError, match=r"pip install 'boqsa\[export\]'"):
        export.export(Segmenter(model), tmp_path / "a.onnx", to="onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file_and_says_how_near_it_is(
    model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "saved")
    out = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "saved"), "--out", str(out)]) == 0
    assert "images of 16x16, any number at a time" in capsys.readouterr().out
    assert out.is_file()


@pytest.mark.parametrize(
    ("name", "options", "is_torch"),
    [
        ("model.pt2", [], True),
        ("model.pt2", ["--format", "onnx"], False),
        ("model", ["--format", "torch"], True),
        ("model.json", [], False),  # of which onnx would make JSON
        ("model.textproto", [], False),
    ],
)
def test_the_format_is_the_suffix_s_unless_it_is_named(
    model, tmp_path: Path, name: str, options: list[str], is_torch: bool
) -> None:
    model.save_pretrained(tmp_path / "saved")
    assert main(["export", str(tmp_path / "saved"), "--out", str(tmp_path / name), *options]) == 0
    if is_torch:
        torch.export.load(tmp_path / name)
    else:
        onnxruntime.InferenceSession((tmp_path / name).read_bytes(), providers=["CPUExecutionProvider"])
