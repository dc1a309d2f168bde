"""What people call the slots of a model: RUN/names.json, `{"0": "background", "2": "petal"}`.

A learned query takes the same kind of thing in every picture (paper 5.4), and what that is, people have to say
(appendix C). `boqsa concepts` shows them what they need for it; the names then stand wherever slots are listed.

A name is what other tools take for one too: no two slots share one (COCO and CVAT know categories by their names),
there is no colon in it (it ends a name in CVAT's `labelmap.txt`), and it begins with a letter or a digit.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boqsa.atomic import one_process, write_text
from boqsa.errors import InputError, RunError
from boqsa.inference.run import read_recipe, refuse_links
from boqsa.plain import read_json

NAMES = "names.json"
LONGEST = 60
"""Characters of a name, at most."""

UNNAMED: Mapping[int, str] = {}
"""No slot has a name."""

_LOCK = f".lock-{NAMES}"
"""File of a run that is held while names are added. A training holds another one, for hours; names need not wait."""
_OUTSIDE = "outside"
"""What CVAT's label maps call the pixels outside the crop."""


def read_names(folder: str | Path, num_slots: int) -> dict[int, str]:
    """The names that the slots of a run, or of a folder of `boqsa share`, were given.

    Args:
        folder: It holds `names.json`, or nobody named its slots.
        num_slots: K of the model.

    Returns:
        A name for each slot that has one, in the order of slots; none if there is no such file.

    Raises:
        RunError: if the file is damaged, another program's, or has a name that `checked_names` refuses.
    """
    path = Path(folder) / NAMES
    if not path.exists():
        return {}
    try:
        return checked_names(_slots_of(read_json(path)), num_slots)
    except (OSError, ValueError, InputError) as error:
        reason = str(error).strip().rstrip(".")
        raise RunError(
            f'{path} does not hold names of slots ({reason}); expected {{"0": "background", ...}}. Mend it, or move it '
            "away: nothing else needs it."
        ) from None


def name_slots(run: str | Path, names: Mapping[int, str]) -> dict[int, str]:
    """Name slots of a run. Names that it has for other slots stay; an empty name takes that of its slot away.

    Of two processes that name slots at once, one waits for the other.

    Args:
        run: The run folder.
        names: New names by slot.

    Returns:
        All names that the run has now.

    Raises:
        RunError: if there is no run, or its `names.json` is damaged: that one is left as it is.
        InputError: if a slot does not exist, or a name cannot be one: no name is changed then. Or if the run cannot be
            written to.
    """
    run = Path(run)
    num_slots = read_recipe(run).model.num_slots
    refuse_links(run)
    _require_slots(names, num_slots)
    with one_process(run / _LOCK, wait=True):  # or the one that writes last takes the other's names away
        merged = {**read_names(run, num_slots), **{slot: " ".join(name.split()) for slot, name in names.items()}}
        named = checked_names({slot: name for slot, name in merged.items() if name}, num_slots)
        write_text(run / NAMES, names_text(named))
    return named


def names_text(names: Mapping[int, str]) -> str:
    """The text of `names.json`."""
    return json.dumps({str(slot): name for slot, name in names.items()}, indent=2, ensure_ascii=False) + "\n"


def checked_names(names: Mapping[int, str], num_slots: int) -> dict[int, str]:
    """The same names in the order of slots, if all of them can be names.

    Args:
        names: By slot.
        num_slots: K of the model.

    Raises:
        InputError: if a slot does not exist; if a name is empty, longer than 60 characters, does not begin with a
            letter or a digit, or has a colon or what cannot be printed; if it is another slot's, without regard to
            upper and lower case, also by its number, as "slot 3".
    """
    _require_slots(names, num_slots)
    owners: dict[str, int] = {}
    for slot, name in sorted(names.items()):
        _require_name(slot, name)
        other = owners.setdefault(name.casefold(), slot)
        if other != slot:
            raise InputError(
                f"slots {other} and {slot} are both named {name!r}; tell them apart, as by {name + ' 1'!r} and "
                f"{name + ' 2'!r}."
            )
    return {slot: names[slot] for slot in sorted(names)}


def parsed_names(assignments: Sequence[str]) -> dict[int, str]:
    """Names as they are typed: `0=background`, `2=left petal`, and `2=` to take a name away.

    Raises:
        InputError: if one is not SLOT=NAME, or a slot comes twice.
    """
    names: dict[int, str] = {}
    for assignment in assignments:
        slot, equals, name = assignment.partition("=")
        if not equals or not re.fullmatch(r"[0-9]{1,9}", slot.strip()):
            raise InputError(f"cannot read the name {assignment!r}; expected SLOT=NAME, as 0=background.")
        if int(slot) in names:
            raise InputError(f"slot {int(slot)} is named twice; give one name.")
        names[int(slot)] = name
    return names


def names_from_file(path: str | Path) -> dict[int, str]:
    """Names from a file that the page of `boqsa concepts` gave to download.

    Raises:
        InputError: if it cannot be read, or holds something else. Whether the names can be names is not asked here.
    """
    try:
        return _slots_of(read_json(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name the {NAMES} that the page of concepts gave.") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f'{path} does not hold names of slots ({error}); expected {{"0": "background", ...}}.'
        ) from None


def _slots_of(content: Any) -> dict[int, str]:
    """The content of `names.json` with slots as numbers.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    for slot, name in content.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", slot):
            raise ValueError(f"{slot!r} is no number of a slot")
        if not isinstance(name, str):
            raise ValueError(f"slot {slot} has {name!r} for a name")
    return {int(slot): name for slot, name in content.items()}


def _require_slots(slots: Mapping[int, str] | Sequence[int], num_slots: int) -> None:
    for slot in slots:
        if not 0 <= slot < num_slots:
            raise InputError(f"slot {slot} does not exist; slots are 0 to {num_slots - 1}.")


def _require_name(slot: int, name: str) -> None:
    """Go on if a slot can be called so.

    Raises:
        InputError: if not.
    """
    if not name:
        reason = "it is empty"
    elif len(name) > LONGEST:
        reason = f"it has {len(name)} characters, at most {LONGEST} are possible"
    elif not name.isprintable():
        reason = "it has characters that cannot be printed"
    elif not name[0].isalnum() or name != name.strip():
        reason = "it must begin with a letter or a digit, and not end with a blank"
    elif ":" in name:
        reason = "it has a colon, which ends a name in the label maps of CVAT"
    elif name.casefold() == _OUTSIDE:
        reason = "label maps call pixels outside the crop so"
    elif re.fullmatch(r"slot [0-9]+", name.casefold()) and name.casefold() != f"slot {slot}":
        reason = "that is what a slot without a name is called"
    else:
        return
    raise InputError(f"slot {slot} cannot be named {name[: LONGEST + 1]!r}: {reason}.")
