"""Two parts of the page that gradio has, changed in one respect each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio import component_meta
from gradio.components.annotated_image import AnnotatedImageData, Annotation
from gradio.data_classes import FileData


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Gradio writes a .pyi file beside each module that derives a component; an installed package stays as it is."""
    write, component_meta.create_or_modify_pyi = component_meta.create_or_modify_pyi, lambda *_: None
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = write


with _without_stubs():

    class Upload(gr.Image):
        """A place for a picture that gives the file as it was dropped. Gradio would convert what it can and fail at the
        rest; `boqsa.inference.picture` reads more, and says what is wrong with what it does not read."""

        is_template = True  # drawn in the browser as `gr.Image` is

        def preprocess(self, payload: Any) -> str | None:
            """The path of the file, which gradio has checked to lie in the folder of uploads."""
            return None if payload is None else payload.path

    class Overlay(gr.AnnotatedImage):
        """A picture and the regions of its slots, given as files. Gradio would name files by what is in them, and write
        them again while others who dropped the same picture are reading them."""

        is_template = True

        def postprocess(self, value: Any) -> AnnotatedImageData | None:
            """From the file of the picture, and file and title of each region."""
            if value is None:
                return None
            picture, regions = value
            return AnnotatedImageData(
                image=FileData(path=str(picture)),
                annotations=[Annotation(image=FileData(path=str(file)), label=title) for file, title in regions],
            )
