"""What the first step of a process starts from: data that fit the recipe, the model, and how torch computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError, RunError
from boqsa.inference.load import build_model
from boqsa.inference.run import CHECKPOINTS, MANIFEST, RECIPE, checkpoint_folder, load_weights, misfit
from boqsa.models.published import Model
from boqsa.recipes import Recipe
from boqsa.slots import LearnedQueries
from boqsa.training.features import require_input
from boqsa.training.views import SceneViews


def check_data(recipe: Recipe, train: PackedDataset, validation: PackedDataset | None) -> None:
    """Go on if a recipe can be trained on these splits.

    Raises:
        RecipeError: if the images have another size, or a features model lacks its features, or something counts
            evaluations and there are none.
    """
    for data in filter(None, (train, validation)):
        require_input(data, recipe)
        if recipe.model.kind == "radiance":
            least = recipe.train.radiance.views if data is train else recipe.evaluate.radiance.views
            SceneViews(data, least=least)
    if recipe.train.patience and validation is None:
        raise RecipeError(
            "train.patience counts evaluations, but there is no validation split; "
            "pass --train.patience 0, or prepare data with one."
        )


def starting_model(recipe: Recipe, checkpoint: Path | None) -> Model:
    """The recipe's model: as a checkpoint of its run has it, or new from its seed or from another run's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_model(recipe)
        if recipe.train.query_update != "gradient":
            queries = model.slot_encoder.queries
            assert isinstance(queries, LearnedQueries)  # the recipe has seen to it
            # Drawn last: all other weights are those that the same seed gives to a run with gradients (spec 6.3).
            nn.init.xavier_normal_(queries.weight)
    if checkpoint is not None:
        _take(model, checkpoint, of=checkpoint)
    elif recipe.train.init_from is not None:
        _take(model, _named_checkpoint(Path(recipe.train.init_from)), of=recipe.train.init_from)
    return model


def _named_checkpoint(path: Path) -> Path:
    """The checkpoint that `train.init_from` means: `last` of a run, or the one whose folder it names."""
    if path.parent.name == CHECKPOINTS and (path / MANIFEST).is_file():
        return path
    if not (path / RECIPE).is_file():
        raise RunError(
            f"--train.init-from names {path}, where there is no run folder; give the --out of a training, or one of "
            f"its checkpoints, as RUN/{CHECKPOINTS}/best_loss."
        )
    return checkpoint_folder(path)


def _take(model: Model, folder: Path, *, of: str | Path) -> None:
    weights = load_weights(folder)
    wrong = misfit(model, weights)
    if wrong is not None:
        raise RunError(f"the weights of {of} do not fit this recipe: {wrong}.")
    model.load_state_dict(weights)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch takes algorithms alone that give the same bits each time; without `wanted` nothing is changed.

    An operation that has none raises a RuntimeError. Afterwards torch is as it was, but for cuBLAS, which has read its
    variable by then.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used; another value of the user's may be deterministic too.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    before, tried = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        cudnn.benchmark = tried


def computes_on(device: torch.device, recipe: Recipe) -> dict[str, Any]:
    """For the log: whether `deterministic` is on, and the name of the GPU where there is one."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {"deterministic": recipe.train.deterministic, **gpu}
