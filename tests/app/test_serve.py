"""The server: what people drop on it, what strangers ask of it, and what it leaves behind."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from boqsa.app.serve import MOST_UPLOADED, bundled_model, serving
from boqsa.commands import main
from boqsa.errors import MachineError, RunError
from boqsa.inference.share import TRAINING_RECIPE

pytestmark = pytest.mark.system
EVERY_SLOT = [0, 1, 2, 3, 4]
UPLOADED = {"_type": "gradio.FileData"}
PATIENT = {"timeout": 120.0}
"""On a busy machine twenty visitors take longer than the five seconds that a client waits by default."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False, httpx_kwargs=PATIENT)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiny_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 8)).save(buffer, format="PNG")
    return buffer.getvalue()


def look(client: Client, file: Path, *, iterations: int = 3) -> Any:
    """Overlay, pieces, paintings and table of a picture."""
    return client.predict(handle_file(file), EVERY_SLOT, iterations, 0.0, False, api_name="/look")


def odd_pictures(folder: Path) -> dict[str, Path]:
    pixels = noise(64, 80)
    frames = [Image.fromarray(noise(64, 64 + step)[:, :64]) for step in range(4)]
    made = {
        name: folder / name for name in ("one.png", "cmyk.jpg", "sixteen.png", "moving.gif", "grey.tiff", "see.webp")
    }
    Image.fromarray(pixels[:1, :1]).save(made["one.png"])
    Image.fromarray(pixels).convert("CMYK").save(made["cmyk.jpg"])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(made["sixteen.png"])
    frames[0].save(made["moving.gif"], save_all=True, append_images=frames[1:])
    Image.fromarray(pixels[..., 0]).save(made["grey.tiff"])
    Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(made["see.webp"])
    return made


@pytest.mark.parametrize("name", ["one.png", "cmyk.jpg", "sixteen.png", "moving.gif", "grey.tiff", "see.webp"])
def test_any_picture_that_people_have_is_taken(client, tmp_path, name):
    overlay, pieces, paintings, table = look(client, odd_pictures(tmp_path)[name])
    assert Image.open(overlay["image"]).size == Image.open(odd_pictures(tmp_path)[name]).size
    assert len(pieces) == len(overlay["annotations"]) >= 1
    assert len(paintings) == 6
    assert [row[0] for row in table["data"]] == [f"slot {slot}" for slot in EVERY_SLOT]


def test_a_picture_of_fifty_megabytes_is_taken(client, tmp_path):
    file = tmp_path / "large.png"
    Image.fromarray(noise(4200, 4200)).save(file, compress_level=0)
    assert file.stat().st_size > 50e6
    overlay, *_ = look(client, file)
    assert Image.open(overlay["image"]).size == (768, 768)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x89PNG\r\n\x1a\n" + b"0" * 100])
def test_what_is_no_picture_clears_the_page_and_the_next_one_works(client, tmp_path, content):
    file = tmp_path / "text.png"
    file.write_bytes(content)
    overlay, pieces, _, table = look(client, file)
    assert (overlay, pieces, table["data"]) == (None, [], [])
    assert look(client, odd_pictures(tmp_path)["one.png"])[0] is not None


def test_uploads_above_the_limit_are_refused(address):
    answer = httpx.post(
        f"{address}gradio_api/upload", files={"files": ("a.png", b"0" * (MOST_UPLOADED + 1))}, timeout=60
    )
    assert answer.status_code == 413


def test_twenty_at_once_get_an_answer_each(address, tmp_path):
    file = odd_pictures(tmp_path)["cmyk.jpg"]  # the same one: they share no file that is still written

    def visit(_: int) -> list[list[str]]:
        return look(Client(address, verbose=False, httpx_kwargs=PATIENT), file)[3]["data"]

    with ThreadPoolExecutor(20) as visitors:
        tables = list(visitors.map(visit, range(20)))
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", str(Path(__file__).resolve()), "README.md"])
def test_files_of_this_machine_are_out_of_reach(address, path):
    assert httpx.get(f"{address}gradio_api/file={path}").status_code in (403, 404)
    data = [{"path": path, "meta": UPLOADED}, EVERY_SLOT, 3, 0.0, False]
    event = httpx.post(f"{address}gradio_api/call/look", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{address}gradio_api/call/look/{event}", timeout=60).text
    assert "event: error" in answer
    assert "root:" not in answer


@pytest.mark.parametrize("iterations", [0, 10**9, "many"])
def test_iterations_out_of_range_do_not_keep_the_server_busy(address, iterations):
    with httpx.Client(base_url=address, timeout=60) as http:
        upload = http.post("gradio_api/upload", files={"files": ("a.png", tiny_png())}).json()[0]
        data = [{"path": upload, "meta": UPLOADED}, EVERY_SLOT, iterations, 0.0, False]
        event = http.post("gradio_api/call/look", json={"data": data}).json()["event_id"]
        assert "event: error" in http.get(f"gradio_api/call/look/{event}").text


def test_iterations_between_two_whole_numbers_are_rounded(client, tmp_path):
    file = odd_pictures(tmp_path)["cmyk.jpg"]
    assert look(client, file, iterations=2.6)[3] == look(client, file, iterations=3)[3]


def test_the_page_asks_no_other_server(address):
    page = httpx.get(address).text
    config = json.loads(httpx.get(f"{address}config").text)
    assert "googleapis" not in page
    assert "gstatic" not in page
    assert config["analytics_enabled"] is False


def test_it_listens_on_this_machine_alone(address):
    assert address.startswith("http://127.0.0.1:")


def test_uploads_go_when_the_page_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with serving() as served:
        look(Client(served, verbose=False, httpx_kwargs=PATIENT), odd_pictures(tmp_path)["cmyk.jpg"])
        kept = Path(os.environ["GRADIO_TEMP_DIR"])
        assert any(file.name == "cmyk.jpg" for file in kept.rglob("*"))
    assert not kept.exists()


def test_uploads_go_when_the_page_is_killed(tmp_path):
    page = subprocess.Popen(
        [sys.executable, "-m", "boqsa", "app", "--no-open"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert page.stdout is not None
    assert page.stdout.readline().startswith("The page is at http://127.0.0.1:")
    assert list(tmp_path.glob("boqsa-app-*/*"))  # pictures to begin with; uploads lie beside them
    page.send_signal(signal.SIGTERM)
    said, _ = page.communicate(timeout=60)
    assert (page.returncode, said) == (0, "stopped.\n")
    assert not list(tmp_path.glob("boqsa-app-*"))


def test_a_pipe_for_a_recipe_does_not_keep_the_page_back(tmp_path):
    run = shutil.copytree(bundled_model(), tmp_path / "from-a-stranger")
    (run / TRAINING_RECIPE).unlink()
    os.mkfifo(run / TRAINING_RECIPE)  # opening it would wait for ever
    with serving(run) as served:
        assert served


def test_a_port_that_is_taken_is_said(address):
    with pytest.raises(MachineError, match="--port"), serving(port=int(address.split(":")[2].strip("/"))):
        pass


def test_a_run_that_is_none_is_said(tmp_path, capsys):
    with pytest.raises(RunError, match="neither a run nor a saved model"), serving(tmp_path):
        pass
    assert main(["app", str(tmp_path), "--no-open"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_device_that_is_not_there_is_said(capsys):
    assert main(["app", "--no-open", "--device", "abacus"]) == 2
    said = capsys.readouterr().err
    assert "device 'abacus' cannot be used" in said
    assert said.count("\n") == 1


def test_slots_are_called_by_their_names(tmp_path):
    run = shutil.copytree(bundled_model(), tmp_path / "named")
    (run / "names.json").write_text(json.dumps({"2": "room"}))
    with serving(run) as served:
        *_, table = look(Client(served, verbose=False, httpx_kwargs=PATIENT), odd_pictures(tmp_path)["cmyk.jpg"])
    assert [row[0] for row in table["data"]] == ["slot 0", "slot 1", "room", "slot 3", "slot 4"]
