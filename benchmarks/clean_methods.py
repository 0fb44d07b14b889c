"""What `clean_vs_peers.py` compares, each run as a process of its own: clean_methods.py NAME FOLDER ANSWER [FILES]

ANSWER is where it leaves, as JSON, what it says of which file ({path: [[rule, words], ...]}, paths relative), which
files it takes for copies of each other (groups), and, of copies in other parts or classes, what it names them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Answer = dict[str, Any]
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"}
CUTOFF = 5  # bits: the one in ImageHash's own example
SIMILARITY = 10  # of 50; the better of those in the czkawka package's examples, 10 and 15


def scalenet(folder: Path, files: Sequence[str]) -> Answer:
    """The whole of it: scan, copies, verdicts."""
    from scalenet.cleaning.rules import judge
    from scalenet.cleaning.scan import scan
    from scalenet.cleaning.values import Fault, Limits

    limits = Limits()
    judged = judge(scan(folder, limits), limits)
    faults = {e.path: Fault(int(f)).name for e, f in zip(judged.scan.pictures, judged.scan.looks["fault"], strict=True)}
    said: dict[str, list[list[str]]] = {}
    for finding in judged.findings:
        words = f"{faults.get(finding.path, '')} {finding.reason}" if finding.rule == "broken" else finding.reason
        said.setdefault(finding.path, []).append([finding.rule, words])
    return {
        "said": said,
        "groups": [group.paths for group in judged.groups],
        "crossing": [[f.rule, [f.path, *f.others]] for f in judged.findings if f.rule in ("leak", "conflict")],
        "entries": [entry.path for entry in judged.scan.entries],
        "kept": [entry.path for entry in judged.kept],
        "removed": list(judged.removed),
    }


def below(folder: Path) -> Iterator[Path]:
    """The files that scripts look at."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)


def script(folder: Path, files: Sequence[str]) -> Answer:
    """What one writes in an afternoon. It deletes what it dislikes at once."""
    import cv2
    from PIL import Image

    said: dict[str, list[list[str]]] = {}
    first: dict[bytes, list[str]] = {}

    def drop(path: Path, rule: str) -> None:
        said[str(path.relative_to(folder))] = [[rule, ""]]
        path.unlink()

    for path in below(folder):
        try:
            with Image.open(path) as picture:
                picture.verify()
        except Exception:  # whatever Pillow raises: that is this way of cleaning
            drop(path, "broken")
            continue
        pixels = cv2.imread(str(path))
        if pixels is None:
            drop(path, "broken")
            continue
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA)
        same = first.setdefault(np.packbits(small > small.mean()).tobytes(), [])
        same.append(str(path.relative_to(folder)))
        if cv2.Laplacian(grey, cv2.CV_64F).var() < 100:
            drop(path, "blurry")
        elif grey.mean() < 30:
            drop(path, "dark")
        elif grey.mean() > 220:
            drop(path, "bright")
        elif grey.std() < 25:
            drop(path, "low-contrast")
        elif len(same) > 1:
            drop(path, "duplicate")
    return {"said": said, "groups": [paths for paths in first.values() if len(paths) > 1]}


def cleanvision(folder: Path, files: Sequence[str]) -> Answer:
    """With its defaults, on the files that load: on a folder with others it stops at the first."""
    from cleanvision import Imagelab

    rules = {
        "is_blurry_issue": "blurry", "is_dark_issue": "dark", "is_light_issue": "bright",
        "is_low_information_issue": "low-contrast", "is_odd_size_issue": "small", "is_odd_aspect_ratio_issue": "aspect",
    }  # fmt: skip
    lab = Imagelab(filepaths=[str(folder / file) for file in files], verbose=False)
    lab.find_issues(n_jobs=os.cpu_count(), verbose=False)
    said: dict[str, list[list[str]]] = {}
    for column, rule in rules.items():
        for path in lab.issues.index[lab.issues[column]]:
            said.setdefault(os.path.relpath(path, folder), []).append([rule, ""])
    sets = [s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info[kind]["sets"]]
    return {"said": said, "groups": [[os.path.relpath(path, folder) for path in group] for group in sets]}


def imagehash(folder: Path, files: Sequence[str]) -> Answer:
    """Perceptual hashes, every one against every other."""
    import imagehash as library
    from PIL import Image

    names, hashes = [], []
    said: dict[str, list[list[str]]] = {}
    for path in below(folder):
        name = str(path.relative_to(folder))
        try:
            with Image.open(path) as picture:
                found = library.phash(picture)
        except Exception:  # as one writes it: what cannot be hashed is broken
            said[name] = [["broken", ""]]
            continue
        names.append(name)
        hashes.append(np.packbits(found.hash).view(np.uint64)[0])
    values = np.array(hashes, np.uint64)
    pairs = []
    for i, value in enumerate(values):
        near = np.flatnonzero(np.bitwise_count(values[i + 1 :] ^ value) <= CUTOFF)
        pairs += [[names[i], names[i + 1 + int(j)]] for j in near]
    return {"said": said, "groups": pairs}


def czkawka(folder: Path, files: Sequence[str]) -> Answer:
    from czkawka import ImageSimilarity

    finder = ImageSimilarity()
    finder.set_directories([folder])
    finder.set_similarity(SIMILARITY)
    groups = finder.find_similar()
    return {"said": {}, "groups": [[os.path.relpath(path, folder.resolve()) for path in group] for group in groups]}


METHODS: dict[str, Callable[[Path, Sequence[str]], Answer]] = {
    "scalenet": scalenet, "script": script, "cleanvision": cleanvision, "ImageHash": imagehash, "czkawka": czkawka,
}  # fmt: skip


def main() -> None:
    name, folder, answer, *files = sys.argv[1:]
    listed = json.loads(Path(files[0]).read_text()) if files else []
    Path(answer).write_text(json.dumps(METHODS[name](Path(folder), listed)))


if __name__ == "__main__":
    main()
