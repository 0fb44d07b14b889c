from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scalenet.blas import THREADS
from scalenet.environment import cpus

PRODUCT = """
import os
from scalenet.blas import one_thread
one_thread()
import numpy, scipy.linalg
numpy.ones((500, 500)) @ numpy.ones((500, 500))
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
@pytest.mark.skipif(cpus() < 2, reason="OpenBLAS starts no threads on one CPU")
@pytest.mark.parametrize("own", [{}, {THREADS: "2"}])
def test_products_stay_in_their_thread_unless_the_user_says_otherwise(own: dict[str, str]) -> None:
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    told = subprocess.run([sys.executable, "-c", PRODUCT], env=free | own, capture_output=True, text=True, check=True)
    threads, variable = told.stdout.split()
    assert (threads == "1") == (not own)
    assert variable == own.get(THREADS, "None")  # processes started later are not told
