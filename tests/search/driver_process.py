"""A driver in a process of its own, to be interrupted and killed; its arguments are RUN PLACE WORKERS."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from scalenet.runs import RunDirectory
from scalenet.search import SearchInterrupted, search
from tests.search import fakes


def main(run: str, place: str, workers: str) -> int:
    job = fakes.job(Path(place), seconds=0.05)
    try:
        search(
            fakes.space(),
            fakes.candidates(),
            RunDirectory.open(Path(run)),
            job,
            workers=int(workers),
            run_trial=fakes.run_trial,
        )
    except SearchInterrupted as interrupted:
        print(interrupted.command, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    sys.exit(main(*sys.argv[1:]))
