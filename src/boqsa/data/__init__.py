"""From other people's files to packed arrays: catalog, readers, `prepare`, `check`, the packed data set.

Nothing here knows of models or training. A reader turns one published layout into samples; `prepare` packs
them once; everything downstream reads `PackedDataset`.
"""

from boqsa.data.catalog import CATALOG, DatasetEntry
from boqsa.data.check import CheckReport, check
from boqsa.data.manifest import Manifest
from boqsa.data.packed import PackedDataset, PackedWriter, write_packed
from boqsa.data.prepare import prepare
from boqsa.data.sheet import contact_sheet

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
