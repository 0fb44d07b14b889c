"""Which pictures are copies of each other, and which copy is the best."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalenet.cleaning.align import FLAT, same, whole
from scalenet.cleaning.pairs import CROPPED, candidates
from scalenet.cleaning.values import THUMB, Entry, Fault, Group, Scan
from scalenet.data.pixels import UPRIGHT
from scalenet.data.values import PARTS

LOSSLESS = (b"PNG", b"BMP", b"TIFF", b"PPM", b"GIF")
LOOKED_AT = 4096  # thumbnails read at once


def groups(scan: Scan) -> tuple[Group, ...]:
    """Copies among the sound pictures, the best first; groups by the name of their best.

    Two pictures are copies when their bytes are the same, or when they look the same at the second look, as stored or
    turned upright. A group is a best copy and what is a copy of *it*: a chain of look-alikes ends where the first and
    the last are strangers. The order of the scan does not matter.
    """
    order = _ranked(scan)
    place = {picture: rank for rank, picture in enumerate(order)}
    first: dict[bytes, int] = {}
    equal: dict[int, list[int]] = defaultdict(list)  # the best of those with the same bytes -> all of them
    for picture in order:
        equal[first.setdefault(scan.looks["sha256"][picture].tobytes(), picture)].append(picture)
    result = []
    for star in _stars(Faces.of(scan.looks, list(equal)), list(equal)):
        members = sorted((picture for best in star for picture in equal[best]), key=place.__getitem__)
        if len(members) > 1:
            result.append(_group([scan.pictures[picture] for picture in members], exact=len(star) == 1))
    return tuple(sorted(result, key=lambda group: group.paths[0]))


def _ranked(scan: Scan) -> list[int]:
    """The sound pictures, better ones first: more pixels, sharper (by a tenth), lossless, sharper at all, by name."""
    looks = scan.looks
    sound = np.flatnonzero(looks["fault"] == Fault.NONE)
    pixels = looks["width"][sound].astype(np.int64) * looks["height"][sound]
    blur = looks["blur"][sound].astype(np.float64)
    tenths = np.round(np.log(np.maximum(blur, 1.0)) / math.log(1.1))
    lossy = ~np.isin(looks["format"][sound], LOSSLESS)
    names = np.argsort(np.argsort(np.array([scan.pictures[i].path for i in sound], dtype=object)))
    return [int(i) for i in sound[np.lexsort((names, -blur, lossy, -tenths, -pixels))]]


def _group(entries: Sequence[Entry], exact: bool) -> Group:
    labels = sorted({entry.label for entry in entries if entry.label is not None})
    parts = {entry.part for entry in entries}
    return Group(
        paths=tuple(entry.path for entry in entries),
        exact=exact,
        labels=tuple(labels),
        parts=tuple(part for part in PARTS if part in parts),
    )


@dataclass(frozen=True, eq=False)
class Faces:
    """What pictures look like: each upright, then those that EXIF turns as they are stored. Better pictures first."""

    thumbs: NDArray[np.uint8]  # of the scan, upright
    pictures: NDArray[np.intp]  # (faces,) whose face it is
    stored: NDArray[np.uint8]  # (turned, 32, 32): the last of the faces
    hashes: NDArray[np.uint64]  # (faces,)
    large: NDArray[np.bool_]  # (faces,) enough to be cropped

    @staticmethod
    def of(looks: NDArray[np.void], pictures: list[int]) -> Faces:
        """The faces of the pictures that are not of one grey: those have nothing to compare but their bytes."""
        every = np.array(pictures, dtype=np.intp)
        deviation = np.empty(len(every))
        for at in range(0, len(every), LOOKED_AT):
            part = looks["thumb"][every[at : at + LOOKED_AT]].astype(np.float32)
            deviation[at : at + LOOKED_AT] = part.std(axis=(1, 2))
        some = every[deviation >= FLAT]
        orientation = looks["orientation"][some]
        turned = some[(orientation >= 2) & (orientation <= 8)]
        stored = [_as_stored(looks["thumb"][i], int(looks["orientation"][i])) for i in turned]
        both = np.concatenate([some, turned])
        return Faces(
            thumbs=looks["thumb"],
            pictures=both,
            stored=np.array(stored, dtype=np.uint8).reshape(-1, THUMB, THUMB),
            hashes=np.concatenate([looks["upright"][some], looks["phash"][turned]]),
            large=np.minimum(looks["width"][both], looks["height"][both]) >= CROPPED,
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, which: NDArray[np.intp] | slice) -> NDArray[np.uint8]:
        """(faces, 32, 32)."""
        faces = np.arange(len(self))[which]
        seen = self.thumbs[self.pictures[faces]]
        late = faces - (len(self) - len(self.stored))
        seen[late >= 0] = self.stored[late[late >= 0]]
        return seen


def _as_stored(thumb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What `orientation` turns upright, before that: a quarter turn is undone by the other one, all else by itself."""
    back = UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(thumb)).transpose(back))


def _stars(faces: Faces, pictures: Sequence[int]) -> Iterator[list[int]]:
    """The pictures of each group, the best first; a picture without a copy is a group of its own.

    The best that is left takes its copies, then the next. A copy of a copy that was not found as one is looked at.
    """
    linked = _linked(faces)
    shown: dict[int, list[int]] = defaultdict(list)
    for face, picture in enumerate(faces.pictures.tolist()):
        shown[picture].append(face)
    taken: set[int] = set()
    for best in pictures:
        if best in taken:
            continue
        near = linked.get(best, set())
        further = {other for copy in near for other in linked[copy]} - near - {best}
        further -= taken
        star = [best, *sorted(near - taken)]
        if further:
            star += _same_as(faces, shown, best, sorted(further))
        taken.update(star)
        yield star


def _linked(faces: Faces) -> dict[int, set[int]]:
    """picture -> the pictures that look the same."""
    linked: dict[int, set[int]] = defaultdict(set)
    for found in candidates(faces, faces.hashes, faces.large):
        different = faces.pictures[found.first] != faces.pictures[found.second]
        first, second = found.first[different], found.second[different]
        alike = _looked_at(faces, first, second, found.start[different])
        for a, b in zip(faces.pictures[first[alike]].tolist(), faces.pictures[second[alike]].tolist(), strict=True):
            linked[a].add(b)
            linked[b].add(a)
    return linked


def _looked_at(
    faces: Faces, first: NDArray[np.intp], second: NDArray[np.intp], start: NDArray[np.float32]
) -> NDArray[np.bool_]:
    alike = np.zeros(len(first), dtype=bool)
    for at in range(0, len(first), LOOKED_AT):
        part = slice(at, at + LOOKED_AT)
        alike[part] = same(faces[first[part]], faces[second[part]], start[part])
    return alike


def _same_as(faces: Faces, shown: dict[int, list[int]], best: int, others: Sequence[int]) -> list[int]:
    """Those of the others that are copies of the best, in any of their faces."""
    trio = [(a, b, other) for other in others for a in shown[best] for b in shown[other]]
    first, second = (np.array([pair[side] for pair in trio], dtype=np.intp) for side in (0, 1))
    alike = _looked_at(faces, first, second, whole(len(trio)))
    return list(dict.fromkeys(other for (_, _, other), good in zip(trio, alike, strict=True) if good))
