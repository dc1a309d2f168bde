"""The page: a picture on the left, its slots on the right, and below them what can be done with them."""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import gradio as gr
import numpy as np
from jaxtyping import Bool, UInt8

from boqsa.app.looking import (
    Choices,
    Looked,
    annotations,
    cut_outs,
    edited,
    look,
    paintings,
    settling,
    table_rows,
    title_of,
    write_downloads,
)
from boqsa.app.parts import Overlay, Upload
from boqsa.errors import BoqsaError, InputError
from boqsa.inference.decode import paints_slots
from boqsa.models import MixtureModel
from boqsa.models.adaptive import has_adaptive_slots
from boqsa.models.published import Model
from boqsa.reports import save_png
from boqsa.reports.palette import slot_colours

MOST_ITERATIONS = 10
"""Of the slider; slots have settled long before."""

_COLUMNS = ["slot", "share", "confidence", "box"]
_KEPT = 3600  # seconds that pictures and results of a visitor are kept

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Shown(NamedTuple):
    """What the page is about."""

    model: Model
    title: str
    """One line: which model this is."""
    examples: Sequence[Path]
    """Pictures to start with; may be none."""
    names: Mapping[int, str]
    """Names of slots, where they have some."""
    folder: Path
    """For uploads and for what is made of them."""


def build_page(shown: Shown) -> gr.Blocks:
    """The page of a model."""
    titles = [(title_of(slot, shown.names), slot) for slot in range(shown.model.num_slots)]
    page: gr.Blocks
    with gr.Blocks(title="boqsa", analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as page:
        gr.Markdown(
            f"# Objects that no one labelled\n{shown.title}\n\n"
            "Drop a picture, and each slot of the model takes a part of it. Pictures stay on the machine that "
            "serves this page, and are deleted when it stops."
        )
        with gr.Tab("Look"):
            looked, looking = _look_tab(shown, titles)
        if paints_slots(shown.model):
            with gr.Tab("Edit"):
                _edit_tab(shown, titles, looked, looking)
    return page


def _look_tab(shown: Shown, titles: list[tuple[str, int]]) -> tuple[gr.State, Any]:
    """A picture and its slots; gives back what holds the one that was looked at, and the event of looking."""
    model, names = shown.model, shown.names
    trained = model.slot_encoder.iterations
    is_mixture = isinstance(model, MixtureModel)
    looked = gr.State(None, time_to_live=_KEPT)
    with gr.Row():
        with gr.Column(scale=2):
            upload = _upload("Picture", 320)
            _examples(shown, upload)
            iterations = gr.Slider(
                1,
                max(MOST_ITERATIONS, trained),
                value=trained,
                step=1,
                precision=0,
                label="Iterations",
                info=f"Rounds in which the slots compete for the picture. The model was trained with {trained}.",
            )
            certainty = gr.Slider(
                0, 1, value=0, step=0.01, label="Certainty", info="Pixels that no slot is so sure of are left bare."
            )
            adaptive = gr.Checkbox(
                False, label="Leave out slots that the picture does not need", visible=has_adaptive_slots(model)
            )
        with gr.Column(scale=3):
            overlay = _overlay("Slots", titles, 440, "overlay")
            visible = gr.CheckboxGroup(
                titles, value=[slot for _, slot in titles], label="Shown slots", elem_id="shown-slots"
            )
    pieces = gr.Gallery(label="What each slot holds", height="auto", object_fit="contain", elem_id="pieces")
    painted = gr.Gallery(label="What each slot would paint alone", height="auto", visible=is_mixture, elem_id="painted")
    with gr.Row():
        with gr.Column(scale=3):
            table = gr.Dataframe(
                headers=_COLUMNS,
                label="Slots in numbers; a box is left, top, right and bottom, in pixels of the picture",
                interactive=False,
            )
        with gr.Column(scale=2):
            make = gr.Button("Make files to download", elem_id="make-files")
            files = gr.File(label="Label map, overlay, arrays", file_count="multiple", interactive=False)
    with gr.Accordion("Watch the slots settle", open=False):
        settle = gr.Button("Show every iteration")
        film = gr.Gallery(label="Slots after each iteration", height="auto", object_fit="contain", elem_id="film")

    def see(file: str | None, shown_slots: list[int], *chosen: Any) -> tuple[Any, ...]:
        if file is None:
            return (None,) * 5
        try:
            seen = look(model, file, Choices(*chosen))
        except InputError as error:
            gr.Warning(_without_folder(error, file), duration=None, title="This picture cannot be taken")
            return (None,) * 5  # what stood there was of another picture
        overlaid = _overlaid(shown, seen, shown_slots, chosen[1])
        painting = _titled(shown, paintings(model, seen, names)) if is_mixture else None
        return seen, overlaid, _titled(shown, cut_outs(seen, names)), painting, table_rows(seen, names)

    def colour(seen: Looked | None, shown_slots: list[int], threshold: float) -> Any:
        return None if seen is None else _overlaid(shown, seen, shown_slots, threshold)

    @_said
    def files_of(seen: Looked | None, *chosen: Any) -> list[str]:
        return [str(path) for path in write_downloads(model, _required(seen), Choices(*chosen), _new_folder(shown))]

    @_said
    def film_of(seen: Looked | None, *chosen: Any) -> Any:
        return _titled(shown, settling(model, _required(seen), Choices(*chosen), MOST_ITERATIONS))

    choices = [iterations, certainty, adaptive]
    looking = gr.on(
        [upload.change, iterations.release, adaptive.input],
        see,
        [upload, visible, *choices],
        [looked, overlay, pieces, painted, table],
        trigger_mode="always_last",
        api_name="look",
        **_SHARED,
    )
    gr.on(
        [visible.input, certainty.release],
        colour,
        [looked, visible, certainty],
        overlay,
        trigger_mode="always_last",
        api_visibility="private",
        **_SHARED,
    )
    upload.change(lambda: (None, None), None, [files, film], api_visibility="private")
    make.click(files_of, [looked, *choices], files, api_visibility="private", **_SHARED)
    settle.click(film_of, [looked, *choices], film, api_visibility="private", **_SHARED)
    return looked, looking


def _edit_tab(shown: Shown, titles: list[tuple[str, int]], looked: gr.State, looking: Any) -> None:
    """Slots of the picture taken away, or exchanged for those of another one, and what the decoder makes of it."""
    gr.Markdown(
        "The picture of the first tab, painted from its slots alone. Take slots away, or exchange one for a slot of "
        "another picture."
    )
    theirs = gr.State(None, time_to_live=_KEPT)
    with gr.Row():
        with gr.Column(scale=2):
            removed = gr.CheckboxGroup(titles, label="Slots to take away", elem_id="removed")
            other = _upload("Another picture", 240)
            _examples(shown, other)
            with gr.Row():
                mine = gr.Dropdown([("none", -1), *titles], value=-1, label="Exchange", elem_id="mine")
                their = gr.Dropdown(titles, value=titles[-1][1], label="for the other's", elem_id="their")
        with gr.Column(scale=3):
            with gr.Row():
                own_slots = _overlay("Slots of the picture", titles, 260)
                their_slots = _overlay("Slots of the other picture", titles, 260)
            pictures = gr.Gallery(label="Painted from slots", height="auto", elem_id="edited")

    every_slot = [slot for _, slot in titles]

    def colour(seen: Looked | None) -> Any:
        return None if seen is None else _overlaid(shown, seen, every_slot, 0.0)

    def see_other(file: str | None) -> tuple[Any, Any]:
        if file is None:
            return None, None
        plain = Choices(shown.model.slot_encoder.iterations, 0.0, adaptive=False)
        try:
            seen = look(shown.model, file, plain)
        except InputError as error:
            gr.Warning(_without_folder(error, file), duration=None, title="This picture cannot be taken")
            return None, None
        return seen, colour(seen)

    @_said
    def paint(seen: Looked | None, gone: list[int], seen_there: Looked | None, mine: int, their: int) -> Any:
        if seen is None:
            return None
        return _titled(shown, edited(shown.model, seen, gone, seen_there, None if mine < 0 else (mine, their)))

    looking_there = other.change(see_other, other, [theirs, their_slots], api_visibility="private", **_SHARED)
    painting: dict[str, Any] = {
        "fn": paint,
        "inputs": [looked, removed, theirs, mine, their],
        "outputs": pictures,
        "trigger_mode": "always_last",
        "api_visibility": "private",
        **_SHARED,
    }
    gr.on([removed.input, mine.input, their.input], **painting)
    looking.then(**painting).then(colour, looked, own_slots, api_visibility="private")
    looking_there.then(**painting)


def _upload(label: str, height: int) -> Upload:
    return Upload(label=label, type="filepath", sources=["upload", "clipboard"], height=height)


def _overlay(label: str, titles: list[tuple[str, int]], height: int, name: str | None = None) -> Overlay:
    colours = {title: _hex(slot) for title, slot in titles}
    return Overlay(label=label, color_map=colours, height=height, elem_id=name)


def _examples(shown: Shown, upload: Upload) -> None:
    if shown.examples:
        gr.Examples(
            [[str(path)] for path in shown.examples], upload, label="Or take one of these", examples_per_page=16
        )


def _overlaid(
    shown: Shown, seen: Looked, shown_slots: Collection[int], certainty: float
) -> tuple[Path, list[tuple[Path, str]]]:
    """The picture and the regions of its slots, as `Overlay` takes them."""
    folder = _new_folder(shown)
    picture, regions = annotations(seen, shown_slots, certainty, shown.names)
    save_png(folder / "picture.png", picture, quickly=True)
    for slot, (region, _) in regions.items():
        save_png(folder / f"{slot}.png", _coloured(region, slot), quickly=True)
    return folder / "picture.png", [(folder / f"{slot}.png", title) for slot, (_, title) in regions.items()]


def _coloured(region: Bool[np.ndarray, "H W"], slot: int) -> UInt8[np.ndarray, "H W 4"]:
    """The slot's colour where it owns the picture, and nothing elsewhere."""
    opaque = np.array([*slot_colours(slot + 1)[slot], 255], np.uint8)
    return np.where(region[..., None], opaque, np.uint8(0))


def _titled(shown: Shown, pictures: Sequence[tuple[UInt8[np.ndarray, "_ _ 3"], str]]) -> list[tuple[str, str]]:
    """Pictures and their titles as a gallery takes them."""
    folder = _new_folder(shown)
    files = [folder / f"{index}.png" for index in range(len(pictures))]
    for file, (picture, _) in zip(files, pictures, strict=True):
        save_png(file, picture, quickly=True)
    return [(str(file), title) for file, (_, title) in zip(files, pictures, strict=True)]


def _new_folder(shown: Shown) -> Path:
    """For the pictures of one answer; the page deletes them when they are old."""
    return Path(tempfile.mkdtemp(dir=shown.folder))


_SHARED: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "model"}
"""Of all that runs the model: visitors wait for each other instead of sharing a processor among many."""


def _said(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A user's mistake becomes one line on the page."""

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except BoqsaError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None

    return wrapped


def _required(looked: Looked | None) -> Looked:
    if looked is None:
        raise InputError("there is no picture yet; drop one on the left, or take one of the examples.")
    return looked


def _without_folder(error: InputError, file: str) -> str:
    """The message with the name of the picture instead of the place where it was uploaded to."""
    return str(error).replace(file, Path(file).name)


def _hex(slot: int) -> str:
    red, green, blue = slot_colours(slot + 1)[slot]
    return f"#{red:02x}{green:02x}{blue:02x}"
