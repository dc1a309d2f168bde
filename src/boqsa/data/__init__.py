"""From other people's files to packed arrays: catalog, readers, `prepare`, `check`, the packed data set.

Nothing here knows of models or training. A reader turns one published layout into samples; `prepare` packs them once;
everything downstream reads `PackedDataset`. Names are imported when they are used: the processes that read images for
`prepare` need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boqsa.data.catalog import CATALOG as CATALOG
    from boqsa.data.catalog import DatasetEntry as DatasetEntry
    from boqsa.data.checking import CheckReport as CheckReport
    from boqsa.data.checking import check as check
    from boqsa.data.manifest import Manifest as Manifest
    from boqsa.data.packed import PackedDataset as PackedDataset
    from boqsa.data.packing import PackedWriter as PackedWriter
    from boqsa.data.packing import write_packed as write_packed
    from boqsa.data.preparing import prepare as prepare
    from boqsa.data.sheet import contact_sheet as contact_sheet

_MODULES = {
    "CATALOG": "catalog",
    "CheckReport": "checking",
    "DatasetEntry": "catalog",
    "Manifest": "manifest",
    "PackedDataset": "packed",
    "PackedWriter": "packing",
    "check": "checking",
    "contact_sheet": "sheet",
    "prepare": "preparing",
    "write_packed": "packing",
}

__all__ = [
    "CATALOG",
    "CheckReport",
    "DatasetEntry",
    "Manifest",
    "PackedDataset",
    "PackedWriter",
    "check",
    "contact_sheet",
    "prepare",
    "write_packed",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"boqsa.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'boqsa.data' has no attribute {name!r}")
