"""Which slots a picture needs: hand-made pictures and decoders whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from boqsa.models import FeaturesModel, Output, TransformerModel
from boqsa.models.adaptive import (
    LEAST_CONTRAST,
    LEAST_RISE,
    LEAST_RISE_OF_FEATURES,
    LEAST_RISE_OF_TOKENS,
    has_adaptive_slots,
    least_contrast_of,
    least_rise_of,
    needed_slots,
    without_least_missed,
)
from boqsa.models.fewer_slots import of_features, of_tokens

SIZE = 16


def scene(*objects: tuple[int, int, float]) -> tuple[Tensor, Tensor]:
    """A black picture (3, H, W) with squares of 5 pixels at (row, column) of a grey, and labels, 0 for none."""
    image, labels = torch.zeros(3, SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=torch.long)
    for number, (row, column, grey) in enumerate(objects, start=1):
        image[:, row : row + 5, column : column + 5] = grey
        labels[row : row + 5, column : column + 5] = number
    return image, labels


def output(image: Tensor, owners: Tensor, painted: Tensor, heirs: Tensor | None = None) -> Output:
    """A batch of one: who owns each pixel (H, W), who would own it next (slot 0, or slot 1 where that owns it), and
    what each slot paints everywhere (K,)."""
    slots = len(painted)
    heirs = (owners == 0).long() if heirs is None else heirs
    shares = [0.98 * torch.nn.functional.one_hot(owners, slots), 0.02 * torch.nn.functional.one_hot(heirs, slots)]
    masks = sum(shares, start=torch.zeros(SIZE, SIZE, slots)).permute(2, 0, 1)[None, :, None]
    images = painted.view(1, slots, 1, 1, 1).expand(1, slots, 3, SIZE, SIZE).clone()
    zeros = torch.zeros(1, slots, 4)
    return Output(image[None], images, masks, zeros, zeros, torch.zeros(1, slots, 4), {})


def test_slots_that_paint_what_nobody_else_can_are_needed() -> None:
    image, owners = scene((3, 3, 0.5), (9, 9, 1.0))
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.5, 1.0])), image[None])
    assert found.is_needed.tolist() == [[True, True, True]]
    torch.testing.assert_close(found.segmentation()[0], owners)
    assert found.objects().tolist() == [2]


def test_an_empty_slot_is_left_out() -> None:
    image, owners = scene((3, 3, 0.5))
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.5, 0.3, 0.9])), image[None])
    assert found.is_needed.tolist() == [[True, True, False, False]]
    assert found.objects().tolist() == [1]
    assert (found.masks[:, 2:] == 0).all()
    torch.testing.assert_close(found.masks.sum(dim=1), torch.ones(1, 1, SIZE, SIZE))


def test_of_two_slots_on_one_object_one_stays_and_takes_all_of_it() -> None:
    image, owners = scene((3, 3, 0.5))
    halves = owners.clone()
    halves[6:, :][owners[6:, :] == 1] = 2
    heirs = torch.where(owners == 1, 3 - halves, 1)  # each half is the other's
    found = needed_slots(output(image, halves, torch.tensor([0.0, 0.5, 0.5]), heirs), image[None])
    assert found.is_needed.sum() == 2
    labels = found.segmentation()[0]
    assert len(labels[owners == 1].unique()) == 1
    assert found.objects().tolist() == [1]


def test_two_objects_of_one_colour_stay_two_where_the_slots_differ() -> None:
    """What a slot paints elsewhere decides: one that paints the background there cannot take over."""
    image, owners = scene((2, 2, 0.5), (9, 9, 0.5))
    made = output(image, owners, torch.tensor([0.0, 0.5, 0.5]))
    painted = made.slot_reconstructions
    assert painted is not None
    painted[0, 1][:, owners == 2] = 0.0
    painted[0, 2][:, owners == 1] = 0.0
    assert needed_slots(made, image[None]).objects().tolist() == [2]


def test_a_room_that_two_slots_share_is_no_object() -> None:
    image, owners = scene((6, 6, 1.0))
    image[:, 8:][:, owners[8:] == 0] = 0.4
    owners = owners * 2
    owners[8:][owners[8:] == 0] = 1
    found = needed_slots(output(image, owners, torch.tensor([0.0, 0.4, 1.0])), image[None])
    assert found.is_needed.tolist() == [[True, True, True]]
    assert found.objects().tolist() == [1]


def test_bytes_and_double_precision_are_images_too() -> None:
    image, owners = scene((3, 3, 0.6), (9, 9, 1.0))
    made = output(image, owners, torch.tensor([0.0, 0.6, 1.0]))
    assert needed_slots(made, (255 * image[None]).round().to(torch.uint8)).objects().tolist() == [2]
    assert needed_slots(made, image[None].double()).objects().tolist() == [2]


def test_pictures_of_a_batch_are_told_apart_and_one_slot_always_stays() -> None:
    (one, of_one), (none, of_none) = scene((3, 3, 0.5)), scene()
    made = [output(image, owners, torch.tensor([0.0, 0.5, 0.9])) for image, owners in ((one, of_one), (none, of_none))]
    both = Output(*(torch.cat(pair) if isinstance(pair[0], Tensor) else {} for pair in zip(*made, strict=True)))
    found = needed_slots(both, torch.stack([one, none]))
    assert found.is_needed.tolist() == [[True, True, False], [True, False, False]]
    assert found.objects().tolist() == [1, 0]
    assert needed_slots(both, torch.stack([one, none]), least_rise=1e9).is_needed.sum(dim=1).tolist() == [1, 1]


def test_a_mixture_has_the_numbers_of_the_loop_written_out() -> None:
    """Every error computed anew for every slot and round, as the first version did; to the last bit."""
    generator = torch.Generator().manual_seed(0)
    pictures, slots = 4, 5
    masks = torch.randn(pictures, slots, 1, 8, 8, generator=generator).mul(3).softmax(dim=1)
    painted = torch.rand(pictures, slots, 3, 8, 8, generator=generator)
    image = torch.rand(pictures, 3, 8, 8, generator=generator)
    zeros = torch.zeros(pictures, slots, 4)
    made = Output(image, painted, masks, zeros, zeros, zeros, {})

    def shared(kept: Tensor) -> Tensor:
        some = masks.clamp(min=1e-12) * kept[:, :, None, None, None]
        return some / some.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def error(kept: Tensor) -> Tensor:
        return ((painted * shared(kept)).sum(dim=1) - image).square().mean(dim=(1, 2, 3))

    left = []
    for least_rise in (0.0, 1e-3, 5e-3, 1e-2, 1.0):
        kept = torch.ones(pictures, slots, dtype=torch.bool)
        for _ in range(slots - 1):
            rises = torch.full((pictures, slots), torch.inf)
            for slot in range(slots):
                without = kept.clone()
                without[:, slot] = False
                rises[:, slot] = error(without) - error(kept)
            rise, least = rises.masked_fill(~kept | (kept.sum(dim=1, keepdim=True) == 1), torch.inf).min(dim=1)
            goes = rise < least_rise
            kept[goes, least[goes]] = False
        found = needed_slots(made, image, least_rise=least_rise, least_contrast=0.0)
        assert torch.equal(found.is_needed, kept)
        assert torch.equal(found.masks, shared(kept))
        left.append(kept.sum(dim=1).tolist())
    assert len({tuple(counts) for counts in left}) > 2  # or it would prove little
    assert left[-1] == [1] * pictures


@pytest.mark.parametrize(("contrast", "objects"), [(0.9 * LEAST_CONTRAST, 0), (1.1 * LEAST_CONTRAST, 1)])
def test_a_large_part_that_is_hardly_off_without_its_slot_is_no_object(contrast: float, objects: int) -> None:
    """A piece of the room, 8 of 16 pixels a side, a little lighter: the error of the picture rises enough in both."""
    image, owners = torch.zeros(3, SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=torch.long)
    image[:, 4:12, 4:12], owners[4:12, 4:12] = contrast, 1
    made = output(image, owners, torch.tensor([0.0, contrast]))
    assert contrast**2 / 4 > 2 * LEAST_RISE
    assert needed_slots(made, image[None]).objects().tolist() == [objects]
    assert needed_slots(made, image[None], least_contrast=0.0).objects().tolist() == [1]


def test_the_least_missed_goes_first_and_the_question_is_asked_again() -> None:
    """Slots 0 and 1 stand for each other: without both the error is 9. Slot 2 costs 2, slot 3 of picture 1 nothing."""
    asked = []

    def error(kept: Tensor, pictures: Tensor) -> Tensor:
        asked.append((kept.clone(), pictures.tolist()))
        pair = 9.0 * ~(kept[:, 0] | kept[:, 1]) + 0.5 * ~kept[:, 0] + 0.25 * ~kept[:, 1]
        return pair + 2.0 * ~kept[:, 2] + torch.tensor([4.0, 0.0])[pictures] * ~kept[:, 3]

    every = torch.ones(2, 4, dtype=torch.bool)

    def left(least_rise: float) -> list[list[int]]:
        found = without_least_missed(error, every, lambda kept: torch.full(kept.shape, least_rise))
        return [row.nonzero().flatten().tolist() for row in found]

    assert left(0.0) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert left(0.1) == [[0, 1, 2, 3], [0, 1, 2]]
    assert left(0.3) == [[0, 2, 3], [0, 2]]
    assert left(3.0) == [[0, 3], [0]]
    assert left(5.0) == [[0], [0]]
    assert left(1e9) == [[0], [0]]
    assert all(kept.any(dim=1).all() for kept, _ in asked)
    assert every.all()  # what was given is as it was
    asked.clear()
    assert left(0.1)[1] == [0, 1, 2]
    assert [pictures for _, pictures in asked] == [[0, 1]] * 5 + [[1]] * 3  # picture 0 is done after one round


def test_the_one_that_goes_is_missed_least_for_what_is_asked_of_it() -> None:
    """Slot 0 is missed by 0.3 of the 1 that is asked of it, slot 1 by 0.2 of 0.4: slot 0 goes, slot 1 takes over."""

    def error(kept: Tensor, _: Tensor) -> Tensor:
        return 0.3 * ~kept[:, 0] + 0.2 * ~kept[:, 1] + 5.0 * ~(kept[:, 0] | kept[:, 1]) + 9.0 * ~kept[:, 2]

    asked = torch.tensor([[1.0, 0.4, 1.0]])
    found = without_least_missed(error, torch.ones(1, 3, dtype=torch.bool), lambda _: asked)
    assert found.tolist() == [[False, True, True]]


class Speaker(nn.Module):
    """In place of the token decoder: a slot is 4 numbers, its logits of token 1 less those of token 0 at each of 4
    places, and the loudest slot is heard."""

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens[..., None].float()

    def forward(self, embedded: Tensor, slots: Tensor) -> Tensor:
        loudest = slots.gather(1, slots.abs().argmax(dim=1, keepdim=True))[:, 0]  # (B, L)
        return torch.stack([torch.zeros_like(loudest), loudest], dim=-1)


def transformer(**changes: object) -> TransformerModel:
    torch.manual_seed(0)
    arguments: dict[str, object] = {
        **{"image_size": 8, "num_slots": 4, "slot_size": 4, "mlp_size": 8, "vocab_size": 5, "width": 8},
        **{"blocks": 2, "heads": 2, "encoder_channels": (4,), "encoder_strides": (1,), "dvae_channels": 4},
    }
    return TransformerModel(**{**arguments, **changes}).eval()  # type: ignore[arg-type]


def test_of_a_transformer_copies_and_empty_slots_go_and_the_rest_share_their_masks() -> None:
    """Slot 1 is a copy of slot 0, slot 2 says nothing, slot 3 the last two tokens; in picture 1 it is wrong there."""
    model = transformer()
    model.token_decoder = Speaker()  # type: ignore[assignment]
    image = torch.rand(2, 3, 8, 8)
    half, silent, rest = [5.0, -5.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 5.0, 5.0]
    slots = torch.tensor([[half, half, silent, rest]] * 2)
    tokens = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 0]]).view(2, 2, 2)
    masks = torch.tensor([0.3, 0.1, 0.4, 0.2]).view(1, 4, 1, 1, 1).expand(2, 4, 1, 8, 8)
    made = transformer()(image)._replace(slots=slots, tokens=tokens, masks=masks)
    found = needed_slots(made, image, model)
    assert found.is_needed.tolist() == [[False, True, False, True], [False, True, False, False]]
    torch.testing.assert_close(found.masks[0, :, 0, 0, 0], torch.tensor([0, 1 / 3, 0, 2 / 3]))
    torch.testing.assert_close(found.masks[1, :, 0, 0, 0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    # What slot 3 says right is half of the tokens, which are then guessed: log 2 nats each, but for log(1 + e^-5).
    rise = (torch.log(torch.tensor(2.0)) - torch.log1p(torch.exp(torch.tensor(-5.0)))).item() / 2
    for least_rise, expected in ((rise - 1e-4, 2), (rise + 1e-4, 1)):
        assert needed_slots(made, image, model, least_rise=least_rise).is_needed[0].sum() == expected


def kept_of(*rows: tuple[int, ...]) -> Tensor:
    kept = torch.zeros(len(rows), 4, dtype=torch.bool)
    for row, slots in enumerate(rows):
        kept[row, list(slots)] = True
    return kept


KEPT = kept_of((0, 1, 2, 3), (2,), (0, 3), (1, 3))
ALL = torch.arange(4)
SOME = torch.tensor([3, 1])


@torch.no_grad()
def test_a_transformer_decodes_again_with_the_kept_slots_alone() -> None:
    model = transformer()
    image = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = model(image)
    fewer = of_tokens(made, model)
    errors = fewer.error(KEPT, ALL)
    torch.testing.assert_close(fewer.error(KEPT[SOME], SOME), errors[SOME])
    for picture, kept in enumerate(KEPT):
        tokens = made.tokens[picture].flatten()
        logits = model.token_decoder(model.token_decoder.embed(tokens[None]), made.slots[picture, kept][None])[0]
        expected = -logits.log_softmax(dim=-1)[torch.arange(4), tokens].mean()
        torch.testing.assert_close(errors[picture], expected)
    of_all = fewer.error(kept_of(*[(0, 1, 2, 3)] * 4), ALL)
    torch.testing.assert_close(of_all.mean() * 4, made.losses["cross_entropy"])  # that is a sum over 4 tokens


def features_model(decoder: str) -> FeaturesModel:
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 2, "feature_size": 8, "num_slots": 4, "slot_size": 6, "mlp_size": 8}
    more = {"decoder_size": 10, "decoder_layers": 2, "blocks": 2, "heads": 2}
    return FeaturesModel(**sizes, **more, decoder=decoder).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["mlp", "autoregressive"])
@torch.no_grad()
def test_features_are_made_by_the_kept_slots_alone(decoder: str) -> None:
    model, size = features_model(decoder), (10, 12)  # masks may be asked for at another size than the image's
    features = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
    made = model(features, mask_size=size)
    made = made._replace(slots=3 * torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(2)))
    fewer = of_features(made, model, features)
    errors, masks = fewer.error(KEPT, ALL), fewer.masks(KEPT)
    torch.testing.assert_close(fewer.error(KEPT[SOME], SOME), errors[SOME])
    for picture, kept in enumerate(KEPT):
        true, slots = features[picture], made.slots[picture, kept][None]
        rebuilt, shares = model.decoder(slots, *([] if decoder == "mlp" else [true[None]]))
        mean = true.mean(dim=0, keepdim=True)
        expected = (rebuilt[0] - true).square().sum() / (mean - true).square().sum()
        torch.testing.assert_close(errors[picture], expected)
        torch.testing.assert_close(masks[picture][kept], model.masks_of(shares, size)[0])
        assert (masks[picture][~kept] == 0).all()
    doubled = model(2 * features, mask_size=size)._replace(
        slots=made.slots
    )  # a network whose features are twice as large
    if decoder == "mlp":
        with torch.no_grad():
            model.decoder.to_features.weight.mul_(2)
            model.decoder.to_features.bias.mul_(2)
        torch.testing.assert_close(of_features(doubled, model, 2 * features).error(KEPT, ALL), errors)


@torch.no_grad()
def test_of_features_copies_and_empty_slots_go() -> None:
    """The features are those that the slots make, each patch by the slot that claims it: that one is missed."""
    model = features_model("mlp")
    model.decoder.to_claim.weight.mul_(1e4)
    model.decoder.positions.mul_(100)
    slots = 3 * torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(5))
    slots[:, 2] = slots[:, 0]
    features, shares = model.decoder(slots)
    torch.testing.assert_close(shares.sum(dim=2), torch.tensor([[3.0, 0.0, 3.0, 10.0]]))  # patches: two halves of six
    found = needed_slots(model(features)._replace(slots=slots), features, model, least_rise=1e-6)
    assert found.is_needed[0, 1:].tolist() in ([False, True, True], [False, False, True])
    assert found.is_needed[0, 0] != found.is_needed[0, 2]
    torch.testing.assert_close(found.masks.sum(dim=1), torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("make", [transformer, lambda: features_model("mlp"), lambda: features_model("autoregressive")])
def test_a_model_that_decodes_again_answers_alike_each_time_and_keeps_no_graph(make: Callable[[], nn.Module]) -> None:
    model = make()
    given = torch.rand(3, 3, 8, 8) if isinstance(model, TransformerModel) else torch.randn(3, 16, 8)
    one, other = (needed_slots(model(given), given, model) for _ in range(2))
    assert torch.equal(one.is_needed, other.is_needed)
    assert torch.equal(one.masks, other.masks)
    assert not one.masks.requires_grad
    kept_all = needed_slots(model(given), given, model, least_rise=0.0)
    assert (kept_all.is_needed.sum(dim=1) >= one.is_needed.sum(dim=1)).all()


def test_every_kind_of_model_has_its_own_least_values() -> None:
    assert least_rise_of(None) == LEAST_RISE
    assert least_rise_of(transformer()) == LEAST_RISE_OF_TOKENS
    assert least_rise_of(features_model("mlp")) == LEAST_RISE_OF_FEATURES
    assert least_contrast_of(None) == LEAST_CONTRAST
    assert least_contrast_of(transformer()) == least_contrast_of(features_model("mlp")) == 0
    assert has_adaptive_slots(transformer())
    assert not has_adaptive_slots(nn.Identity())


def test_what_does_not_fit_is_refused() -> None:
    image, owners = scene()
    made = output(image, owners, torch.tensor([0.0, 0.5]))
    with pytest.raises(ValueError, match="least_rise is -1"):
        needed_slots(made, image[None], least_rise=-1.0)
    with pytest.raises(ValueError, match="least_contrast is nan"):
        needed_slots(made, image[None], least_contrast=float("nan"))
    with pytest.raises(ValueError, match="the transformer or features model that made it"):
        needed_slots(made._replace(slot_reconstructions=None), image[None])
    model, picture = transformer(), torch.rand(1, 3, 8, 8)
    made = model(picture)
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        needed_slots(made, picture, model.train())
