"""What single processes measure, run in this one; no time is asserted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boqsa.bench import work
from boqsa.bench.ceilings import Ceilings, CeilingSizes, measure_ceilings
from boqsa.bench.literal import LiteralStep
from boqsa.bench.operations import OperationCounter, Operations
from boqsa.bench.stopwatch import Stopwatch
from boqsa.data import write_packed
from boqsa.errors import BoqsaError, InputError
from boqsa.recipes import Recipe

TINY = CeilingSizes(images=1, matrix=32)


@pytest.mark.parametrize("kind", ["mixture", "transformer"])
@pytest.mark.parametrize("form", ["training", "evaluation"])
def test_operations_are_a_line_in_the_batch(kind: str, form: work.Form, request: pytest.FixtureRequest) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    fixed, an_image = work.count_operations(recipe)[form]
    step = work._build(form, recipe, work._images(recipe, torch.device("cpu")))
    with OperationCounter() as counter:
        step(0)
    assert counter.counted == fixed.plus(an_image, times=4)
    assert an_image.convolution > 0
    assert an_image.product > 0


def test_convolutions_of_the_mixture_by_hand(mixture_recipe: Recipe) -> None:
    fixed, an_image = work.count_operations(mixture_recipe)["evaluation"]
    encoder = 8 * 8 * (4 * 3 * 25 + 6 * 4 * 25)
    decoder = 8 * 8 * 8 * 5 * 25 + 16 * 16 * (5 * 4 * 25 + 4 * 4 * 9)  # by the positions that come in
    assert an_image.convolution == 2 * (encoder + 3 * decoder)
    assert fixed.convolution == 0
    # The four coordinates of each cell are mapped to channels once for all images.
    assert fixed.product == 2 * 8 * 8 * 4 * (6 + 8)


@pytest.mark.parametrize("form", ["training", "evaluation", "reference"])
@pytest.mark.parametrize("kind", ["mixture", "transformer"])
def test_every_form_runs(kind: str, form: work.Form, request: pytest.FixtureRequest) -> None:
    recipe: Recipe = request.getfixturevalue(f"{kind}_recipe")
    timed = work.time_form(form, recipe, 0.0, TINY)
    assert len(timed.seconds) == 1
    assert timed.seconds[0] > 0
    assert min(timed.ceilings) > 0
    assert timed.peak.needs is None


def test_the_losses_of_model_and_reference_agree(mixture_recipe: Recipe, transformer_recipe: Recipe) -> None:
    assert set(work.compare_losses(mixture_recipe)) == {"reconstruction"}
    assert set(work.compare_losses(transformer_recipe)) == {"dvae", "cross_entropy"}


def test_another_algorithm_is_refused_in_one_line(mixture_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = LiteralStep.losses

    def other(*arguments: object, **options: object) -> dict[str, Tensor]:
        return {name: 1.001 * loss for name, loss in losses(*arguments, **options).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(LiteralStep, "losses", other)
    with pytest.raises(BoqsaError, match="the reference is not the same algorithm") as error:
        work.compare_losses(mixture_recipe)
    assert "\n" not in str(error.value)


def test_reading(mixture_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_PACKED_BYTES", 10_000)
    assert work.read_images(mixture_recipe, tmp_path, 0.0) > 0
    named = replace(mixture_recipe, data=replace(mixture_recipe.data, root=str(tmp_path)))
    with pytest.raises(InputError, match="manifest"):
        work.read_images(named, tmp_path, 0.0)


def test_reading_of_data_at_hand(mixture_recipe: Recipe, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8).numpy()
    words = {"name": "arrays", "source": "drawn", "licence": "none", "split_rule": "drawn"}
    write_packed(tmp_path / "packed", {"train": (images, None)}, task="multi-object", **words)
    recipe = replace(mixture_recipe, data=replace(mixture_recipe.data, root=str(tmp_path / "packed")))
    assert work.read_images(recipe, tmp_path, 0.0) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_ceilings() -> None:
    found = measure_ceilings(torch.device("cpu"), torch.bfloat16, TINY, seconds=0)
    assert min(found) > 0
    assert Ceilings(convolution=4, product=10).floor_s(Operations(convolution=8, product=5)) == 2.5


def test_the_stopwatch_counts_from_zero_and_calls_once_at_least() -> None:
    calls: list[int] = []
    assert len(Stopwatch(torch.device("cpu")).repeat(calls.append, seconds=0)) == 1
    assert calls == [0]
    times = Stopwatch(torch.device("cpu")).repeat(calls.append, seconds=0.01)
    assert calls == [0, *range(len(times))]
