"""What the data commands are asked for and what they answer, as plain values that cross processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scalenet.errors import ScalenetError

Part = Literal["fit", "select", "held"]
PARTS: tuple[Part, ...] = ("fit", "select", "held")


@dataclass(frozen=True)
class DataRequest:
    """Which pictures, and how they are to be parted.

    `source` is a folder or the name of a registered data set; `root` is where a named set's files lie or go (the cache
    by default). `subset` keeps that many pictures in all. `select` and `held` are fractions; `select` is a fraction of
    the pictures given for training where the source brings its own test part. `seed` settles subset and split. With
    `clean`, pictures that `scalenet data clean` would move aside are left out.
    """

    source: str = "shapes"
    root: str | None = None
    subset: int | None = None
    select: float = 0.2
    held: float = 0.2
    seed: int = 0
    clean: bool = False

    def __post_init__(self) -> None:
        if self.subset is not None and self.subset < 1:
            raise ScalenetError(f"subset is {self.subset}; it must be a number of pictures, 1 or more.")
        for name, fraction in (("select", self.select), ("held", self.held)):
            if not 0.0 < fraction < 1.0:
                raise ScalenetError(f"{name} is {fraction}; it must be a fraction between 0 and 1.")
        if self.select + self.held >= 1.0:
            raise ScalenetError(
                f"select {self.select} and held {self.held} leave nothing to fit; together they must stay below 1."
            )


@dataclass(frozen=True)
class Survey:
    """What a source holds, before any picture is decoded.

    `native_size` is the median shorter side in pixels. `fingerprint` names the pictures, their classes and the split.
    Counted over the whole source, before `subset`: `duplicates`, copies beyond the first of byte-identical pictures;
    `conflicts`, distinct pictures whose copies carry more than one label; `crossing`, copies left out because the
    same bytes also lie in a part given for judging; `ignored`, files that are no pictures by their names.
    """

    name: str
    fingerprint: str
    native_size: int
    classes: tuple[str, ...]
    pictures: int  # in the three parts together
    counts: dict[str, int]  # part -> pictures
    class_counts: dict[str, dict[str, int]]  # class -> part -> pictures
    unreadable: tuple[str, ...]
    conflicts: int
    duplicates: int
    crossing: int
    ignored: int
    flip: bool  # a mirrored picture keeps its label
    demonstration: bool  # the embedded set: good for trying the tool, not for conclusions
    warnings: tuple[str, ...]
    cleaned: str | None = None  # what names the pictures, good and bad, before some were left out by cleaning


@dataclass(frozen=True)
class Prepared:
    """A decoded cache on disk: plain, so that it can be sent to another process.

    `side` is the side in pixels at which pictures are stored: 1.15 times the largest side asked for, but never more
    than `native_size`. `counts`, `class_counts`, `unreadable` and `warnings` are as after decoding; the rest is as in
    Survey.
    """

    directory: str
    side: int
    name: str
    fingerprint: str
    native_size: int
    classes: tuple[str, ...]
    pictures: int
    counts: dict[str, int]
    class_counts: dict[str, dict[str, int]]
    unreadable: tuple[str, ...]
    conflicts: int
    duplicates: int
    crossing: int
    ignored: int
    flip: bool
    demonstration: bool
    warnings: tuple[str, ...]
    cleaned: str | None = None


def resolution_warning(data: Survey | Prepared, side: int) -> str | None:
    """The sentence to print when an input side exceeds the pictures' native size, or None when it does not."""
    if side <= data.native_size:
        return None
    return (
        f"The input side goes up to {side} px, but the pictures of {data.name} are {data.native_size} px: "
        "beyond that, resolution adds compute and no information."
    )
