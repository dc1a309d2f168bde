"""The learning test: a minute model really finds squares, and the thresholds tell it from ones that do not.

Three squares on black, each of a hue of its own out of all hues, so that no query can stand for a colour. With three
colours to choose from, as it was before, the outcome hung on the seed and on the CPU's last bits, and a model
without competition scored as well as the whole one.

Held-out squares, fp32, one thread, the recipe below; ARI and ARI-FG of the decoder's masks:

                                          ARI                       ARI-FG
                              seeds    min   median  max         min   median  max
    whole model                 10    0.81    0.88   0.92       0.91    0.94   0.96
    untrained                   10   -0.01    0.00   0.00      -0.03    0.00   0.02
    softmax on the wrong axis    8    0.03    0.04   0.07       0.29    0.59   0.87

The recipe was chosen on seeds 0 to 3. Each threshold lies two thirds of the way from the untrained model to the worst
of those four whole ones, to the nearest 0.05. The rule was not blind: two wrong runs of this recipe, and several of
others, had been seen when it was made. The test's seed is a middling one of those trained afterwards. Changing the
order of floating-point operations alone (memory format, accumulation) moved its ARI between 0.80 and 0.88.

Without competition the slots can still part the squares, so ARI-FG does not tell; but nothing makes a slot leave the
background to another, and all of them share it, which ARI shows.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from boqsa.data import PackedDataset
from boqsa.data.packing import write_packed
from boqsa.inference.load import build_model, load
from boqsa.models import MixtureModel
from boqsa.recipes import DataRecipe, EvaluateRecipe, MixtureRecipe, Recipe, TrainRecipe
from boqsa.slots import SlotAttention
from boqsa.slots.attention import FoldedTokens
from boqsa.training import evaluate, train
from boqsa.training.evaluation import headline

THRESHOLDS = {"ari": 0.55, "ari_fg": 0.6}

RECIPE = Recipe(
    name="squares",
    data=DataRecipe(name="arrays", image_size=12),
    model=MixtureRecipe(
        num_slots=4,
        slot_size=32,
        mlp_size=64,
        encoder_channels=(16, 16),
        encoder_strides=(2, 1),
        # Two layers: with one, the slots cut the picture in regions.
        decoder_grid=3,
        decoder_channels=(32, 16),
        decoder_strides=(2, 2),
        # Not five: with them one seed of four left the background shared.
        iterations=3,
        drop_path=0.0,
    ),
    train=TrainRecipe(
        steps=1200,
        batch_size=32,
        learning_rate=4e-3,
        warmup_steps=50,
        half_life_steps=600,
        sigma_steps=800,
        device="cpu",
        checkpoint_every=10_000,
        evaluate_every=10_000,
    ),
    evaluate=EvaluateRecipe(validation_limit=0),
    seed=5,
)


def draw(count: int, *, seed: int, size: int = 12, side: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Three squares of any hue on black, at least one pixel apart. Images (N, 3, 12, 12) and masks 0 to 3."""
    generator = np.random.default_rng(seed)
    images = np.zeros((count, 3, size, size), dtype=np.uint8)
    masks = np.zeros((count, size, size), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        label = 1
        while label <= 3:
            top, left = generator.integers(0, size - side + 1, size=2)
            if mask[max(top - 1, 0) : top + side + 1, max(left - 1, 0) : left + side + 1].any():
                continue
            colour = 255 * np.array(colorsys.hsv_to_rgb(generator.random(), 1, 1))
            image[:, top : top + side, left : left + side] = colour[:, None, None]
            mask[top : top + side, left : left + side] = label
            label += 1
    return images, masks


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PackedDataset]:
    folder = tmp_path_factory.mktemp("learning") / "packed"
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    splits = {"train": draw(1024, seed=0), "test": draw(128, seed=1)}
    write_packed(folder, splits, task="multi-object", **words)
    return lambda name: PackedDataset(folder, name)


def scores(model: MixtureModel, split: PackedDataset) -> dict[str, float]:
    labelled = headline(evaluate(model, split, RECIPE.evaluate))
    return {name: labelled[name] for name in THRESHOLDS}


def test_it_learns(tmp_path: Path, split: Callable[[str], PackedDataset]) -> None:
    torch.manual_seed(RECIPE.seed)
    untrained = scores(build_model(RECIPE), split("test"))
    assert train(RECIPE, tmp_path / "run", train_data=split("train"))
    trained = scores(load(tmp_path / "run"), split("test"))
    for name, threshold in THRESHOLDS.items():
        assert untrained[name] < threshold < trained[name], name


def test_the_softmax_on_the_wrong_axis_misses_a_threshold(
    tmp_path: Path, split: Callable[[str], PackedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(
        self: SlotAttention, prepared: FoldedTokens, slots: Tensor, drop_path: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step without competition: every slot's attention is a softmax over the tokens."""
        keys, values = self.to_keys(prepared.tokens), self.to_values(prepared.tokens)
        logits = self.to_queries(self.norm_slots(slots)) @ keys.mT / math.sqrt(self.slot_size)
        attention = logits.softmax(dim=-1)
        updates = self._weights(attention) @ values
        hidden = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return hidden + self._keep(self.mlp(self.norm_mlp(hidden)), drop_path), attention

    monkeypatch.setattr(SlotAttention, "step", step)
    assert train(RECIPE, tmp_path / "run", train_data=split("train"))
    assert scores(load(tmp_path / "run"), split("test"))["ari"] < THRESHOLDS["ari"]


@pytest.mark.parametrize(("gradient", "moves"), [("bilevel", True), ("implicit", False), ("unrolled", True)])
def test_queries_move_only_where_a_gradient_reaches_them(
    gradient: str, moves: bool, tmp_path: Path, split: Callable[[str], PackedDataset]
) -> None:
    recipe = replace(
        RECIPE,
        model=replace(RECIPE.model, gradient=gradient),
        train=replace(RECIPE.train, steps=5, warmup_steps=0),
    )
    torch.manual_seed(recipe.seed)
    start = build_model(recipe).slot_encoder.queries.weight
    train(recipe, tmp_path / "run", train_data=split("train"))
    end = load(tmp_path / "run").slot_encoder.queries.weight
    assert torch.equal(start, end) is not moves
