"""The catalog: entries that can be used have readers, and a slip of the finger is answered."""

import pytest

from boqsa.data.catalog import CATALOG, entry
from boqsa.data.readers import READERS
from boqsa.errors import InputError


def test_ready_entries_are_those_with_a_reader() -> None:
    assert {name for name, known in CATALOG.items() if known.status == "ready"} == READERS.keys()
    assert all(known.name == name for name, known in CATALOG.items())


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("objectroom", "did you mean objectsroom"),
        ("ShapeStacks", "shapestacks"),
        ("xyz", "there is no data set .xyz.; `boqsa data list` has them"),
    ],
)
def test_unknown_names(name: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        entry(name)
