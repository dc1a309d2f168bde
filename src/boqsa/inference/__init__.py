"""A trained model in people's hands: load a run, segment pictures, convert the authors' checkpoints.

Nothing here trains. A run folder alone is enough for everything in this package.

    load       run folder, saved model or hub name -> model
    segment    model + picture -> labels, masks, slots
    exchange   the same for other tools: supervision, COCO
    files      the same for files and folders, with results on disk
    concepts   what each slot stands for, counted over many pictures
    names      what people call the slots of a run
    picture    any picture file -> 8-bit RGB
    convert    a released checkpoint -> run folder
    encoder    the frozen encoder of a features model, loaded and attached
    features   a packed set -> the same with an encoder's features
    run        the layout of a run folder
"""

from boqsa.inference.convert import convert
from boqsa.inference.encoder import attach_encoder, load_encoder
from boqsa.inference.files import segment_files
from boqsa.inference.load import load
from boqsa.inference.names import name_slots, read_names
from boqsa.inference.segment import Segmentation, Segmenter

__all__ = [
    "Segmentation",
    "Segmenter",
    "attach_encoder",
    "convert",
    "load",
    "load_encoder",
    "name_slots",
    "read_names",
    "segment_files",
]
