"""Dividing a list of pictures into fit, select and held: by class, by seed, copies together; nothing is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from scalenet.cleaning.manifest import Division, LeftOut, Manifest, check
from scalenet.data.split import keys_of, split
from scalenet.data.values import PARTS, Part
from scalenet.errors import ScalenetError

USUAL = (0.15, 0.15)  # select, held


def fractions(fit: float | None, select: float | None, held: float | None) -> tuple[float, float]:
    """Select's and held's fraction, from what was named of the three; held alone makes two parts, and no select.

    Raises:
        ScalenetError: a fraction outside 0 to 1, three that do not add up to 1, or fit alone.
    """
    for name, value in (("fit", fit), ("select", select), ("held", held)):
        if value is not None and not 0 < value < 1:
            raise ScalenetError(f"{name} is {value}; it must be a fraction between 0 and 1.")
    if select is None and held is None:
        if fit is not None:
            raise ScalenetError(f"fit is {fit}; say too how much of the rest is select, or held.")
        return USUAL
    if select is None:
        select = 0.0 if fit is None else 1 - fit - (held or 0)
    if held is None:
        held = USUAL[1] if fit is None else 1 - fit - select
    rest = 1 - select - held
    if select < 1e-9:
        select = 0.0 if select > -1e-9 else select
    if select < 0 or held < 1e-9 or rest < 1e-9 or (fit is not None and abs(fit - rest) > 1e-6):
        named = ", ".join(f"{n} {v}" for n, v in (("fit", fit), ("select", select), ("held", held)) if v is not None)
        raise ScalenetError(f"{named}: the three must add up to 1, with something left to fit.")
    return select, held


def partition(listed: Manifest, select: float, held: float, seed: int) -> Manifest:
    """The list with a part for every picture.

    Parts that the folder brings are kept; a missing one is split off its train part. Copies stay together; one that is
    also in a part judged on is left out. Pictures in no class folder are left out.

    Raises:
        ScalenetError: it is divided already, has fewer than two classes, too few pictures, or such as lie outside its
            folder.
    """
    if listed.division is not None:
        raise ScalenetError(f"The list is divided already, with seed {listed.division.seed}; divide the clean list.")
    if len(listed.classes) < 2:
        raise ScalenetError(
            f"{listed.root} holds pictures of {len(listed.classes)} classes; a classifier needs two or more, each in a "
            "folder of its own."
        )
    check(listed, listed.root)
    index = {label: number for number, label in enumerate(listed.classes)}
    used = [picture for picture in listed.pictures if picture.label is not None]
    digests = [picture.sha256 for picture in used]
    divided = split(
        digests,
        [index[picture.label] for picture in used if picture.label is not None],
        [picture.part for picture in used],
        subset=None,
        select=select,
        held=held,
        seed=seed,
        keys=keys_of(digests, [picture.group for picture in used]),
    )
    left_out = {left.path: left for left in listed.left_out}
    for picture in listed.pictures:
        if picture.label is None:
            left_out[picture.path] = LeftOut(picture.path, "other", "It lies in no class folder.")
    for picture, part in zip(used, divided.parts, strict=True):
        if part is None:
            reason = "A copy of it is in a part that is judged on."
            left_out[picture.path] = LeftOut(picture.path, "leak", reason)
    return replace(
        listed,
        division=Division(select, held, seed),
        pictures=tuple(replace(p, part=part) for p, part in zip(used, divided.parts, strict=True) if part is not None),
        left_out=tuple(left_out[path] for path in sorted(left_out)),
    )


def counted(listed: Manifest) -> Mapping[str, Mapping[Part, int]]:
    """Class -> part -> pictures."""
    found = Counter((picture.label, picture.part) for picture in listed.pictures)
    return {label: {part: found[label, part] for part in PARTS} for label in listed.classes}
