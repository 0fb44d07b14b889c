"""Which picture goes into which part: a function of contents, labels and seed, never of names or order on disk."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalenet.data.values import PARTS, Part
from scalenet.errors import ScalenetError


@dataclass(frozen=True)
class Split:
    """The part of every picture, None where it is left out (by `subset`, or as a copy that crosses parts)."""

    parts: tuple[Part | None, ...]
    duplicates: int
    conflicts: int
    crossing: int


def split(
    digests: Sequence[str],
    labels: Sequence[int],
    given: Sequence[Part | None],
    *,
    subset: int | None,
    select: float,
    held: float,
    seed: int,
    keys: Sequence[str] | None = None,
) -> Split:
    """Parts every picture, stratified by class, byte-identical ones together, or those of one key where keys are given.

    Parts that the source brings are kept; a missing one is split off what is given as "fit" or not at all, unless its
    fraction is 0: then there is none. Where the same picture lies in several given parts, only the copies in the part
    judged last are kept, so that held stays clean. Copies with conflicting labels all stay, in one part, counted.
    `subset` is taken first, in proportion to the given parts and classes with at least one of each. The order within a
    class is that of SHA-256(seed, purpose, key): a picture added or removed moves few others.

    Raises ScalenetError when `subset` is below the number of classes or a part would stay empty.
    """
    labels_of: dict[str, set[int]] = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        labels_of[digest].add(label)
    keys = digests if keys is None else keys
    kept = _uncrossed(keys, given)
    crossing = len(digests) - len(kept)
    if subset is not None:
        kept = _subset(kept, keys, labels, given, subset=subset, seed=seed)

    brought = {part for part in given if part not in (None, "fit")}
    shares: dict[Part, float] = {"held": held, "select": select}
    missing = {part: share for part, share in shares.items() if share and part not in brought}
    parts: list[Part | None] = [None] * len(digests)
    pool = []
    for i in kept:
        if given[i] in brought:
            parts[i] = given[i]
        else:
            pool.append(i)
    for i, part in _stratified(pool, keys, labels, missing, seed).items():
        parts[i] = part
    for name in PARTS:
        if name not in parts and (name == "fit" or name in brought or name in missing):
            raise ScalenetError(
                f"{len(kept)} pictures are too few: no class has one left for the part {name!r}; "
                "every class should have three or more."
            )
    return Split(
        tuple(parts),
        duplicates=len(digests) - len(labels_of),
        conflicts=sum(len(found) > 1 for found in labels_of.values()),
        crossing=crossing,
    )


def keys_of(digests: Sequence[str], groups: Sequence[str | None]) -> list[str]:
    """What pictures that must stay in one part have in common: of a group the least digest, else the own one."""
    members: dict[str, list[str]] = defaultdict(list)
    for digest, group in zip(digests, groups, strict=True):
        if group is not None:
            members[group].append(digest)
    bound = together(members.values())
    return [bound.get(digest, digest) for digest in digests]


def together(bonds: Iterable[Sequence[str]]) -> dict[str, str]:
    """Name -> the least of all names that it is bound to, directly or through others."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        above.setdefault(name, name)
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for bond in bonds:
        for name in bond:
            one, other = sorted((top(bond[0]), top(name)))
            above[other] = one
    return {name: top(name) for name in list(above)}


def _uncrossed(digests: Sequence[str], given: Sequence[Part | None]) -> list[int]:
    """The pictures without those whose bytes also lie in a part judged later."""
    last: dict[str, int] = {}
    rank = [PARTS.index(part or "fit") for part in given]
    for digest, place in zip(digests, rank, strict=True):
        last[digest] = max(place, last.get(digest, 0))
    return [i for i, digest in enumerate(digests) if rank[i] == last[digest]]


def _subset(
    kept: Sequence[int],
    digests: Sequence[str],
    labels: Sequence[int],
    given: Sequence[Part | None],
    *,
    subset: int,
    seed: int,
) -> list[int]:
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in sorted(kept, key=lambda i: _rank(seed, "subset", digests[i])):
        strata[given[i] or "", labels[i]].append(i)
    classes = len({label for _, label in strata})
    least = max(classes, len(strata)) if len({part for part, _ in strata}) > 1 else classes
    if subset < least:
        parts = f" in each of {len({part for part, _ in strata})} given parts" if least > classes else ""
        raise ScalenetError(f"subset {subset} is too small: {classes} classes{parts} need {least} pictures or more.")
    if subset >= len(kept):
        return list(kept)
    quotas = _quotas({key: len(members) for key, members in sorted(strata.items())}, subset)
    return sorted(i for key, members in strata.items() for i in members[: quotas[key]])


def _quotas(sizes: Mapping[tuple[str, int], int], total: int) -> dict[tuple[str, int], int]:
    """`total` shared out in proportion by largest remainder, at least one each; `total` is below the sum of sizes."""
    whole = sum(sizes.values())
    quotas = {key: max(1, total * size // whole) for key, size in sizes.items()}

    def short(key: tuple[str, int]) -> int:
        return total * sizes[key] - quotas[key] * whole  # of its exact share, times `whole`

    while (left := total - sum(quotas.values())) > 0:
        quotas[max((key for key in sizes if quotas[key] < sizes[key]), key=short)] += 1
    for _ in range(-left):  # the least of one each took too many
        quotas[min((key for key in sizes if quotas[key] > 1), key=short)] -= 1
    return quotas


def _stratified(
    pool: Sequence[int],
    digests: Sequence[str],
    labels: Sequence[int],
    missing: Mapping[Part, float],
    seed: int,
) -> dict[int, Part]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i in pool:
        groups[digests[i]].append(i)
    strata: dict[int, list[str]] = defaultdict(list)  # a group counts where most of its copies do
    for digest, members in groups.items():
        counts = Counter(labels[i] for i in members)
        strata[min(counts, key=lambda label: (-counts[label], label))].append(digest)
    parts: dict[int, Part] = {}
    for found in strata.values():
        ordered = sorted(found, key=lambda digest: _rank(seed, "split", digest))
        sizes = [len(groups[digest]) for digest in ordered]
        for digest, part in zip(ordered, _allot(sizes, missing), strict=True):
            parts.update(dict.fromkeys(groups[digest], part))
    return parts


def _allot(sizes: Sequence[int], missing: Mapping[Part, float]) -> list[Part]:
    """A part for each group of one class, in order: each missing part up to its share, the rest to fit.

    Where there are groups enough, fit and every missing part get one at least; fit comes first.
    """
    allotted: list[Part] = ["fit"] * len(sizes)
    free = list(range(len(sizes)))
    for place, (part, share) in enumerate(missing.items()):
        later = len(missing) - place - 1  # parts still to come want a group each
        target = max(1, round(share * sum(sizes)))
        filled = 0
        for i in list(free):
            if filled >= target or len(free) <= 1 + (later if filled else 0):
                break
            if filled + sizes[i] - target > target - filled:
                continue  # further from the target than without it
            allotted[i] = part
            filled += sizes[i]
            free.remove(i)
        if not filled and len(free) > 1:
            smallest = min(free, key=lambda i: sizes[i])
            allotted[smallest] = part
            free.remove(smallest)
    return allotted


def _rank(seed: int, purpose: str, digest: str) -> bytes:
    return hashlib.sha256(f"{seed}:{purpose}:{digest}".encode()).digest()
