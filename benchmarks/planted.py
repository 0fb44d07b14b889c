"""A folder of pictures with planted defects whose truth is known, for measuring what finds them.

    python benchmarks/planted.py OUT [--seed 0] [--pictures DIR ...] [--quick]

makes the folder OUT, with train/ and test/ of six classes, and beside it OUT.json, which says what is what: 3,000 sound
pictures of 300 to 600 px, 340 of them such as are often taken for bad ones (white-background product shots, flat
diagrams, night scenes, fog, bokeh, grey pictures, what a fixed camera sees at other moments), and 949 defects, 363 of
them copies. The same seed gives the same files. Pictures are drawn; with --pictures, real ones of at least 150 px are
taken as far as they go (any folder of them; each at most once, enlarged up to twice; passed over are those that are
themselves doubtful: unsharp, dark, pale or alike). --quick makes an eighth of everything.

Needs a system that has links and permissions (Linux, macOS).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import planted_files as files
from PIL import Image, ImageFilter
from planted_files import Task, make
from planted_scenes import HARD, SCENES, Rng

Maker = Callable[[Rng, Task, Path], None]


@dataclass(frozen=True)
class Family:
    """A kind of defect: how many, and what is right to say of it."""

    name: str
    count: int
    maker: Maker
    suffixes: str  # drawn from these
    rule: str
    reasons: tuple[str, ...] = ()  # each a fault or a format's name; any one is right
    copy: bool = False
    crossing: str = ""  # "label": a copy in another class; "part": in another part


J, JP = ".jpg", ".jpg .jpg .jpg .png"
FAMILIES = (
    Family("exact", 45, files.exact, "", "duplicate", copy=True),
    Family("exact, other class", 25, files.exact, "", "conflict", copy=True, crossing="label"),
    Family("exact, other part", 25, files.exact, "", "leak", copy=True, crossing="part"),
    Family("re-encoded", 54, files.reencoded, ".jpg .jpg .jpg .png .webp", "near-duplicate", copy=True),
    Family("re-encoded, other class", 8, files.reencoded, JP, "conflict", copy=True, crossing="label"),
    Family("re-encoded, other part", 8, files.reencoded, JP, "leak", copy=True, crossing="part"),
    Family("resized", 52, files.resized, JP, "near-duplicate", copy=True),
    Family("resized, other class", 7, files.resized, JP, "conflict", copy=True, crossing="label"),
    Family("resized, other part", 7, files.resized, JP, "leak", copy=True, crossing="part"),
    Family("cropped", 52, files.cropped, JP, "near-duplicate", copy=True),
    Family("cropped, other class", 7, files.cropped, JP, "conflict", copy=True, crossing="label"),
    Family("cropped, other part", 7, files.cropped, JP, "leak", copy=True, crossing="part"),
    Family("EXIF, shows the same", 33, files.turned_back, J, "near-duplicate", copy=True),
    Family("EXIF, tag only", 33, files.tagged, J, "near-duplicate", copy=True),
    Family("truncated JPEG", 46, files.cut_jpeg, J, "broken", ("truncated",)),
    Family("truncated PNG", 20, files.cut_png, ".png", "broken", ("truncated",)),
    Family("zero bytes", 20, files.empty, JP, "broken", ("empty",)),
    Family("text named .jpg", 20, files.text, J, "broken", ("foreign",)),
    Family("bomb", 8, files.bomb, JP, "broken", ("bomb",)),
    Family("bit rot", 24, files.rotten, J, "broken", ("corrupt", "truncated")),
    Family("no permission", 12, files.denied, J, "denied"),
    Family("broken link", 12, files.dead_link, J, "link"),
    Family("link loop", 6, files.looped_link, J, "link"),
    Family("hidden junk", 30, files.junk, "", "hidden"),
    Family("out of focus", 50, files.out_of_focus, JP, "blurry"),
    Family("shaken", 40, files.shaken, JP, "blurry"),
    Family("dark", 60, files.dark, JP, "dark"),
    Family("over-exposed", 50, files.washed_out, JP, "bright"),
    Family("low contrast", 50, files.pale, JP, "low-contrast"),
    Family("tiny", 24, files.tiny, JP, "small"),
    Family("extreme aspect", 24, files.strip, JP, "aspect"),
    Family("PNG named .jpg", 20, files.misnamed, J, "format", ("PNG",)),
    Family("CMYK", 15, files.cmyk, J, "format", ("CMYK",)),
    Family("16 bit", 15, files.deep, ".png", "format", ("16",)),
    Family("palette", 14, files.palette, ".png", "format", ("palette",)),
    Family("animated", 10, files.animated, ".gif", "format", ("animated",)),
    Family("EXIF-turned", 16, files.shown_turned, J, "format", ("turned",)),
)
SOUND = 3000
LOOKS_BAD: dict[str, tuple[int, Maker]] = {
    **{kind: (50 if kind in ("product", "night") else 48, partial(files.hard, kind)) for kind in HARD},
    "grey": (48, files.grey),
    "camera": (48, files.watched),
}
MOMENTS = 4  # of a fixed camera
JUNK = ("._{}.jpg", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Sound:
    """A picture that nothing is wrong with."""

    path: str
    kind: str  # "plain", or what makes it look bad
    camera: int | None = None


@dataclass(frozen=True)
class Defect:
    """A planted one, and what is right to say of it."""

    path: str
    family: str
    rule: str
    reasons: tuple[str, ...] = ()
    other: str | None = None  # what it is a copy of


@dataclass(frozen=True)
class Plan:
    """What is to be made."""

    sound: tuple[Sound, ...]
    defects: tuple[Defect, ...]
    tasks: tuple[Task, ...]  # the sound first: copies are made of them


class Names:
    """Free names in the folders: numbers in no order, often the same in two folders."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._free: dict[str, list[int]] = {}

    def one(self, folder: str, suffix: str, form: str = "{:05d}") -> str:
        """A path that no other has."""
        free = self._free.setdefault(folder, [int(n) for n in self._rng.permutation(3000)])
        return f"{folder}/{form.format(free.pop())}{suffix}"


def plan(seed: int, share: float = 1.0, real: Sequence[str] = ()) -> Plan:
    """What is made: `share` of everything, of the real pictures as far as they go."""
    rng = np.random.default_rng(seed)
    names, unused, kinds = Names(rng), list(real), sorted(SCENES)

    def number(count: int) -> int:
        return max(2, round(count * share))

    def folder() -> str:
        return f"{'train' if rng.random() < 0.8 else 'test'}/{rng.choice(kinds)}"

    def task(path: str, maker: Maker, bases: int = 1) -> Task:
        sources = tuple(unused.pop() for _ in range(min(bases, len(unused))))
        high, wide = rng.integers(300, 341 if sources else 601, 2)
        scene = path.split("/")[1] if path.split("/")[1] in SCENES else str(rng.choice(kinds))
        index = int(rng.integers(2**40))
        return Task(path, maker, (seed, 1, index), scene, int(high), int(wide), sources)

    others = [f for f in FAMILIES if not f.copy]
    defects, bad_tasks = [], []
    for family in others:
        for i in range(number(family.count)):
            path = junk_path(names, folder(), i) if family.name == "hidden junk" else ""
            path = path or names.one(folder(), str(rng.choice(family.suffixes.split())))
            if family.name == "bomb":
                path = str(Path(path).with_suffix(".jpg" if i % 4 == 3 else ".png"))
            bases = int(family.rule not in ("link", "hidden") and not {"empty", "foreign", "bomb"} & {*family.reasons})
            defects.append(Defect(path, family.name, family.rule, family.reasons))
            bad_tasks.append(task(path, family.maker, bases))

    sound: list[Sound] = []
    tasks: list[Task] = []
    for kind, (count, maker) in LOOKS_BAD.items():
        for i in range(number(count)):
            seen = i // MOMENTS if kind == "camera" else None
            if kind == "camera" and i % MOMENTS:
                made = replace(tasks[-1], seed=(seed, 1, int(rng.integers(2**40))))
                made = replace(made, path=names.one(made.path.rpartition("/")[0], J))
            else:
                made = task(names.one(folder(), J), maker, {"bokeh": 2, "diagram": 0, "night": 0}.get(kind, 1))
                made = replace(made, camera=seen or 0)
            sound.append(Sound(made.path, kind, seen))
            tasks.append(made)
    for _ in range(number(SOUND) - len(sound)):
        suffix = str(rng.choice([J, ".jpeg", ".JPG", ".png", ".webp"], p=[0.78, 0.03, 0.03, 0.11, 0.05]))
        form = "{:05d} (copy)" if rng.random() < 0.01 else "{:05d}"
        tasks.append(task(names.one(folder(), suffix, form), files.plain))
        sound.append(Sound(tasks[-1].path, "plain"))

    for family in (f for f in FAMILIES if f.copy):
        for _ in range(number(family.count)):
            defect = copy_of(rng, names, family, [s.path for s in sound])
            defects.append(defect)
            bad_tasks.append(replace(task(defect.path, family.maker, 0), original=defect.other or ""))
    return Plan(tuple(sound), tuple(defects), (*tasks, *bad_tasks))


def junk_path(names: Names, folder: str, i: int) -> str:
    """The first few as an archive of a Mac holds them, then one of each in turn, as far as a folder has none."""
    if i < 4:
        return names.one(f"__MACOSX/{folder}", ".jpg", "._{:05d}")
    folders = [f"{part}/{name}" for part in ("train", "test") for name in sorted(SCENES)]
    which, turn = i % 3, i // 3 - 1
    if which == 0 or turn >= len(folders):
        return names.one(folder, ".jpg", "._{:05d}")
    return f"{folders[turn]}/{'.DS_Store' if which == 1 else 'Thumbs.db'}"


def copy_of(rng: Rng, names: Names, family: Family, sound: Sequence[str]) -> Defect:
    """A copy of one of the sound pictures, in the folder that the family wants."""
    jpeg_only = family.name.startswith("EXIF")
    while True:
        original = str(rng.choice(sound))
        suffix = Path(original).suffix
        if not jpeg_only or suffix.lower() in (".jpg", ".jpeg"):
            break
    part, label, _ = original.split("/")
    if family.crossing == "part":
        part = "test" if part == "train" else "train"
    if family.crossing == "label":
        label = str(rng.choice([name for name in sorted(SCENES) if name != label]))
    path = names.one(f"{part}/{label}", str(rng.choice(family.suffixes.split())) if family.suffixes else suffix)
    return Defect(path, family.name, family.rule, family.reasons, original)


def usable(folders: Sequence[Path]) -> Iterator[str]:
    """The real pictures that are sound beyond doubt, and no two alike."""
    kept = np.empty((0, 256), np.float32)
    found = (path for folder in folders for path in folder.rglob("*"))
    for path in sorted(path for path in found if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        try:
            with Image.open(path) as file:
                grey = file.convert("L")
        except OSError:
            continue
        values = np.asarray(grey, np.float32)
        if min(values.shape) < 150 or not 60 <= values.mean() <= 180 or values.std() < 40:
            continue
        edges = grey.filter(ImageFilter.Kernel((3, 3), [0, 1, 0, 1, -4, 1, 0, 1, 0], 1, 128))
        if np.asarray(edges, np.float32).var() < 500:
            continue
        small = np.asarray(grey.resize((16, 16)), np.float32).ravel()
        small = (small - small.mean()) / (np.linalg.norm(small - small.mean()) + 1e-6)
        if not len(kept) or (kept @ small).max() < 0.9:
            kept = np.vstack([kept, small])
            yield str(path)


def plant(out: Path, seed: int = 0, share: float = 1.0, real: Sequence[str] = (), workers: int = 1) -> Plan:
    """Makes the folder, which must not be there yet, and its truth beside it."""
    made = plan(seed, share, real)
    out.mkdir(parents=True)
    count = len(made.sound)
    for tasks in (made.tasks[:count], made.tasks[count:]):
        if workers == 1:
            for task in tasks:
                make(str(out), task)
            continue
        with ProcessPoolExecutor(workers) as pool:
            for _ in pool.map(partial(make, str(out)), tasks, chunksize=16):
                pass
    truth = {
        "seed": seed, "pictures": "real" if real else "drawn",
        "sound": [asdict(s) for s in made.sound], "defects": [asdict(d) for d in made.defects],
    }  # fmt: skip
    manifest_of(out).write_text(json.dumps(truth, indent=0))
    return made


def manifest_of(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="an eighth of everything")
    told = parser.parse_args()
    if told.out.exists():
        parser.error(f"{told.out} is there already; name a folder that is not.")
    real = list(usable(told.pictures))
    np.random.default_rng(told.seed).shuffle(real)
    if told.pictures:
        print(f"{len(real)} real pictures can be used", file=sys.stderr)
    made = plant(told.out, told.seed, 1 / 8 if told.quick else 1.0, real, os.cpu_count() or 1)
    print(f"{len(made.sound)} sound pictures and {len(made.defects)} defects in {told.out}")
    print(f"the truth is in {manifest_of(told.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
