"""NumPy's and SciPy's own matrix products, kept to one thread."""

from __future__ import annotations

import importlib
import os

THREADS = "OPENBLAS_NUM_THREADS"


def one_thread() -> None:
    """Imports NumPy and SciPy such that their OpenBLAS starts no threads; too late once they have been imported.

    A search's surfaces have some tens of rows. Shared among threads such products mostly wait for each other, on a
    machine whose CPUs train twelve times as long as they take alone. Torch, which has libraries of its own, the
    processes started from here and whoever has set the variable are left alone.
    """
    if THREADS in os.environ:
        return
    os.environ[THREADS] = "1"  # read when the libraries are loaded
    try:
        importlib.import_module("scipy.linalg")
    finally:
        del os.environ[THREADS]
