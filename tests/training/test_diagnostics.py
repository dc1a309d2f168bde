"""Hand-made outputs whose diagnosis is known."""

from typing import Any

import pytest
import torch
from torch import Tensor

from boqsa.models import Output
from boqsa.models.radiance import Occupancy
from boqsa.training.diagnostics import Diagnostics, verdict

SIZE = 8


def output(masks: Tensor, *, loss: float = 0.1, slots: Tensor | None = None, kind: str = "mixture") -> Output:
    """An output with these masks (B, K, H, W), off by so much that `loss` is the loss ratio of `images`; slots are
    orthogonal unless given."""
    batch, count = masks.shape[:2]
    slots = torch.eye(count).expand(batch, count, count) if slots is None else slots
    return Output(
        reconstruction=images(batch, masks.shape[-1]) + (loss / 4) ** 0.5,
        slot_reconstructions=torch.zeros(batch, count, 3, 1, 1) if kind == "mixture" else None,
        masks=masks[:, :, None].float(),
        slots=slots,
        initial_slots=slots,
        attention=torch.zeros(batch, count, 4),
        losses={"reconstruction": torch.tensor(loss)},
    )


def one_hot(labels: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, count).movedim(-1, 1)  # (B, K, H, W)


def images(batch: int, size: int = SIZE) -> Tensor:
    """Half black, half white: variance 1/4 a channel, so a flat painting has the squared error 1/4."""
    image = torch.zeros(batch, 3, size, size)
    image[..., : size // 2] = 1
    return image


def numbers(
    masks: Tensor, true: Tensor | None = None, *, slot_information: float | None = None, **options: Any
) -> dict[str, Any]:
    image, found = images(len(masks), masks.shape[-1]), output(masks, **options)
    diagnostics = Diagnostics.like(found)
    diagnostics.update(found, image, true, slot_information=scalar(slot_information))
    return diagnostics.compute()


def scalar(number: float | None) -> Tensor | None:
    return None if number is None else torch.tensor(number)


def test_objects_that_are_dense_nowhere_are_told() -> None:
    masks = one_hot(torch.arange(SIZE).expand(1, SIZE, SIZE) // 3, 3)
    diagnostics = Diagnostics(3, (SIZE, SIZE), model="radiance")
    for dense in ([[0.5, 0.0]], [[0.25, 0.0]]):
        occupancy = Occupancy(torch.tensor(dense), torch.tensor([[0.4, 0.0]]))
        diagnostics.update(output(masks), images(1), None, occupancy=occupancy)
    found = diagnostics.compute()
    assert found["object_density"] == pytest.approx([0.375, 0])
    assert found["object_share"] == pytest.approx([0.4, 0])
    _, warnings = verdict(found, step=100_000, warmup_steps=100)
    assert any("1 of 2 objects are dense nowhere" in warning for warning in warnings)


def test_other_models_have_no_objects_in_a_box() -> None:
    found = numbers(one_hot(torch.zeros(1, SIZE, SIZE, dtype=torch.long), 2))
    assert found["object_density"] is None
    assert found["object_share"] is None


def judge(found: dict[str, Any], step: int = 100_000) -> str:
    return verdict(found, step=step, warmup_steps=100)[0]


def random_objects(batch: int = 200, count: int = 4) -> Tensor:
    labels = torch.zeros(batch, SIZE, SIZE, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    for image in labels:
        for slot in range(1, count):
            top, left = torch.randint(0, SIZE - 3, (2,), generator=generator).tolist()
            image[top : top + 4, left : left + 4] = slot
    return labels


def test_healthy_objects() -> None:
    labels = random_objects()
    found = numbers(one_hot(labels, 4), labels)
    assert judge(found) == "healthy"
    assert verdict(found, step=100_000, warmup_steps=100)[1] == []
    share = torch.bincount(labels.flatten(), minlength=4) / labels.numel()
    assert found["slot_share"] == pytest.approx(share.tolist())
    assert found["mask_area"] == pytest.approx(share.tolist())
    assert found["slot_use_entropy"] == pytest.approx(float(-(share * share.log()).sum() / torch.tensor(4.0).log()))
    assert found["position_information"] < 0.3
    assert found["background_slots"] == 1.0
    assert found["loss_ratio"] == pytest.approx(0.1)
    assert found["mask_sharpness"] == 1.0
    assert found["query_cosine"] == pytest.approx(0.0)
    assert found["dead_slots"] == 0


@pytest.mark.parametrize("loss", [0.1, 0.95])
def test_one_slot_that_owns_all_is_collapsed(loss: float) -> None:
    found = numbers(one_hot(torch.zeros(3, SIZE, SIZE, dtype=torch.long), 4), loss=loss)
    assert judge(found) == "collapsed"
    assert found["slot_use_entropy"] == 0.0
    assert found["dead_slots"] == 3
    assert found["position_information"] == 0.0


def test_thirds_are_split_by_position() -> None:
    labels = torch.arange(9).div(3, rounding_mode="floor").expand(6, 9, 9)
    found = numbers(one_hot(labels, 3))
    assert found["position_information"] == pytest.approx(1.0)
    assert found["half_split"] is None
    assert judge(found) == "split_by_position"


WIDE = 32


def place(axis: int) -> Tensor:
    """Row (0) or column (1) of each pixel, from -1 to 1."""
    line = torch.linspace(-1, 1, WIDE)
    return torch.meshgrid(line, line, indexing="ij")[axis]


def disc(row: float = 0.0, column: float = 0.0, radius: float = 0.6) -> Tensor:
    return ((place(0) - row).square() + (place(1) - column).square() < radius**2).long()


@pytest.mark.parametrize(
    "half",
    [place(0) > 0, place(1) < 0, place(1) > 0.4, place(0) + place(1) > 0, place(0) + 0.5 * place(1) > 0.2],
    ids=["top and bottom", "left and right", "unequal", "diagonal", "slanted"],
)
def test_halves_are_said_plainly(half: Tensor) -> None:
    found = numbers(one_hot(half.long().expand(6, WIDE, WIDE), 2))
    assert found["half_split"] > 0.9  # the line follows the covariance, which is near the best direction
    state, words = verdict(found, step=100_000, warmup_steps=100)
    assert state == "half_split"
    assert words[0].startswith("The two slots cut the picture in halves (left/right or top/bottom)")


def test_halves_with_a_border_that_wavers_are_halves_still() -> None:
    generator = torch.Generator().manual_seed(0)
    borders = 0.3 * torch.randn(200, WIDE, 1, generator=generator)
    found = numbers(one_hot((place(1) > borders).long(), 2))
    assert 0.6 < found["half_split"] < 0.95
    assert judge(found) == "half_split"


def test_a_disc_in_the_middle_is_no_half_split() -> None:
    generator = torch.Generator().manual_seed(1)
    places = [0.3 * torch.randn(3, generator=generator) for _ in range(100)]
    labels = torch.stack([disc(*place.tolist()[:2], 0.4 + abs(float(place[2]))) for place in places])
    for slots in (labels, 1 - labels):
        found = numbers(one_hot(slots, 2))
        assert found["half_split"] < 0.1
        assert judge(found) == "healthy"


def test_a_disc_that_never_moves_is_split_by_position_but_not_in_halves() -> None:
    found = numbers(one_hot(disc().expand(6, WIDE, WIDE), 2))
    assert found["half_split"] < 0.1
    assert judge(found) == "split_by_position"


@pytest.mark.parametrize(("spread", "state"), [(0.4, "half_split"), (1.0, "healthy")])
def test_a_horizon_is_a_half_split_unless_its_height_varies_over_the_whole_picture(spread: float, state: str) -> None:
    """Labels alone cannot tell a low horizon in every picture from a line that knows nothing of it."""
    heights = spread * torch.linspace(-1, 1, 201)[:, None, None]
    found = numbers(one_hot((place(0) > heights).long(), 2))
    assert found["half_split"] == pytest.approx(1 - spread / 2, abs=0.05)
    assert judge(found) == state


def test_advice_fits_the_kind_of_model() -> None:
    half = one_hot((place(0) > 0).long().expand(6, WIDE, WIDE), 2)
    one = one_hot(torch.zeros(6, WIDE, WIDE, dtype=torch.long), 2)
    for masks, mixture, transformer in ((half, True, True), (one, False, True)):
        said = {
            kind: " ".join(verdict(numbers(masks, kind=kind), step=100_000, warmup_steps=100)[1])
            for kind in ("mixture", "transformer")
        }
        assert "model.decoder-channels" in said["mixture"]
        assert "model.decoder-channels" not in said["transformer"]
        assert ("model.slot-size" in said["mixture"]) == mixture
        assert ("model.slot-size" in said["transformer"]) == transformer


def test_slots_that_tell_the_decoder_nothing_are_said() -> None:
    masks = one_hot(random_objects(), 4)
    ignored = numbers(masks, kind="transformer", slot_information=0.001)
    assert ignored["slot_information"] == pytest.approx(0.001)
    assert judge(ignored) == "slots_ignored"
    assert judge(ignored, step=10) == "healthy"  # early, nothing is asked of them yet
    assert judge(numbers(masks, kind="transformer", slot_information=0.1)) == "healthy"
    assert judge(numbers(masks, kind="transformer")) == "healthy"
    flat = numbers(torch.full((2, 4, SIZE, SIZE), 0.25), kind="transformer", slot_information=0.0)
    assert len(verdict(flat, step=100_000, warmup_steps=100)[1]) == 2
    assert judge(numbers(masks, kind="transformer", slot_information=float("nan"))) == "broken"


def test_slot_information_is_a_mean_over_images() -> None:
    diagnostics = Diagnostics(4, (SIZE, SIZE), model="transformer")
    for batch, information in ((3, 0.4), (1, 0.0), (1, None)):
        masks = one_hot(random_objects(batch), 4)
        diagnostics.update(output(masks), images(batch), None, slot_information=scalar(information))
    assert diagnostics.compute()["slot_information"] == pytest.approx(0.3)


def test_labels_without_a_place_carry_no_position_information() -> None:
    labels = torch.randint(0, 3, (3000, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    assert numbers(one_hot(labels, 3))["position_information"] < 0.01


def test_uniform_masks_are_flat_not_broken() -> None:
    found = numbers(torch.full((2, 4, SIZE, SIZE), 0.25), loss=1.0)
    assert found["mask_sharpness"] == pytest.approx(0.25)
    assert found["loss_ratio"] == pytest.approx(1.0)
    early, early_words = verdict(found, step=500, warmup_steps=100)
    late, late_words = verdict(found, step=50_000, warmup_steps=100)
    assert early == late == "flat"
    assert "nothing is broken" in early_words[0]
    assert "Some runs stay here for long" in late_words[0]


def test_a_falling_loss_with_undecided_masks_is_flat_and_says_why() -> None:
    found = numbers(torch.full((2, 4, SIZE, SIZE), 0.25), loss=0.5)
    state, words = verdict(found, step=500, warmup_steps=100)
    assert state == "flat"
    assert "same share" in words[0]


def test_broken_is_told_apart() -> None:
    masks = one_hot(random_objects(4), 4)
    assert judge(numbers(masks, loss=float("nan"))) == "broken"
    assert judge(numbers(masks, loss=float("inf"))) == "broken"
    assert judge(numbers(masks, loss=5.0)) == "broken"
    assert judge(numbers(masks, loss=5.0), step=10) == "flat"  # an untrained model may begin there


def test_dead_slots_shared_background_and_parallel_queries_are_said() -> None:
    true = torch.zeros(50, SIZE, SIZE, dtype=torch.long)
    labels = torch.randint(0, 3, true.shape, generator=torch.Generator().manual_seed(2))
    found = numbers(one_hot(labels, 4), true, slots=torch.ones(50, 4, 5))
    assert found["dead_slots"] == 1
    assert found["background_slots"] == 3.0
    assert found["query_cosine"] == pytest.approx(1.0)
    state, words = verdict(found, step=100_000, warmup_steps=100)
    assert state == "healthy"
    assert len(words) == 3


def test_images_without_background_are_left_out_of_its_count() -> None:
    true = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    true[1] = 1
    masks = one_hot(torch.zeros_like(true), 2)
    assert numbers(masks, true)["background_slots"] == 1.0
    assert numbers(masks, torch.ones_like(true))["background_slots"] is None
    assert numbers(masks)["background_slots"] is None


def test_batches_add_up() -> None:
    masks = torch.rand(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)).softmax(dim=1)
    whole, parts = numbers(masks), Diagnostics(3, (SIZE, SIZE), model="mixture")
    for piece in (masks[:4], masks[4:]):
        parts.update(output(piece), images(len(piece)), None)
    for name, value in parts.compute().items():
        expected = whole[name] if value is None or isinstance(value, str) else pytest.approx(whole[name], rel=1e-6)
        assert value == expected, name


def test_a_single_slot_is_no_collapse() -> None:
    found = numbers(torch.ones(2, 1, SIZE, SIZE))
    assert found["slot_use_entropy"] == 0.0
    assert judge(found) == "healthy"


def test_nothing_seen() -> None:
    with pytest.raises(ValueError, match="no images"):
        Diagnostics(3, (SIZE, SIZE), model="mixture").compute()


def test_a_features_model_is_compared_with_one_mean_feature_an_image() -> None:
    masks = one_hot(torch.arange(SIZE).expand(2, SIZE, SIZE) // 4, 2)
    features = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))
    flat = (features - features.mean(dim=1, keepdim=True)).square().mean()
    found = output(masks)._replace(
        reconstruction=None, slot_reconstructions=None, feature_reconstruction=features + (0.3 * flat) ** 0.5
    )
    diagnostics = Diagnostics.like(found)
    diagnostics.update(found, features, None)
    values = diagnostics.compute()
    assert values["model"] == "features"
    assert values["loss_ratio"] == pytest.approx(0.3, rel=1e-5)
    state, words = verdict(values, step=100_000, warmup_steps=100)
    assert state == "half_split"
    assert "least-crop" not in " ".join(words), "features cannot be cropped"
    _, words = verdict({**values, "loss_ratio": 0.99}, step=100_000, warmup_steps=100)
    assert "the slots rebuild no better than one mean feature a picture" in words[0]
