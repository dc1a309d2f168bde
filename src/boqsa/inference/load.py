"""From a recipe, a run folder, a saved model or a name on the hub to a model in eval mode.

All but the first may come from a stranger: sizes are checked before memory is taken, and weights are tensors alone.
"""

import inspect
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from boqsa.errors import InputError, RecipeError, RunError, first_line
from boqsa.inference.names import NAMES
from boqsa.inference.run import (
    CONFIG,
    MANIFEST,
    MODEL,
    RECIPE,
    checkpoint_folder,
    load_weights,
    misfit,
    read_recipe,
    sha256,
)
from boqsa.models import FeaturesModel, MixtureModel, TransformerModel
from boqsa.models.published import Model
from boqsa.models.radiance import RadianceModel
from boqsa.plain import read_json
from boqsa.recipes import DataRecipe, Recipe

_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

_KINDS: dict[str, type[Model]] = {
    "mixture": MixtureModel,
    "transformer": TransformerModel,
    "radiance": RadianceModel,
    "features": FeaturesModel,
}
"""The model of each kind of recipe."""

MOST_PARAMETERS = 2_000_000_000
"""Of a model; a recipe or a configuration that asks for more is taken for a mistake, or for worse."""

_PATIENCE = 10.0  # seconds until the hub counts as out of reach


def model_config(recipe: Recipe) -> dict[str, Any]:
    """The arguments of the model's constructor that a recipe stands for."""
    fields = asdict(recipe.model)
    if fields.pop("kind") == "radiance":
        return fields  # its input is resized
    return {"image_size": recipe.data.image_size, **fields}


def build_model(recipe: Recipe) -> Model:
    """A new model with fresh weights from torch's random stream.

    Raises:
        RecipeError: if the sizes of the recipe do not fit together.
    """
    try:
        return _build(_KINDS[recipe.model.kind], model_config(recipe))
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {error}") from None


def _build(kind: type[Model], config: dict[str, Any]) -> Model:
    """A model of checked sizes, after counting its parameters on a device that has no memory.

    Raises:
        ValueError: if the sizes do not fit together, or are absurd.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        try:
            parameters = sum(parameter.numel() for parameter in kind(**config).parameters())
        except RuntimeError as error:  # a product that is no 64-bit number any more
            raise ValueError(f"its sizes are absurd ({first_line(error)})") from None
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"it has {parameters:.2g} parameters; at most {MOST_PARAMETERS:.2g} are possible")
    return kind(**config)


def load(path_or_hub_id: str | Path, *, checkpoint: str = "last") -> Model:
    """A trained model in eval mode, on the CPU, in the dtype of its weights.

    A folder that exists is never looked up on the hub. All files of the hub are taken from one commit: the one that
    is named, or the newest. Without a connection, what was downloaded before is used. Where there is a manifest, as
    `boqsa share` writes it, its digests are compared first.

    Args:
        path_or_hub_id: A run folder, a folder written by `boqsa share` or `save_pretrained`, or a name on the hub:
            `owner/name`, or pinned `owner/name@revision`, with a commit, a tag or a branch.
        checkpoint: Of a run folder: "last", "best_loss" or "best_<metric>". Every other folder holds one model, and
            "last" is that.

    Raises:
        RunError: if the folder is neither, or a checkpoint is missing or damaged.
        InputError: if there is no such folder and the hub does not have the name, or a checkpoint is named of what
            holds one model.
    """
    path = locate(path_or_hub_id)
    if (path / RECIPE).is_file():
        weights = load_weights(checkpoint_folder(path, checkpoint))
        recipe = read_recipe(path)
        try:
            model = build_model(recipe)
        except RecipeError as error:
            raise RecipeError(f"{path / RECIPE}: {error}") from None
        return _with_weights(model, weights, path)
    model = _load_saved(path)
    if checkpoint != "last":
        raise InputError(f"{path_or_hub_id} holds one model; leave --checkpoint out.")
    return model


def locate(path_or_hub_id: str | Path) -> Path:
    """The folder on this machine that `load` reads: the one that is named, or where the hub's files were put.

    Raises:
        InputError: if there is no such folder and the hub does not have the name.
    """
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file; pass the run folder it belongs to (the one that holds {RECIPE}).")
    return download(str(path_or_hub_id))


def require_device(device: str) -> None:
    """Go on if a device can be used.

    Raises:
        InputError: if torch does not know it, or the machine lacks it.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name; a build of torch without it
        reason = first_line(error)[:80]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); pass cpu, or cuda where there is a GPU."
        ) from None


def _load_saved(folder: Path) -> Model:
    """A folder of `save_pretrained`: config.json and model.safetensors."""
    missing = [name for name in (CONFIG, MODEL) if not (folder / name).is_file()]
    if missing:
        raise RunError(f"{folder} is neither a run nor a saved model: it has no {RECIPE} and no {', '.join(missing)}.")
    try:
        _require_digests(folder)
        config = read_json(folder / CONFIG)
        kind = _kind_of(config)
        model = _build(kind, _checked(kind, config))
        weights = load_file(folder / MODEL)
    except (OSError, ValueError, TypeError, RecipeError, SafetensorError) as error:
        raise RunError(f"{folder} does not hold a model of this package ({first_line(error)}).") from None
    return _with_weights(model, weights, folder)


def _require_digests(folder: Path) -> None:
    """Go on if the files are those that the manifest knows, where there is one.

    The hub's cache holds links to files elsewhere, so that links are followed here.

    Raises:
        ValueError: if a file is another one.
    """
    if not (folder / MANIFEST).exists():
        return
    manifest = read_json(folder / MANIFEST)
    digests = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(digests, dict):
        raise ValueError(f"its {MANIFEST} has no digests; remove that file if it is another program's")
    wrong = [name for name in (MODEL, CONFIG) if digests.get(name) != sha256(folder / name)]
    if wrong:
        raise ValueError(
            f"the sha256 of {' and '.join(wrong)} is not the one in {MANIFEST}; download it again, or remove "
            f"{MANIFEST} if you saved other weights there"
        )


def _kind_of(config: Any) -> type[Model]:
    """The model whose constructor takes all of these arguments; a saved configuration does not name it.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(config, dict):
        for kind in _KINDS.values():
            if set(config) <= set(inspect.signature(kind.__init__).parameters):
                return kind
    raise ValueError(f"{CONFIG} holds the arguments of no model")


def _checked(kind: type[Model], config: dict[str, Any]) -> dict[str, Any]:
    """The arguments, checked as the fields of a recipe are.

    Raises:
        RecipeError: if one has a wrong type or value.
    """
    name = next(name for name, model in _KINDS.items() if model is kind)
    values = dict(config)
    size = values.pop("image_size", _default_size(kind))
    if type(size) is not int:
        raise RecipeError(f"image_size is {size!r}; expected a whole number.")
    data = DataRecipe(name="any", image_size=size)
    return model_config(Recipe(name="any", data=data, model=Recipe.model_from(name, values)))


def _default_size(kind: type[Model]) -> Any:
    """Of the model's images; a radiance model has none of its own, as it resizes what it is given."""
    parameters = inspect.signature(kind).parameters
    return parameters["image_size" if "image_size" in parameters else "input_size"].default


def _with_weights(model: Model, weights: dict[str, Tensor], folder: Path) -> Model:
    """The model in eval mode with these weights, in their dtype."""
    dtypes = {tensor.dtype for tensor in weights.values()}
    if len(dtypes) > 1 or not dtypes <= _DTYPES:
        raise RunError(
            f"the weights in {folder} are {', '.join(map(str, dtypes))}; expected floating point of one kind."
        )
    model.to(next(iter(dtypes), None))
    wrong = misfit(model, weights)
    if wrong is not None:
        raise RunError(f"the weights in {folder} do not fit its configuration: {wrong}.")
    model.load_state_dict(weights)
    return model.eval()


def download(
    name: str, *, expected: str = "pass a run folder, a folder of save_pretrained, owner/name or owner/name@revision"
) -> Path:
    """The folder in the hub's cache that holds config.json and model.safetensors of a model, and names of its slots.

    `hf_hub_download` repeats itself for half a minute where there is no network, so one short question goes
    first.

    Args:
        name: `owner/name`, or `owner/name@revision`.
        expected: What to do where there is no such model, in words.

    Raises:
        InputError: if the hub does not have it, or cannot be reached and nothing was downloaded before.
    """
    hub_id, _, asked = name.partition("@")
    nowhere = f"{name} is neither a folder here nor a model on the hub"
    reachable = True
    try:
        HfApi().model_info(hub_id, revision=asked or None, timeout=_PATIENCE)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(f"{nowhere} ({first_line(error)}); {expected}.") from None
    except Exception:  # no network, a proxy, a server in trouble: each version of the hub's client has its own errors
        reachable = False

    def file(part: str, revision: str | None) -> Path:
        return Path(hf_hub_download(hub_id, part, revision=revision, local_files_only=not reachable))

    try:
        config = file(CONFIG, asked or None)  # .../snapshots/<commit>/config.json
        commit = config.parent.name  # a branch may move between two files
        file(MODEL, commit)
        for part in (MANIFEST, NAMES):
            with suppress(EntryNotFoundError):  # `save_pretrained` writes none
                try:
                    file(part, commit)
                except LocalEntryNotFoundError:
                    if reachable:  # the network went away in between: it may have one
                        raise InputError(f"the {part} of {name} could not be downloaded; try again.") from None
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error) if reachable else "the hub is out of reach, and nothing was downloaded before"
        raise InputError(f"{nowhere} ({reason}); {expected}.") from None
    return config.parent
