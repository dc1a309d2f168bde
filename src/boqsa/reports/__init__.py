"""What people look at: pictures of the slots, curves, and the HTML report of a run.

Everything here takes tensors, arrays or plain data and returns pictures or text; nothing runs a model or
reads data.

    palette    one colour for each slot
    overlay    label maps in colour, alone or over the photograph
    grid       one scene a row: image, masks, reconstruction, and each slot's own picture
    curves     loss, scores and slot use, as PNG
    html       the report: one self-contained file
    concepts   the page of concepts: what each slot stands for, and fields to name it in
    naming     what that page does with the names
    regions    pictures of what a slot owns
    masks      which masks a model is judged by
    png        saving pictures, never half of one
"""

from boqsa.reports.curves import loss_curve, score_curve, slot_use_bars
from boqsa.reports.grid import segmentation_grid
from boqsa.reports.html import report_html, write_report
from boqsa.reports.masks import MASKS, main_masks
from boqsa.reports.overlay import overlay, paint
from boqsa.reports.palette import slot_colours
from boqsa.reports.png import png_bytes, save_label_png, save_png

__all__ = [
    "MASKS",
    "loss_curve",
    "main_masks",
    "overlay",
    "paint",
    "png_bytes",
    "report_html",
    "save_label_png",
    "save_png",
    "score_curve",
    "segmentation_grid",
    "slot_colours",
    "slot_use_bars",
    "write_report",
]
