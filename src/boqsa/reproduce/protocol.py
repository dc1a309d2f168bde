"""What must be equal for two numbers to be compared, and what the paper's numbers were measured on.

A part that is not known is None. It never counts as equal: `refusals` names what is known to differ, `not_known` what
nobody knows, for whoever compares to say beside the number.

The paper's protocols. Slots and image sizes are those of its Table 13 and section A.3.4; masks are the decoder's for
mixture models and attention for transformers (A.1). Table 7 and those after it name no decoder: where a row equals one
of Table 1 or 5, the decoder is that one's. The paper states no splits: those given here are what the authors' published
code tests on (spec/datasets.md), for the rows that the authors ran; rows quoted from others have none.
"""

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from boqsa.errors import InputError
from boqsa.reproduce.paper import PaperCell

Masks = Literal["decoder", "attention"]

_UNKNOWN = "?"
_PART = re.compile(r"[^\s;=?][^;=]*")

OF_THE_METHOD = ("slots", "masks")
"""Parts that belong to a method: two methods may differ in them and be compared, if it is said."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a number was measured. Every part may be None, which means not known."""

    data: str | None
    """Data set, by its name in `boqsa.data.CATALOG`."""
    variant: str | None
    """Which form of the data set: the fingerprint of its content, or the version of the renderer."""
    split: str | None
    images: int | None
    """Images that were scored."""
    image_size: int | None
    """Height and width in pixels."""
    slots: int | None
    masks: Masks | None
    """Whose masks were scored: the decoder's, or attention's."""
    metric: str | None
    """Definition of the metric, by its name in docs/reference.md."""
    recipe: str | None = None
    """What was trained, whatever the seed: seeds of a method are averaged only if it is the same. Two methods have two,
    so it is no difference between them."""

    def __post_init__(self) -> None:
        for name in ("data", "variant", "split", "metric", "recipe"):
            value = getattr(self, name)
            if value is not None and not (_PART.fullmatch(value) and value == value.strip() and value.isprintable()):
                raise InputError(
                    f"the protocol's {name} is {value!r}; it must be one line without `;` and `=`, or None."
                )
        for name in ("images", "image_size", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"the protocol's {_words(name)} is {value}; it must be at least 1, or None.")
        if self.masks not in ("decoder", "attention", None):
            raise InputError(f"the protocol's masks is {self.masks!r}; use decoder, attention or None.")

    @property
    def text(self) -> str:
        """One line that `parse` reads, as `data=scenes; variant=renderer 4; split=test; ...`; `?` is not known."""
        parts = asdict(self).items()
        return "; ".join(f"{name}={_UNKNOWN if value is None else value}" for name, value in parts)


def parse(text: str) -> Protocol:
    """The protocol that `text` was made of.

    Raises:
        InputError: if the text is not one of `Protocol.text`.
    """
    names = [field.name for field in fields(Protocol)]
    pairs = [part.partition("=")[::2] for part in text.split("; ")]
    if [name for name, _ in pairs] != names:
        raise InputError(f"{text[:80]!r} is no protocol; it must be {'=...; '.join(names)}=..., in this order.")
    values = {name: None if value == _UNKNOWN else value for name, value in pairs}
    numbers: dict[str, int | None] = {}
    for name in ("images", "image_size", "slots"):
        value = values.pop(name)
        if value is not None and not re.fullmatch("[1-9][0-9]{0,17}", value):
            raise InputError(f"{text[:80]!r} is no protocol: {name} is {value!r}; it must be a number or ?.")
        numbers[name] = None if value is None else int(value)
    return Protocol(**values, **numbers)  # type: ignore[arg-type]  # masks is checked by the class


def differences(one: Protocol, other: Protocol) -> list[str]:
    """The parts that are known on both sides and differ, each as `image size: 32 -> 128`."""
    return [
        f"{_words(name)}: {before} -> {after}"
        for name, before, after in _pairs(one, other)
        if before is not None and after is not None and before != after
    ]


def not_known(one: Protocol, other: Protocol) -> list[str]:
    """The parts that nobody can compare since a side does not state them, as `split`."""
    return [_words(name) for name, before, after in _pairs(one, other) if before is None or after is None]


def refusals(one: Protocol, other: Protocol) -> list[str]:
    """Why the scores of two methods are not compared: the `differences` that belong to no method; empty if they are."""
    return [text for text in differences(one, other) if text.split(":")[0] not in OF_THE_METHOD]


def _pairs(one: Protocol, other: Protocol) -> list[tuple[str, str | int | None, str | int | None]]:
    names = [field.name for field in fields(Protocol) if field.name != "recipe"]
    return [(name, getattr(one, name), getattr(other, name)) for name in names]


def _words(name: str) -> str:
    return name.replace("_", " ")


# What the paper and the authors' code say of each number, and how the parts are found.

_SLOTS = {
    # Table 13 and A.3.4. (mixture, transformer): what I-SA and others had is known only where the two agree.
    "shapestacks": (8, 12),
    "objectsroom": (5, 6),
    **dict.fromkeys(("clevrtex_full", "clevrtex_outd", "clevrtex_camo"), (11, None)),
    "birds": (3, 3),
    **dict.fromkeys(("dogs", "flowers", "cars"), (2, 2)),
    **dict.fromkeys(("ycb", "scannet", "coco"), (None, 6)),
    "clevr567": (8, None),
    **dict.fromkeys(("room_chair", "room_diverse"), (5, None)),
}
_IMAGE_SIZE = dict.fromkeys(_SLOTS, 128) | {"objectsroom": 64}
_SLATE_IMAGE_SIZE = {"shapestacks": 96}
_TEST_SPLITS: dict[str, tuple[str, int | None]] = {
    # Of the published code. The numbers of images that are None cannot be known without the files.
    "objectsroom": ("test", 10_000),
    "shapestacks": ("test", None),
    "clevrtex_full": ("test", 5_000),
    "clevrtex_camo": ("test", 2_000),
    "clevrtex_outd": ("test", 10_000),
    "ptr": ("test", None),  # the published val, which our reader packs as test
    "birds": ("test", 1_000),
    "dogs": ("test", None),
    "cars": ("test", None),
    "flowers": ("test", 1_020),
    "ycb": ("test", None),
    "scannet": ("test", None),
    "coco": ("test", None),
    "clevr567": ("test", None),
    "room_chair": ("test", None),
    "room_diverse": ("test", None),
}
_MASKS: dict[str, Masks] = {
    "BO-QSA (mixture)": "decoder",
    "Slot-Attention": "decoder",
    "Slot-Attention (mixture)": "decoder",
    "BO-QSA (transformer)": "attention",
    "SLATE": "attention",
    "SLATE (transformer)": "attention",
}
_DECODER_OF_TABLE: dict[tuple[int, str], Masks] = {
    (7, "dogs"): "attention",
    (7, "shapestacks"): "decoder",
    (16, "dogs"): "attention",
    (17, "shapestacks"): "decoder",
}
"""Of the tables that name none, by the rows that equal one of Table 1 or 5."""
_VIEWS_TABLE = 19
_TRANSFORMER_TABLES = (4, 8, 14)
"""A.3.4: the sets of Yang & Yang were trained with the transformer model."""
_QUOTED = {
    1: ("MONet-G", "GENESIS", "Slot-Attention", "GENESIS-V2"),
    2: ("MONet", "Slot-Attention", "GENESIS-V2", "DTI"),
    4: ("AIR", "MONet", "IODINE", "Slot-Attention"),
    5: ("ReDO", "IODINE", "OneGAN", "Voynov et al. (2020)", "DRC", "Melas-Kyriazi et al. (2021)"),
    6: ("MoCo v2", "BYOL", "R2O"),
}
"""Rows that were taken from other publications, or whose origin is not said."""
_QUOTED_IN_TABLE_13 = ((1, "Slot-Attention"),)
_NOTHING_KNOWN = Protocol(
    data=None, variant=None, split=None, images=None, image_size=None, slots=None, masks=None, metric=None
)


def paper_protocol(cell: PaperCell) -> Protocol:
    """How a number of the paper was measured, as far as the paper and the authors' code tell; the rest is None."""
    source, _, target = cell.dataset.rpartition("->")
    is_quoted = cell.method in _QUOTED.get(cell.table, ())
    if is_quoted and (cell.table, cell.method) not in _QUOTED_IN_TABLE_13:
        return replace(_NOTHING_KNOWN, data=target, metric=cell.our_metric)
    split, images = (None, None) if is_quoted else _TEST_SPLITS[target]
    masks = _masks(cell)
    image_size = _IMAGE_SIZE.get(target)
    if cell.method.startswith("SLATE"):
        image_size = _SLATE_IMAGE_SIZE.get(target, image_size)
    return Protocol(
        data=target,
        variant=None,
        split=split,
        images=images,
        image_size=image_size,
        slots=_slots(source or target, masks),
        masks=masks,
        metric=cell.our_metric,
    )


def _masks(cell: PaperCell) -> Masks | None:
    if cell.method in _MASKS:
        return _MASKS[cell.method]
    if cell.table in _TRANSFORMER_TABLES:
        return "attention"
    if cell.table == _VIEWS_TABLE:
        return "decoder"
    return _DECODER_OF_TABLE.get((cell.table, cell.dataset))


def _slots(trained_on: str, masks: Masks | None) -> int | None:
    mixture, transformer = _SLOTS.get(trained_on, (None, None))
    if masks is not None:
        return mixture if masks == "decoder" else transformer
    stated = {slots for slots in (mixture, transformer) if slots is not None}
    return stated.pop() if len(stated) == 1 else None


def open_points(cell: PaperCell) -> str:
    """What the paper leaves open about the metric of a number, in words; empty if nothing is known to be open."""
    return _OPEN.get(cell.our_metric, "")


_OPEN = {
    **dict.fromkeys(
        ("ari", "ari_fg", "msc_fg"),
        "how images are averaged is not stated in the paper (the published code averages batch means; here every image "
        "counts once)",
    ),
    **dict.fromkeys(
        ("iou", "dice"),
        "the paper takes the slot that shares most pixels with the true foreground, here IoU and Dice each take the "
        "slot that fits best: both choose by labels",
    ),
    "mse_per_image": "the range of images, the treatment of channels, and which of a transformer's three "
    "reconstructions is meant are not stated in the paper: the unit is inferred from the published code",
}
