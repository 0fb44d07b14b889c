"""Running checks: several architectures at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch

from scalenet import plugins
from scalenet.architecture import Architecture
from scalenet.conformance import CHECKS, SLOW_CHECKS
from scalenet.conformance.values import Check, Violation
from scalenet.errors import one_line, unknown


@dataclass(frozen=True)
class Result:
    """One check of one architecture; `violation` is None where it held."""

    architecture: str
    check: str
    seconds: float
    violation: str | None


def select(names: Sequence[str], slow: bool = False) -> tuple[Check, ...]:
    """The checks of these names; none named: all of CHECKS and, with `slow`, SLOW_CHECKS.

    Raises:
        ScalenetError: a name that no check has.
    """
    known = {check.__name__: check for check in (*CHECKS, *SLOW_CHECKS)}
    for name in names:
        if name not in known:
            raise unknown("check", name, known, listed_as="Checks")
    return tuple(known[name] for name in names) if names else CHECKS + (SLOW_CHECKS if slow else ())


def check(arch: Architecture[Any], checks: Sequence[Check]) -> list[Result]:
    """All of `checks`, in order, whatever the ones before said."""
    results = []
    for each in checks:
        start = time.perf_counter()
        violation = None
        try:
            each(arch)
        except Violation as error:
            violation = str(error)
        except Exception as error:  # a plugin may raise anything; the other checks go on
            violation = f"raised {one_line(error)}"
        results.append(Result(arch.name, each.__name__, time.perf_counter() - start, violation))
    return results


def check_installed(names: Sequence[str], checks: Sequence[Check], workers: int) -> Iterator[list[Result]]:
    """The results of each installed architecture of `names`, as they come; `workers` architectures at a time."""
    told = [each.__name__ for each in checks]
    if workers < 2 or len(names) < 2:
        yield from (_check_named(name, told) for name in names)
        return
    # spawn: a forked process would inherit torch's threads in whatever state they are
    with ProcessPoolExecutor(min(workers, len(names)), multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_check_named, name, told, one_thread=True) for name in names]):
            yield future.result()


def _check_named(name: str, checks: Sequence[str], one_thread: bool = False) -> list[Result]:
    if one_thread:
        torch.set_num_threads(1)
    return check(plugins.architecture(name), select(checks))
