"""A training step: the losses that it has always had, compiled as without, and nothing asked of the device.

The golden losses are of this repository's own first twenty steps. They stand for everything that decides a step: draws,
order of samples, initial weights, schedules, losses, the optimiser. A change that moves them is a change for users:
write it into CHANGELOG.md, and then the files anew, with BOQSA_REWRITE_GOLDEN=1.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from boqsa.data import PackedDataset
from boqsa.errors import RecipeError
from boqsa.inference.load import build_model
from boqsa.recipes import MixtureRecipe, Recipe, TransformerRecipe
from boqsa.training import machine
from boqsa.training.data import StepImages
from boqsa.training.step import TrainStep

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
RATE = 3e-4
AGREE = 2e-5
"""Relative. Rounding of another memory layout makes 2e-7; any of the changes below makes more than this."""

SMALL = {
    "mixture": MixtureRecipe(
        num_slots=3,
        slot_size=16,
        mlp_size=24,
        encoder_channels=(8, 8),
        encoder_strides=(1, 2),
        decoder_channels=(8, 8),
        decoder_strides=(2, 1),
        decoder_grid=8,
    ),
    "transformer": TransformerRecipe(
        num_slots=3,
        slot_size=16,
        mlp_size=24,
        vocab_size=32,
        width=16,
        blocks=2,
        heads=2,
        encoder_channels=(8, 8),
        encoder_strides=(1, 1),
        dvae_channels=8,
    ),
}


def small(recipe: Recipe, kind: str) -> Recipe:
    """A model of each kind on 16x16 images, with every random draw that training has."""
    train = replace(
        recipe.train, learning_rate=RATE, warmup_steps=5, sigma_steps=12, flip=True, least_crop=0.7, threads=1
    )
    train = replace(train, dvae=replace(train.dvae, learning_rate=RATE))
    return replace(recipe, model=SMALL[kind], train=train, seed=11)


class RandomImages:
    """The same 16 random images each time."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        return self.images[torch.as_tensor(indices)]


def losses(recipe: Recipe) -> list[float]:
    torch.manual_seed(recipe.seed)
    step = TrainStep(recipe, build_model(recipe).train())
    found = []
    with step.own_stream():
        for number in range(STEPS):
            if number == STEPS // 2:
                counters.clear()  # of what is compiled
            found.append(float(step(RandomImages(), number).loss))
    return found


@pytest.mark.parametrize("kind", SMALL)
def test_the_losses_are_those_of_the_golden_file(recipe: Recipe, kind: str) -> None:
    found = losses(small(recipe, kind))
    path = GOLDEN / f"{kind}.json"
    if os.environ.get("BOQSA_REWRITE_GOLDEN"):
        path.write_text(json.dumps({"torch": torch.__version__, "losses": found}, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(path.read_text(encoding="utf-8"))["losses"]
    assert found == pytest.approx(golden, rel=AGREE)


@pytest.mark.parametrize("kind", SMALL)
def test_rounding_alone_does_not_move_them(recipe: Recipe, kind: str) -> None:
    usual = small(recipe, kind)
    other = replace(usual, train=replace(usual.train, channels_last=False))
    assert losses(other) == pytest.approx(losses(usual), rel=AGREE)


@pytest.mark.parametrize("kind", SMALL)
def test_the_golden_file_would_notice(recipe: Recipe, kind: str) -> None:
    golden = json.loads((GOLDEN / f"{kind}.json").read_text(encoding="utf-8"))["losses"]
    usual = small(recipe, kind)
    changes = [
        replace(usual, train=replace(usual.train, learning_rate=1.5 * RATE)),
        replace(usual, train=replace(usual.train, flip=False)),
        replace(usual, train=replace(usual.train, sigma_steps=13)),
        replace(usual, model=replace(usual.model, drop_path=0.3)),
        replace(usual, seed=12),
    ]
    for changed in changes:
        assert losses(changed) != pytest.approx(golden, rel=AGREE)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", SMALL)
def test_compiled_steps_are_one_graph_and_have_the_same_losses(recipe: Recipe, kind: str, backend: str) -> None:
    """Graphs and guards do not depend on what makes the kernels; making them takes minutes."""
    recipe = small(recipe, kind)
    if kind == "transformer":  # compiled, PyTorch's own dropout draws
        recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    # In a process of its own: shape checks, which tests turn on, cannot be compiled.
    program = [sys.executable, __file__, backend]
    process = subprocess.run(program, input=recipe.to_json(), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    found = json.loads(process.stdout)
    assert found["compiled"] == pytest.approx(found["eager"], rel=1e-4)
    # Sigma and tau change at each step, which must compile nothing anew; one more graph is that without a perturbation.
    assert found["late"] == 1


def test_without_a_compiler_it_says_so(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    compiled = replace(recipe, train=replace(recipe.train, compile=True))
    with pytest.raises(RecipeError, match=r"train\.compile is on and needs a C\+\+ compiler.*--train\.no-compile"):
        TrainStep(compiled, build_model(compiled))


@pytest.mark.parametrize("kind", SMALL)
def test_a_step_reads_nothing_from_the_device(recipe: Recipe, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would make a GPU's host wait for it."""
    step = TrainStep(small(recipe, kind), build_model(small(recipe, kind)).train())
    images = RandomImages()
    with step.own_stream():
        step(images, 0)

        def refuse(*_: object) -> None:
            raise AssertionError("a step read a number from the device")

        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
            monkeypatch.setattr(torch.Tensor, name, refuse)
        step(images, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("kind", SMALL)
def test_the_host_never_waits_for_a_gpu(recipe: Recipe, packed: Path, kind: str) -> None:
    recipe = small(recipe, kind)
    recipe = replace(recipe, train=replace(recipe.train, device="cuda"))
    step = TrainStep(recipe, build_model(recipe).train())
    for resident in (True, False):
        images = StepImages(PackedDataset(packed, "train"), step.device, resident=resident)
        step(images, 0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(images, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def compare_compiled(backend: str) -> None:
    """Recipe in, losses out; `late` is how many graphs were compiled after the tenth step."""
    torch.set_num_threads(1)
    torch.compile = partial(torch.compile, backend=backend)
    recipe = Recipe.from_json(sys.stdin.read())
    eager = losses(recipe)
    compiled = losses(replace(recipe, train=replace(recipe.train, compile=True)))
    print(json.dumps({"eager": eager, "compiled": compiled, "late": counters["stats"]["unique_graphs"]}))


if __name__ == "__main__":
    compare_compiled(sys.argv[1])
