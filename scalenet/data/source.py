"""What pictures come from: a registered data set or a folder, both as a list of items."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalenet.data.store import Progress, cache_root
from scalenet.data.values import DataRequest, Part
from scalenet.errors import ScalenetError, unknown


@dataclass(frozen=True, eq=False)
class Item:
    """One labelled picture.

    `name` is what a person calls it. `picture` is the path of a file, or pixels (h, w) or (h, w, 3) uint8. `given`
    is the part the source itself puts it in; None, or "fit" where other parts are missing, may be split further.
    Pictures of one `group` are copies of each other, however different their bytes, and stay in one part.
    """

    name: str
    label: int
    picture: str | NDArray[np.uint8]
    given: Part | None = None
    group: str | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """All pictures of a source; labels index `classes`."""

    name: str
    classes: tuple[str, ...]
    items: Sequence[Item]
    ignored: int = 0  # files that are no pictures by their names
    flip: bool = True  # a mirrored picture keeps its label
    demonstration: bool = False
    warnings: tuple[str, ...] = ()
    cleaned: str | None = None  # what names the pictures, good and bad, before some were left out by cleaning


@dataclass(frozen=True)
class Published:
    """What its publisher says of a data set: known before it is here."""

    pictures: int
    classes: int
    side: str  # of the pictures, px
    download: int  # bytes; 0: nothing is downloaded
    terms: str  # the licence, in a few words
    page: str  # URL of who publishes it


@dataclass(frozen=True)
class Dataset:
    """A data set offered by name through `register_datasets`.

    `load(root)` returns its pictures, fetching them into the folder `root` first if they are not there; it raises
    ScalenetError when it cannot. `stamp(root)`, optional, is a string that changes whenever the files do, or None
    before they are there: with it, a second start need not load anything. `fetch(root, progress)`, optional, is the
    fetching alone, with progress; it is called before `load`. `published`, optional, is for `scalenet data list`.
    """

    name: str
    description: str
    load: Callable[[Path], Source]
    stamp: Callable[[Path], str | None] | None = None
    fetch: Callable[[Path, Progress | None], None] | None = None
    published: Published | None = None

    @property
    def usual_root(self) -> Path:
        """The folder where its files lie or go unless another is named."""
        return cache_root() / "datasets" / self.name


@dataclass(frozen=True)
class Located:
    """A source found but not yet loaded. `place` tells sources apart, `stamp` the states of one."""

    name: str
    place: str
    stamp: str | None
    load: Callable[[], Source]
    fetch: Callable[[Progress | None], None] | None = None  # to be called before `load`


def locate(request: DataRequest) -> Located:
    """The registered set of that name, else the folder or the list of pictures; cleaned where that is asked for.

    Raises ScalenetError for a name or path that nothing answers to.
    """
    found = _uncleaned(request)
    if not request.clean:
        return found
    from scalenet.cleaning.cleaned import cleaned

    path = os.path.expanduser(request.source)
    return cleaned(found, Path(path).resolve() if os.path.isdir(path) and found.fetch is None else None)


def _uncleaned(request: DataRequest) -> Located:
    from scalenet.plugins import datasets  # at call time: plugins imports this module

    known = datasets()
    if request.source in known:
        return _named(known[request.source], request)
    path = Path(os.path.expanduser(request.source))
    if os.path.exists(path):  # Path.exists raises for a name that is too long
        from scalenet.data.folder import scan

        if path.suffix.lower() == ".json" and path.is_file():
            from scalenet.cleaning.manifest import located

            return located(path)
        return scan(path)
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    if any(separator in request.source for separator in separators) or request.source.startswith((".", "~")):
        raise ScalenetError(f"No folder {request.source!r}. Data sets by name: {', '.join(known)}.")
    raise unknown("data set or folder", request.source, known, listed_as="Data sets")


def _named(dataset: Dataset, request: DataRequest) -> Located:
    root = Path(os.path.expanduser(request.root)) if request.root else dataset.usual_root
    stamp = dataset.stamp(root) if dataset.stamp else None
    fetch = partial(dataset.fetch, root) if dataset.fetch else None
    return Located(dataset.name, f"{dataset.name}:{root.resolve()}", stamp, lambda: dataset.load(root), fetch)
