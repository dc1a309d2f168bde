"""A server for the page: on this machine alone, without a word to any other, unless it is asked to."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boqsa.data.scenes import SceneSettings, render_scenes
from boqsa.errors import BoqsaError, MachineError
from boqsa.inference.load import locate
from boqsa.inference.run import RECIPE
from boqsa.inference.segment import Segmenter
from boqsa.inference.share import TRAINING_RECIPE
from boqsa.plain import read_small_text
from boqsa.recipes import DataRecipe, Recipe
from boqsa.reports import save_png

MOST_UPLOADED = 100 * 2**20
"""Bytes of a picture that is dropped on the page."""
_EXAMPLES = 8
_EXAMPLE_SIDE = 256
_STYLE = """
.gradio-container {max-width: 1400px !important; min-width: 0; width: 100% !important; margin: auto}
.grid-wrap.fixed-height {min-height: 0 !important; max-height: none !important}
.grid-wrap .grid-container {padding-top: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(max(8rem, 18%), 1fr))}
#painted .grid-container {grid-template-columns: repeat(auto-fill, minmax(max(8rem, 15%), 1fr))}
#edited .grid-container {grid-template-columns: repeat(auto-fill, minmax(max(8rem, 23%), 1fr))}
.grid-wrap .caption-label {white-space: normal}
.gallery-container:has(.preview) {min-height: 22rem}
.image-container .mask {opacity: 0.5}
.image-container .mask.active {opacity: 0.8}
"""
_ENTER = """() => document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input[type=number]")) event.target.blur();
})"""
"""A number that is typed beside a slider counts when its field is left, and gradio has no event for the key."""


def bundled_model() -> Path:
    """The folder of the model that comes with the package: the recipe `demo`, seed 0."""
    return Path(str(resources.files("boqsa.app") / "bundled"))


@contextmanager
def serving(
    run: str | Path | None = None,
    *,
    checkpoint: str = "last",
    encoder: str | Path | None = None,
    device: str | torch.device = "cpu",
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    open_browser: bool = False,
) -> Iterator[str]:
    """Serve the page of a model while the context lasts; its folder of uploads goes with it.

    Args:
        run: Run folder, folder of save_pretrained, or name on the hub; None takes the bundled model.
        checkpoint: Of a run folder.
        encoder: Of a features model: its folder, where it is not where the run says.
        device: Where the model computes.
        host: Address to listen on; the default can be reached from this machine alone.
        port: To listen on; None takes the first free one from 7860.
        share: Ask gradio for a public link through its servers.
        open_browser: Open the page in a browser.

    Returns:
        The address of the page, the public one if there is one.

    Raises:
        RunError, InputError: as `boqsa.load`, if there are names of slots and they are damaged, and if the machine has
            no such device.
        MachineError: if gradio is not installed, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="boqsa-app-", ignore_cleanup_errors=True) as folder:
        # Read by gradio when its components are made. Uploads of other programs of this user are none of ours.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            from boqsa.app.page import Shown, build_page
        except ModuleNotFoundError as error:
            raise MachineError(f"{error.name} is not installed; type `pip install 'boqsa[app]'`.") from None
        source = bundled_model() if run is None else locate(run)
        segmenter = Segmenter.from_pretrained(source, checkpoint=checkpoint, encoder=encoder, device=device)
        title = "The small model that comes with boqsa, trained on rendered scenes" if run is None else f"Model: {run}"
        page = build_page(Shown(segmenter.model, title, _examples(source, Path(folder)), segmenter.names, Path(folder)))
        page.queue(max_size=64)
        try:
            _, local, public = page.launch(**_settings(host, port, share=share, open_browser=open_browser))
        except OSError as error:
            raise MachineError(f"{error}".splitlines()[0] + " Choose another --port.") from None
        try:
            yield public or local
        finally:
            page.close(verbose=False)


def _settings(host: str, port: int | None, *, share: bool, open_browser: bool) -> dict[str, Any]:
    import gradio as gr

    return {
        "server_name": host,
        "server_port": port,
        "share": share,
        "inbrowser": open_browser,
        "prevent_thread_lock": True,
        "quiet": True,
        "max_file_size": MOST_UPLOADED,
        "show_error": False,  # what is a bug keeps its traceback on this side
        "ssr_mode": False,
        "footer_links": [],
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css": _STYLE,
        "js": _ENTER,
    }


def _examples(source: Path, folder: Path) -> list[Path]:
    """Pictures like those that the model was trained on: held-out scenes, drawn larger than it saw them, or pictures of
    the test split of its packed set, where that is still there; none otherwise."""
    data = _data_of(source)
    if data is None:
        return []
    if data.name == "scenes":
        fewest, most = data.scene_objects
        settings = SceneSettings(image_size=_EXAMPLE_SIDE, min_objects=fewest, max_objects=most)
        pictures = render_scenes(_EXAMPLES, seed=data.scene_seed, settings=settings).image[:, 0]  # (N, 3, H, W)
    else:
        from boqsa.training.data import open_split

        try:
            split = open_split(data, data.test_split)
        except BoqsaError:
            return []
        pictures = split.batch(range(min(_EXAMPLES, len(split))))["image"].numpy()
    files = [folder / f"example_{index}.png" for index in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        save_png(file, np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return files


def _data_of(source: Path) -> DataRecipe | None:
    """What the model of a run folder, or of a shared one, was trained on; None where that is not told."""
    for name in (RECIPE, TRAINING_RECIPE):
        try:
            return Recipe.from_json(read_small_text(source / name)).data
        except (OSError, ValueError, BoqsaError):
            continue
    return None
