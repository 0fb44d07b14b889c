"""Pictures: find, split, decode once, share.

`survey` looks at a source without decoding it, `prepare` makes the cache that all trials share and `open_part` maps
one part of it into memory. Importing this package does not import torch; `scalenet.data.batches` does.
"""

from __future__ import annotations

from scalenet.data.cache import open_part, prepare
from scalenet.data.plan import survey
from scalenet.data.source import Dataset, Item, Source
from scalenet.data.values import PARTS, DataRequest, Part, Prepared, Survey, resolution_warning

__all__ = [
    "PARTS",
    "DataRequest",
    "Dataset",
    "Item",
    "Part",
    "Prepared",
    "Source",
    "Survey",
    "open_part",
    "prepare",
    "resolution_warning",
    "survey",
]
