"""Downloads that break off, from a server on this machine."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalenet.data import fetch
from scalenet.data.fetch import Remote, download, matches
from scalenet.errors import ScalenetError
from tests.data.server import Fault, Web, web

DATA = random.Random(0).randbytes(700_001)  # more than two blocks, and no whole number of them
SUM = hashlib.sha256(DATA).hexdigest()
AT_ONCE = (0.0, 0.0, 0.0)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web(tmp_path / "web") as running:
        running.serve("pets.zip", DATA)
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "pets.zip.part"


def pets(served: Web) -> Remote:
    return Remote((f"{served.url}pets.zip",), len(DATA), SUM)


def ranges(served: Web) -> list[str | None]:
    return [wanted for _, wanted in served.asked]


def test_a_file_is_named_by_its_first_url() -> None:
    assert Remote(("http://a.org/x/pets.zip", "http://b.org/other"), 1, "").name == "pets.zip"


def test_fetched_whole_and_checked_with_progress(served: Web, part: Path) -> None:
    told: list[tuple[int, int, str]] = []
    download(pets(served), part, lambda *step: told.append(step))
    assert part.read_bytes() == DATA
    assert ranges(served) == [None]
    assert told[-1] == (700, 700, "checking pets.zip (kB)")
    fetching = [done for done, total, what in told if what == "fetching pets.zip (kB)" and total == 700]
    assert fetching == [262, 524, 700]


def test_what_is_there_is_not_sent_again(served: Web, part: Path) -> None:
    part.write_bytes(DATA[:500_000])
    download(pets(served), part)
    assert part.read_bytes() == DATA
    assert ranges(served) == ["bytes=500000-"]


def test_a_whole_part_needs_no_server(part: Path) -> None:
    part.write_bytes(DATA)
    download(Remote(("http://127.0.0.1:9/pets.zip",), len(DATA), SUM), part, pauses=())
    assert part.read_bytes() == DATA


def test_cut_connections_are_resumed_for_as_long_as_they_bring_something(served: Web, part: Path) -> None:
    served.faults = [Fault(cut=100_000)] * 6  # more often than there are pauses
    download(pets(served), part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    assert ranges(served) == [None, *(f"bytes={n}00000-" for n in range(1, 7))]


def test_a_connection_that_falls_silent_is_given_up_and_resumed(
    served: Web, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    served.faults = [Fault(cut=300_000, stalls=True)]
    download(pets(served), part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    held = fetch.BLOCK  # of the second block not all had come
    assert ranges(served) == [None, f"bytes={held}-"]


def test_a_server_that_knows_no_ranges_starts_over(served: Web, part: Path) -> None:
    part.write_bytes(b"x" * 500_000)  # wrong bytes: appended to, they would spoil the file
    served.always = Fault(deaf=True)
    download(pets(served), part)
    assert part.read_bytes() == DATA
    assert ranges(served) == ["bytes=500000-"]


def test_a_server_that_knows_no_ranges_and_always_breaks_is_given_up(served: Web, part: Path) -> None:
    served.always = Fault(deaf=True, cut=300_000)
    with pytest.raises(ScalenetError, match="ended after 300000 of 700001 bytes"):
        download(pets(served), part, pauses=AT_ONCE)
    assert len(served.asked) == 1 + 1 + len(AT_ONCE) - 1  # the first brought it further
    assert part.stat().st_size == 300_000  # to be resumed


def test_a_server_that_breaks_now_later_and_now_earlier_is_given_up_too(served: Web, part: Path) -> None:
    served.faults = [Fault(deaf=True, cut=cut) for cut in (300_000, 200_000) * 20]
    with pytest.raises(ScalenetError, match="ended after"):
        download(pets(served), part, pauses=AT_ONCE)
    assert len(served.asked) == 1 + len(AT_ONCE)


def test_nothing_of_an_earlier_try_stays_behind_what_is_sent_anew(served: Web, part: Path) -> None:
    part.write_bytes(bytes(500_000))
    served.faults = [Fault(deaf=True, cut=100_000)]
    download(pets(served), part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    assert ranges(served) == ["bytes=500000-", "bytes=100000-"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_refusal_is_tried_again(status: int, served: Web, part: Path) -> None:
    served.faults = [Fault(status=status)] * 3
    download(pets(served), part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    assert len(served.asked) == 4


def test_back_off_and_what_the_server_asks_for(served: Web, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", slept.append)
    served.faults = [
        Fault(status=503),
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=503, headers={"Retry-After": "90000"}),  # more than anybody waits
        Fault(status=503, headers={"Retry-After": "Fri, 27 Nov 2026 20:00:00 GMT"}),
    ]
    download(pets(served), part)
    assert slept == [1.0, 7.0, 60.0, 8.0]


def test_a_server_that_stays_busy_is_given_up(served: Web, part: Path) -> None:
    served.always = Fault(status=503)
    with pytest.raises(ScalenetError, match=r"pets.zip: HTTP 503 Service Unavailable$"):
        download(pets(served), part, pauses=AT_ONCE)
    assert len(served.asked) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_final_refusal_is_not_tried_again(status: int, served: Web, part: Path) -> None:
    served.always = Fault(status=status)
    with pytest.raises(ScalenetError, match=f"HTTP {status}"):
        download(pets(served), part)
    assert len(served.asked) == 1


def test_the_next_url_is_tried_and_goes_on_where_the_first_broke(served: Web, part: Path) -> None:
    served.serve("mirror.zip", DATA)
    remote = Remote((f"{served.url}pets.zip", f"{served.url}mirror.zip"), len(DATA), SUM)
    served.faults = [Fault(cut=200_000), Fault(status=404)]
    download(remote, part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    assert served.asked == [
        ("pets.zip", None),
        ("pets.zip", "bytes=200000-"),
        ("mirror.zip", "bytes=200000-"),
    ]


def test_every_url_is_named_with_its_reason(served: Web, part: Path) -> None:
    remote = Remote((f"{served.url}a.zip", f"{served.url}b.zip"), 10, SUM)
    with pytest.raises(ScalenetError) as error:
        download(remote, part)
    assert str(error.value) == f"{served.url}a.zip: HTTP 404 Not Found; {served.url}b.zip: HTTP 404 Not Found"


def test_nobody_there_is_told_after_one_more_try(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    slept: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", slept.append)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/pets.zip"
        with pytest.raises(ScalenetError, match="Connection refused"):
            download(Remote((url,), 10, SUM), part)
    assert slept == [1.0]


def test_an_unknown_host_is_told_after_one_more_try(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> object:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    slept: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", slept.append)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ScalenetError, match="Temporary failure in name resolution"):
        download(Remote(("http://pets.invalid/pets.zip",), 10, SUM), part)
    assert slept == [1.0]


def test_other_bytes_of_the_same_size_are_refused_and_not_kept(served: Web, part: Path) -> None:
    served.always = Fault(body=bytes(len(DATA)))
    with pytest.raises(ScalenetError, match="not the published file"):
        download(pets(served), part)
    assert not part.exists()
    assert len(served.asked) == 1


def test_a_part_with_wrong_bytes_is_fetched_anew_once(served: Web, part: Path) -> None:
    part.write_bytes(bytes(500_000))
    download(pets(served), part)
    assert part.read_bytes() == DATA
    assert ranges(served) == ["bytes=500000-", None]


def test_an_error_page_sent_as_a_success_is_refused_before_it_is_written(served: Web, part: Path) -> None:
    served.always = Fault(body=b"<html>gone</html>")
    with pytest.raises(ScalenetError, match="it offers 17 bytes where the published file has 700001"):
        download(pets(served), part)
    assert not part.exists()


def test_a_changed_file_is_refused_before_anything_is_appended(served: Web, part: Path) -> None:
    part.write_bytes(DATA[:500_000])
    served.always = Fault(body=DATA + b"more")
    with pytest.raises(ScalenetError, match="it offers 700005 bytes"):
        download(pets(served), part)
    assert part.read_bytes() == DATA[:500_000]


def test_more_than_was_published_is_refused_where_nothing_was_stated(served: Web, part: Path) -> None:
    served.always = Fault(body=DATA + b"more", unstated=True)
    with pytest.raises(ScalenetError, match="sends more than the 700001 bytes"):
        download(pets(served), part)


def test_a_part_longer_than_the_file_starts_over(served: Web, part: Path) -> None:
    part.write_bytes(DATA + b"more")
    download(pets(served), part)
    assert part.read_bytes() == DATA
    assert ranges(served) == [None]


def test_a_range_that_cannot_be_served_starts_over(served: Web, part: Path) -> None:
    part.write_bytes(DATA[:500_000])
    served.faults = [Fault(status=416)]
    download(pets(served), part, pauses=AT_ONCE)
    assert part.read_bytes() == DATA
    assert ranges(served) == ["bytes=500000-", None]


@pytest.mark.parametrize("stated", ["bytes 600000-700000/700001", "pages 1-2/3", "bytes 500000-700000"])
def test_a_part_that_was_not_asked_for_is_refused(stated: str, served: Web, part: Path) -> None:
    part.write_bytes(DATA[:500_000])
    served.always = Fault(headers={"Content-Range": stated})
    with pytest.raises(ScalenetError, match="it sends"):
        download(pets(served), part)
    assert part.read_bytes() == DATA[:500_000]


def test_ctrl_c_leaves_what_has_come_to_be_resumed(served: Web, part: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(pets(served), part, stop)
    assert part.read_bytes() == DATA[: 2 * fetch.BLOCK]
    download(pets(served), part)
    assert part.read_bytes() == DATA
    assert ranges(served) == [None, f"bytes={2 * fetch.BLOCK}-"]


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_server(served: Web, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        download(pets(served), tmp_path / "nowhere" / "pets.zip.part")
    assert len(served.asked) == 1


def test_a_file_matches_by_size_and_by_sum(tmp_path: Path) -> None:
    file = tmp_path / "pets.zip"
    remote = Remote(("http://a.org/pets.zip",), len(DATA), SUM)
    assert not matches(file, remote)
    for data, same in ((DATA, True), (DATA[:-1], False), (DATA[:-1] + b"x", False)):
        file.write_bytes(data)
        assert matches(file, remote) is same
