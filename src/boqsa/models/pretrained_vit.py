"""A frozen vision transformer of other people, as what turns an image into the features of its patches.

Weights come from a folder as `transformers` writes it (`save_pretrained`): `config.json` and `model.safetensors`.
Neither code nor pickles are taken from there, and the network that the one describes is counted before memory is taken
for it: the other must be large enough to hold it. Features are the last block's output *before* the final normalisation
(baselines 7.1), which a hook on that block catches, whatever the architecture does afterwards; class and register
tokens, which stand in front of the patches, are left out.

Shapes: B batch, H W image pixels, N patches, row-major, F feature size.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from boqsa.errors import InputError, first_line
from boqsa.models.radiance.pretrained import digest
from boqsa.plain import read_json

KINDS = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Values of `model_type` in config.json: patches behind a class token and registers. DINO is a `vit`."""
WEIGHTS = "model.safetensors"
_MOST = {"num_hidden_layers": 100, "num_labels": 100_000}
"""Of the numbers that a configuration makes lists of before there is a network to count."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class PretrainedViT(nn.Module):
    """`features = PretrainedViT.from_folder(DIR)(image)`; never trained, always in eval mode.

    Args:
        vit: A model of `transformers` of one of `KINDS`.
        name: Where it came from: a folder, or a name on the hub.
        sha256: Of its weights file, which tells one encoder from another.

    Raises:
        InputError: if it is of another kind, or its patches are not square.
    """

    def __init__(self, vit: nn.Module, *, name: str, sha256: str) -> None:
        super().__init__()
        config: Any = vit.config
        _require_kind(config, name)
        if not isinstance(config.patch_size, int):
            raise InputError(f"{name} has patches of {config.patch_size} pixels; square ones, of one number, expected.")
        self.name, self.sha256 = name, sha256
        self.patch_size, self.feature_size = config.patch_size, int(config.hidden_size)
        self._leading = 1 + int(getattr(config, "num_register_tokens", 0))
        self._native_size = config.image_size
        self._can_interpolate = "interpolate_pos_encoding" in inspect.signature(vit.forward).parameters
        self.vit = vit.float().requires_grad_(False)
        self._last_block = _blocks(vit, config.num_hidden_layers)[-1]
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.eval()

    @classmethod
    def from_folder(cls, folder: str | Path, *, name: str | None = None) -> "PretrainedViT":
        """The network of a folder that `transformers` wrote.

        Args:
            folder: With `config.json` and `model.safetensors`.
            name: What to call it; None means the folder's absolute path.

        Raises:
            InputError: if the folder lacks one of them, holds something else, or weights that are too few for its
                configuration; or if `transformers` is not installed.
        """
        folder = Path(folder)
        for part in ("config.json", WEIGHTS):
            if not (folder / part).is_file():
                raise InputError(
                    f"{folder} has no {part}; name a folder that `transformers` wrote with save_pretrained, with its "
                    "weights as safetensors in one file."
                )
        transformers = _transformers()
        try:
            _require_short(folder / "config.json")
            with _quiet(transformers.utils.logging):
                config = transformers.AutoConfig.from_pretrained(
                    str(folder), trust_remote_code=False, local_files_only=True
                )
                _require_kind(config, str(folder))
                _require_weights(transformers, config, folder)
                vit, loaded = transformers.AutoModel.from_pretrained(
                    str(folder),
                    config=config,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                )
        except InputError:
            raise
        except Exception as error:  # each version of transformers has its own errors for what a folder may hold
            reason = first_line(error)
            raise InputError(f"{folder} holds no network that transformers can read ({reason}).") from None
        # Pooling comes after what is read here, and many published files are without it.
        missing = [part for part in loaded["missing_keys"] if "pooler" not in part]
        if missing:
            raise InputError(
                f"{folder / WEIGHTS} lacks {len(missing)} weights of its config.json, as {sorted(missing)[0]}; "
                "name the folder of the whole network."
            )
        return cls(vit, name=name or str(folder.resolve()), sha256=digest(folder / WEIGHTS))

    def train(self, mode: bool = True) -> "PretrainedViT":
        """Stays in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B N F"]:
        """The features of every patch.

        Args:
            image: uint8, or float in [0, 1]; each side a multiple of the patch size.

        Raises:
            ValueError: if the patches do not cover the image.
        """
        height, width = image.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} are no whole number of patches of {self.patch_size} pixels.")
        unit = image.to(self.mean.dtype)
        if image.dtype == torch.uint8:
            unit = unit / 255
        caught: list[Any] = []
        handle = self._last_block.register_forward_hook(lambda *call: caught.append(call[-1]))
        try:
            needed = self._can_interpolate and (height, width) != (self._native_size, self._native_size)
            self.vit((unit - self.mean) / self.std, **({"interpolate_pos_encoding": True} if needed else {}))
        finally:
            handle.remove()
        tokens: Tensor = caught[0][0] if isinstance(caught[0], tuple) else caught[0]
        patches = (height // self.patch_size) * (width // self.patch_size)
        if tokens.shape[1] != self._leading + patches:
            raise ValueError(f"{tokens.shape[1]} tokens found; {self._leading} and {patches} patches expected.")
        return tokens[:, self._leading :]


def _require_kind(config: Any, name: str) -> None:
    if config.model_type not in KINDS:
        raise InputError(f"{name} is a {config.model_type!r}; {', '.join(KINDS)} can be read (DINO is a vit).")


def _require_short(path: Path) -> None:
    """Go on if a configuration is small, and asks for no long lists."""
    content = read_json(path)
    for name, most in _MOST.items():
        value = content.get(name) if isinstance(content, dict) else None
        if isinstance(value, int | float) and value > most:
            raise InputError(f"{path} has {name} {value:.15g}; at most {most} expected.")


def _require_weights(transformers: Any, config: Any, folder: Path) -> None:
    """Go on if the weights are enough for the network of a configuration, counted on a device that has no memory.

    A number takes a byte at least, so that no more memory is taken than a few times the size of the file.
    """
    with torch.device("meta"):
        network = transformers.AutoModel.from_config(config, trust_remote_code=False)
    needed = sum(part.numel() for part in (*network.parameters(), *network.buffers()))
    size = (folder / WEIGHTS).stat().st_size
    if needed > size:
        raise InputError(
            f"{folder / 'config.json'} describes a network of {needed:.3g} numbers, and {WEIGHTS} beside it has "
            f"{size:.3g} bytes: they are not of one network; download both again."
        )


def _blocks(vit: nn.Module, count: int) -> nn.ModuleList:
    """The list of the blocks: each architecture calls it otherwise, and has no other of that length."""
    found = [part for part in vit.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not found:
        raise InputError(f"{type(vit).__name__} has no list of {count} blocks, so its features cannot be found.")
    return found[0]


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without the bar and the warnings that `transformers` shows while it loads; what matters of them is checked."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(before)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(
            "frozen features need the package transformers; install it by `pip install 'boqsa[features]'`."
        ) from None
    return transformers
