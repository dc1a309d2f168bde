"""From other people's files to packed arrays: catalog, readers, `prepare`, `check`, the packed data set.

Nothing here knows of models or training. A reader turns one published layout into samples; `prepare` packs
them once; everything downstream reads `PackedDataset`.
"""

from boqsa.data.packed import Manifest, PackedDataset, PackedWriter, write_packed

__all__ = ["Manifest", "PackedDataset", "PackedWriter", "write_packed"]
