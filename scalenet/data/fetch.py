"""Published files from the web: resumed where they broke off, tried again, and checked before anything reads them.

A file is pinned by its size and SHA-256. So no validator (ETag, If-Range) has to be remembered between two starts: a
server that has changed its file gives itself away by the total it states, or by the checksum at the end.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalenet.data.store import Progress
from scalenet.errors import ScalenetError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds between tries that bring nothing
LONGEST = 60.0  # seconds that a server may ask for by Retry-After
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18
# What may be otherwise a little later (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4); any other refusal is final.
PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
UNSATISFIABLE = 416
PARTIAL = 206


@dataclass(frozen=True)
class Remote:
    """A published file, the same at each of `urls`, which are tried in this order."""

    urls: tuple[str, ...]
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.urls[0].rpartition("/")[2]


class _Passing(Exception):
    """Worth another try. `reached`: something answered; `wait`: seconds it asked for."""

    def __init__(self, why: str, *, reached: bool = True, wait: float = 0.0) -> None:
        super().__init__(why)
        self.reached = reached
        self.wait = wait


class _Final(Exception):
    """This URL will not give the file."""


def download(remote: Remote, part: Path, progress: Progress | None = None, pauses: Sequence[float] = PAUSES) -> None:
    """Completes the file `part` and checks it; what is there already of an earlier try is not sent again.

    Whatever ends it early, Ctrl-C included, leaves `part` to be resumed, unless what it holds turned out wrong.

    Raises:
        ScalenetError: none of the URLs gives the file; with the reason for each.
        OSError: `part` cannot be written.
    """
    complaints = []
    for url in remote.urls:
        while True:
            begun = _held(part)
            try:
                _complete(url, remote, part, progress, pauses)
            except _Final as why:
                complaints.append(f"{url}: {why}")
                break
            if matches(part, remote, progress):
                return
            part.unlink()
            if not begun:
                complaints.append(f"{url}: what it sends is not the published file (another SHA-256)")
                break
            # Else what an earlier try had left may be to blame: once more, from the first byte.
    raise ScalenetError("; ".join(complaints))


def matches(file: Path, remote: Remote, progress: Progress | None = None) -> bool:
    """Whether the file is the published one, by size and SHA-256."""
    if _held(file) != remote.size:
        return False
    told = counter(progress, f"checking {remote.name}", remote.size)
    digest = hashlib.sha256()
    done = 0
    with open(file, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
            done += len(block)
            told(done)
    return digest.hexdigest() == remote.sha256


def counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None]:
    """Takes bytes done, tells people of MB (of kB where there are few)."""
    if progress is None:
        return lambda done: None
    unit, name = (10**6, "MB") if total >= 10**7 else (10**3, "kB")
    return lambda done: progress(done // unit, total // unit, f"{what} ({name})")


def _held(file: Path) -> int:
    """Bytes of the file; 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _complete(url: str, remote: Remote, part: Path, progress: Progress | None, pauses: Sequence[float]) -> None:
    """Receives until `part` has the size of the file, however often the connection breaks.

    A try that brings the file further starts the count of tries anew. Where nothing at all answers there is one more
    try only: a machine without a network should hear of it soon.
    """
    start = furthest = _held(part)
    tries = 0  # since the last that brought it further
    while _held(part) != remote.size:
        try:
            _receive(url, remote, part, progress)
        except _Passing as trouble:
            if _held(part) > furthest:
                furthest, tries = _held(part), 0
            if tries >= (len(pauses) if trouble.reached or furthest > start else min(1, len(pauses))):
                raise _Final(str(trouble)) from trouble
            if progress:
                progress(0, 0, f"{remote.name}: {trouble}; trying again")
            time.sleep(max(pauses[tries], min(trouble.wait, LONGEST)))
            tries += 1


def _receive(url: str, remote: Remote, part: Path, progress: Progress | None) -> None:
    """One connection. Leaves in `part` what came, from its first byte on."""
    have = _held(part)
    if have > remote.size:
        part.unlink()
        have = 0
    headers = {"User-Agent": "scalenet", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _opened(urllib.request.Request(url, headers=headers), part) as answer:
        at = _first_byte(answer, remote) if answer.status == PARTIAL else 0
        if at > have:
            raise _Final(f"it sends bytes from {at} on where {have} were asked for")
        if answer.status != PARTIAL and answer.length not in (None, remote.size):
            raise _Final(f"it offers {answer.length} bytes where the published file has {remote.size}")
        told = counter(progress, f"fetching {remote.name}", remote.size)
        with open(part, "r+b" if have else "wb") as file:
            file.seek(at)  # 0 where the server does not know ranges: it starts over, and so does the file
            file.truncate()
            while block := _read(answer, min(BLOCK, remote.size - at + 1)):
                at += len(block)
                if at > remote.size:
                    raise _Final(f"it sends more than the {remote.size} bytes of the published file")
                file.write(block)
                told(at)
    if at < remote.size:
        raise _Passing(f"the connection ended after {at} of {remote.size} bytes")


def _opened(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return answer
    except urllib.error.HTTPError as error:
        with error:
            said = f"HTTP {error.code} {error.reason}".rstrip()
            if error.code == UNSATISFIABLE and part.exists():
                part.unlink()  # more than the server has: from the first byte, then
                raise _Passing(said) from error
            if error.code in PASSING:
                wait = error.headers.get("Retry-After", "")
                raise _Passing(said, wait=float(wait) if wait.isdecimal() else 0.0) from error
            raise _Final(said) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _Final(str(error.reason)) from error
        raise _Passing(_words(error.reason), reached=not _unreachable(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:  # while the answer's first lines were awaited
        raise _Passing(_words(error)) from error


def _read(answer: http.client.HTTPResponse, most: int) -> bytes:
    try:
        return answer.read(most)
    except (OSError, http.client.HTTPException) as error:  # kept apart from a disk that cannot be written
        raise _Passing(_words(error)) from error


def _first_byte(answer: http.client.HTTPResponse, remote: Remote) -> int:
    """Where a partial answer begins; its total, where stated, must be the file's."""
    stated = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stated.strip())
    if found is None:
        raise _Final(f"it sends a part and does not say which ({stated!r})")
    if found[2] not in ("*", str(remote.size)):
        raise _Final(f"it offers {found[2]} bytes where the published file has {remote.size}")
    return int(found[1])


def _unreachable(reason: object) -> bool:
    return isinstance(reason, socket.gaierror | ConnectionRefusedError | TimeoutError) or (
        isinstance(reason, OSError) and reason.strerror is not None and "unreachable" in reason.strerror
    )


def _words(reason: object) -> str:
    """What went wrong, without the numbers of the operating system."""
    told = reason.strerror if isinstance(reason, OSError) else None
    return told or str(reason) or type(reason).__name__
