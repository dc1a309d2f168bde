"""A trained model as one file that runs without this package: an ONNX graph, or a program of `torch.export`.

The graph takes images and gives masks, slots and the reconstruction; the batch may be of any size. Sampled queries
start from the numbers that `Segmenter` starts from, which are part of the file.

Notable choices:
- What was written is compared with the model on images of two batch sizes before it gets its name.
- Of a transformer model the dVAE paints the reconstruction, and the transformer itself is left out: masks and slots do
  not need it.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

import boqsa
from boqsa.atomic import atomic_file
from boqsa.errors import InputError, MachineError
from boqsa.inference.segment import Segmenter
from boqsa.models import FeaturesModel, Noise, TransformerModel
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel

Format = Literal["onnx", "torch"]

TOLERANCE = 1e-4
"""Largest difference of any output to the model's own; of slots relative to the largest entry."""
OUTPUTS = ("masks", "slots", "reconstruction")
_MOST_IMAGES = 4096
_TRIED = (1, 3)
"""Batch sizes that a written file is compared on."""

Run = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class ExportedModel(nn.Module):
    """What is exported: image (B, 3, S, S), float in [0, 1], to masks (B, K, S, S), slots (B, K, D) and
    reconstruction (B, 3, S, S).

    Args:
        segmenter: The model, and how many iterations it makes.

    Raises:
        InputError: if it is a radiance model, which renders and has no such graph, or a features model.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        require_exportable(segmenter.model)
        if segmenter.adaptive:
            raise InputError("an exported model has all of its slots; leave adaptive out, and choose slots outside.")
        self.model = segmenter.model.float().cpu()
        self.iterations, self.facts = segmenter.iterations, facts_of(segmenter)
        self.start: Tensor
        self.register_buffer("start", segmenter.start.float().cpu())
        self._options = {"predict_tokens": False} if isinstance(self.model, TransformerModel) else {}
        self.eval()

    def forward(
        self, image: Float[Tensor, "B 3 S S"]
    ) -> tuple[Float[Tensor, "B K S S"], Float[Tensor, "B K D"], Float[Tensor, "B 3 S S"]]:
        """Masks sum to 1 over slots; the reconstruction is in [0, 1] units and not clamped."""
        noise = Noise(queries=self.start.expand(image.shape[0], *self.start.shape))
        output = self.model(image, iterations=self.iterations, noise=noise, **self._options)
        assert output.reconstruction is not None  # models that paint none are refused
        return output.masks.squeeze(2), output.slots, output.reconstruction


def require_exportable(model: Model) -> None:
    """Go on if a model can be written as a graph from images to masks, slots and a reconstruction.

    Raises:
        InputError: if it is a radiance model, or a features model.
    """
    if isinstance(model, RadianceModel):
        raise InputError("a radiance model renders scenes and cannot be exported; use `boqsa render`.")
    if isinstance(model, FeaturesModel):
        raise InputError("a features model needs its frozen encoder, which is not exported; use `boqsa segment`.")


def export(segmenter: Segmenter, path: str | Path, *, to: Format) -> float:
    """Write a model for use without this package, and compare what was written with it.

    Args:
        segmenter: The model; it is moved to the CPU, in fp32.
        path: File to write; an old one is replaced.
        to: "onnx" (opset 18, for onnxruntime), or "torch" (for `torch.export.load`).

    Returns:
        The largest difference that was found.

    Raises:
        InputError: if the model cannot be exported, or `path` cannot be written.
        MachineError: if a package is missing, or the file gives other results than the model.
    """
    path = Path(path)
    model = ExportedModel(segmenter)
    write, run_of = (_write_onnx, _run_onnx) if to == "onnx" else (_write_torch, _run_torch)
    if to == "onnx":
        _require_onnx()
    with atomic_file(path) as partial, _quiet():
        write(model, partial)
        difference = _difference(model, run_of(partial))
        if not difference <= TOLERANCE:
            raise MachineError(
                f"the exported file differs from the model by {difference:.1e}, more than {TOLERANCE}; nothing was "
                "written. Another version of torch may help."
            )
    return difference


def facts_of(segmenter: Segmenter) -> dict[str, str]:
    """What a file says of itself: text by name, as ONNX keeps it."""
    model = segmenter.model
    return {
        "boqsa": boqsa.__version__,
        "image_size": str(model.image_size),
        "num_slots": str(model.num_slots),
        "iterations": str(segmenter.iterations or model.slot_encoder.iterations),
    }


def _example(model: ExportedModel, batch: int) -> Tensor:
    size = model.model.image_size
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def _program(model: ExportedModel) -> torch.export.ExportedProgram:
    images = torch.export.Dim("images", min=1, max=_MOST_IMAGES)
    return torch.export.export(model, (_example(model, 2),), dynamic_shapes={"image": {0: images}})


def _write_onnx(model: ExportedModel, path: Path) -> None:
    program = torch.onnx.export(
        _program(model), dynamo=True, input_names=["image"], output_names=list(OUTPUTS), opset_version=18, verbose=False
    )
    assert program is not None
    program.model.metadata_props.update(model.facts)
    path.write_bytes(program.model_proto.SerializeToString())  # its own `save` would go by the suffix of the name


def _write_torch(model: ExportedModel, path: Path) -> None:
    with open(path, "wb") as file:
        torch.export.save(_program(model), file, extra_files={"boqsa.json": json.dumps(model.facts)})


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        masks, slots, reconstruction = session.run(list(OUTPUTS), {"image": image.numpy()})
        return torch.from_numpy(masks), torch.from_numpy(slots), torch.from_numpy(reconstruction)

    return run


def _run_torch(path: Path) -> Run:
    with open(path, "rb") as file:
        run: Run = torch.export.load(file).module()
    return run


@torch.no_grad()
def _difference(model: ExportedModel, run: Run) -> float:
    """The largest one of any output; of slots, whose scale is their own, in parts of the largest entry."""
    largest = 0.0
    for batch in _TRIED:
        image = _example(model, batch)
        for name, own, other in zip(OUTPUTS, model(image), run(image), strict=True):
            if not other.isfinite().all():
                return float("inf")
            scale = max(1.0, float(own.abs().max())) if name == "slots" else 1.0
            largest = max(largest, float((own - other).abs().max()) / scale)
    return largest


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; type `pip install 'boqsa[export]'`.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk of optional packages and of their own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
