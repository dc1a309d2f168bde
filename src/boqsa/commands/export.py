"""`boqsa export RUN --out FILE`: a trained model as one file that runs without this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from boqsa.commands.arguments import parse, print_json


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a trained model as an ONNX graph or as a program of torch.export, and compare it with the model.

    It takes image (batch, 3, S, S), float32 in 0 to 1, and gives masks (batch, K, S, S), slots (batch, K, D) and
    reconstruction (batch, 3, S, S).

    boqsa export RUN --out model.onnx

    boqsa export RUN --out model.pt2
    """

    run: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder, folder of save_pretrained, or name on the hub (owner/name)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write."""
    format: Literal["onnx", "torch"] | None = None
    """onnx: for onnxruntime and whatever else reads ONNX; torch: for torch.export.load. By default torch for a FILE
    .pt2, and onnx for every other."""
    checkpoint: str = "last"
    """last, best_loss or best_<metric>; the last one was chosen by labels."""
    iterations: int | None = None
    """Slot-attention steps; by default the trained number."""
    json: bool = False
    """Print JSON on stdout."""


def main(arguments: list[str]) -> int:
    """Entry of the command."""
    chosen = parse(Export, arguments, command="export")

    from boqsa.inference import Segmenter, load
    from boqsa.inference.export import export, facts_of, require_exportable

    model = load(chosen.run, checkpoint=chosen.checkpoint)
    require_exportable(model)  # before its encoder is looked for
    segmenter = Segmenter(model, iterations=chosen.iterations)
    by_suffix: Literal["onnx", "torch"] = "torch" if chosen.out.suffix == ".pt2" else "onnx"
    difference = export(segmenter, chosen.out, to=chosen.format or by_suffix)
    if chosen.json:
        print_json({"file": str(chosen.out), "difference": difference, **facts_of(segmenter)})
    else:
        size = segmenter.model.image_size
        print(f"{chosen.out}: images of {size}x{size}, any number at a time; within {difference:.0e} of the model.")
    return 0
