"""Python processes that are told lines of JSON on their standard input and answer by lines of JSON.

A child runs the `main` of a module of ours. It ends with its input, and so with its parent, however that one ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from subprocess import DEVNULL, PIPE
from typing import Any

Child = subprocess.Popen[str]


class ChildDied(RuntimeError):
    """A child could not be started, has ended, or has answered by something that is no JSON."""


@contextmanager
def started(module: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A process that runs `main()` of a module; ended, whatever it is doing, when the context is left.

    `environment` goes on top of this process's. What the child writes to its standard error is dropped.

    Raises:
        ChildDied: the system starts no more processes.
    """
    # Not `-m`, which would look for modules in the folder that the user happens to be in.
    start = f"import sys; sys.path[:] = [p for p in sys.path if p]; from {module} import main; main()"
    variables = {**os.environ, **(environment or {})}
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", start], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True, env=variables
        )
    except OSError as error:
        raise ChildDied(f"A process for {module} cannot be started ({error.strerror}).") from error
    with child:
        try:
            yield child
        finally:
            child.kill()
            assert child.stdin is not None
            with suppress(OSError):  # what it was not told any more
                child.stdin.close()


def tell(child: Child, value: object) -> None:
    """Tells the child one JSON value.

    Raises:
        ChildDied: nobody is there to hear it.
    """
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(value) + "\n")
        child.stdin.flush()
    except OSError as error:
        raise ChildDied(f"Process {child.pid} has ended.") from error


def answer(child: Child) -> Any:
    """The child's next answer, waited for.

    Raises:
        ChildDied: there will be none, or it is no JSON.
    """
    assert child.stdout is not None
    try:
        return json.loads(child.stdout.readline())
    except (OSError, ValueError) as error:
        raise ChildDied(f"Process {child.pid} has ended or answers nonsense.") from error


def conversation() -> tuple[Iterator[Any], Callable[[object], None]]:
    """For the child: the values that it is told, until there are no more, and the function that answers.

    What else the process prints is no answer: it goes to the standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    return map(json.loads, sys.stdin), reply
