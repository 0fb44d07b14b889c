from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalenet.errors import ScalenetError
from scalenet.search.lock import exclusive

HOLD = "import sys, time; from pathlib import Path; from scalenet.search.lock import exclusive\n"
HOLD += "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_the_second_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            refused = pytest.raises(ScalenetError, match=rf"{tmp_path.name} is in use by process {holder.pid}")
            with refused, exclusive(tmp_path):
                pass
        finally:
            holder.kill()
            holder.wait()
    with exclusive(tmp_path):  # a killed holder holds nothing
        assert (tmp_path / "driver.lock").read_text() == f"{os.getpid()}\n"


def test_it_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path):
            pass


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScalenetError, match="cannot be written"), exclusive(tmp_path / "no"):
        pass
