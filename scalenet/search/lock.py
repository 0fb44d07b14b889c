"""One driver per run: an exclusive lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scalenet.errors import ScalenetError


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds `directory`/driver.lock while the block runs. Linux and macOS.

    The file stays behind, empty of meaning once nobody holds it. Where a worker was forked from a driver that has been
    killed, the lock is free when that worker is gone too.

    Raises:
        ScalenetError: another process holds it, or the directory cannot be written to.
    """
    file = directory / "driver.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ScalenetError(f"{file}: cannot be written ({error.strerror or error}).") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise ScalenetError(
                f"Run {directory} is in use by process {holder}; wait for it, or end it and resume."
            ) from None
        except OSError as error:
            raise ScalenetError(f"{file}: this file system cannot lock files ({error.strerror or error}).") from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
