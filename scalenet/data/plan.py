"""From a request to a plan: which pictures are used, in which part, and what there is to say about them."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalenet.data.digest import Facts, facts
from scalenet.data.source import Item, Located, Source, locate
from scalenet.data.split import Split, keys_of, split
from scalenet.data.store import Progress, cache_root, hashed, read_json, remember
from scalenet.data.values import PARTS, DataRequest, Part, Survey
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain

VERSION = 1  # of the split and of what a survey holds


@dataclass(frozen=True)
class Plan:
    """A survey and the pictures behind it, part by part, in the order of their contents."""

    survey: Survey
    parts: Mapping[Part, Sequence[Item]]


def survey(request: DataRequest, progress: Progress | None = None) -> Survey:
    """What the source holds and how it would be parted. Reads bytes and headers, decodes nothing.

    A source that has not changed since is not read again.

    Raises ScalenetError for a source that is not there, holds nothing usable or is too small to part.
    """
    located = locate(request)
    return recall(located, request) or plan(located, request, progress).survey


def recall(located: Located, request: DataRequest) -> Survey | None:
    """The survey kept from an earlier start, where the source has not changed since."""
    memo = _memo(located, request)
    kept = read_json(memo) if memo else None
    try:
        return from_plain(Survey, kept, str(memo))
    except ScalenetError:  # absent, or another version's
        return None


def plan(located: Located, request: DataRequest, progress: Progress | None = None) -> Plan:
    """The plan, made anew; its survey is remembered."""
    if located.fetch:
        located.fetch(progress)
    source = located.load()
    if not source.items:
        raise ScalenetError(f"The data set {source.name!r} holds no pictures.")
    known = facts(source.items, located.place, progress)
    good = [i for i, fact in enumerate(known) if fact.side > 0]
    _check_readable(source, good)
    digests = [known[i].digest for i in good]
    labels = [source.items[i].label for i in good]
    divided = split(
        digests,
        labels,
        [source.items[i].given for i in good],
        subset=request.subset,
        select=request.select,
        held=request.held,
        seed=request.seed,
        keys=keys_of(digests, [source.items[i].group for i in good]),
    )
    used: dict[Part, list[int]] = {part: [] for part in PARTS}
    for i, part in zip(good, divided.parts, strict=True):
        if part is not None:
            used[part].append(i)
    for members in used.values():
        members.sort(key=lambda i: (known[i].digest, source.items[i].label))
    found = _describe(source, request, known, used, divided)
    # A set fetched just now has a stamp only now.
    memo = _memo(locate(request) if located.stamp is None else located, request)
    if memo is not None and all(fact.lasting for fact in known):
        remember(memo, to_plain(found))
    return Plan(found, {part: [source.items[i] for i in members] for part, members in used.items()})


def _describe(
    source: Source,
    request: DataRequest,
    known: Sequence[Facts],
    used: Mapping[Part, Sequence[int]],
    divided: Split,
) -> Survey:
    counts: dict[str, int] = {part: len(members) for part, members in used.items()}
    per_class = count_classes(source.classes, {p: [source.items[i].label for i in m] for p, m in used.items()})
    unreadable = tuple(item.name for item, fact in zip(source.items, known, strict=True) if fact.side == 0)
    lines = sorted(
        json.dumps([known[i].digest, source.classes[source.items[i].label], part])
        for part, members in used.items()
        for i in members
    )
    return Survey(
        name=source.name,
        fingerprint=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        native_size=round(statistics.median(known[i].side for members in used.values() for i in members)),
        classes=source.classes,
        pictures=sum(counts.values()),
        counts=counts,
        class_counts=per_class,
        unreadable=unreadable,
        conflicts=divided.conflicts,
        duplicates=divided.duplicates,
        crossing=divided.crossing,
        ignored=source.ignored,
        flip=source.flip,
        demonstration=source.demonstration,
        warnings=(*source.warnings, *_remarks(request, sum(counts.values()), per_class, unreadable, divided)),
        cleaned=source.cleaned,
    )


def _remarks(
    request: DataRequest,
    pictures: int,
    per_class: Mapping[str, Mapping[str, int]],
    unreadable: Sequence[str],
    divided: Split,
) -> Iterator[str]:
    if divided.conflicts:
        yield (
            f"Byte-identical pictures with conflicting labels: {divided.conflicts}. "
            "All copies are kept, in one part; better settle their labels."
        )
    if divided.crossing:
        yield (
            f"Copies of pictures that are also in a part given for judging: {divided.crossing}. "
            "They are left out of training."
        )
    if unreadable:
        yield unreadable_warning(unreadable)
    if request.subset is not None and request.subset > pictures:
        yield f"A subset of {request.subset} was asked for, but there are {pictures} pictures; all are used."
    for part in PARTS:
        without = [name for name, counts in per_class.items() if not counts[part]]
        if without:
            yield f"No picture in the part {part!r} for: {', '.join(without)}."


def unreadable_warning(names: Sequence[str]) -> str:
    """One sentence with the count and the first few names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Unreadable pictures, left out: {len(names)} ({', '.join(names[:3])}{more})."


def count_classes(classes: Sequence[str], labels: Mapping[Part, Sequence[int]]) -> dict[str, dict[str, int]]:
    """Class -> part -> pictures.

    Raises ScalenetError for a class without a picture to fit.
    """
    counted = {part: Counter(found) for part, found in labels.items()}
    counts: dict[str, dict[str, int]] = {
        name: {part: counted[part][label] for part in PARTS} for label, name in enumerate(classes)
    }
    if bare := [name for name, found in counts.items() if not found["fit"]]:
        raise ScalenetError(f"No readable picture is left to fit for: {', '.join(map(repr, bare))}.")
    return counts


def _check_readable(source: Source, good: Sequence[int]) -> None:
    whole = Counter(item.label for item in source.items)
    left = Counter(source.items[i].label for i in good)
    for label, name in enumerate(source.classes):
        if not left[label]:
            raise ScalenetError(
                f"None of the {whole[label]} pictures of class {name!r} can be read; "
                f"the first is {next((i.name for i in source.items if i.label == label), 'missing')}."
            )


def _memo(located: Located, request: DataRequest) -> Path | None:
    if located.stamp is None:
        return None
    asked = [request.subset, request.select, request.held, request.seed]
    return cache_root() / "surveys" / f"{hashed(VERSION, located.place, located.stamp, asked)[:24]}.json"
