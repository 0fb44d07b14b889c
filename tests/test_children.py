"""Processes that are told JSON and answer it; the modules that they run are written on the spot."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from scalenet.children import Child, ChildDied, answer, started, tell

Start = Callable[[str], AbstractContextManager[Child]]

TALKS = """
from scalenet.children import conversation
def main():
    told, reply = conversation()
    for value in told:
        print("by the way")
        reply(value)
"""
LAST_WORD = """
from pathlib import Path
from scalenet.children import conversation
def main():
    told, reply = conversation()
    file = next(told)
    reply("ready")
    for _ in told:
        pass
    Path(file).write_text("ended")
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A child whose module has the given text; `tmp_path` is where it is imported from."""

    def begun(text: str) -> AbstractContextManager[Child]:
        (tmp_path / "written_here.py").write_text(text)
        return started("written_here", path_with(tmp_path))

    return begun


def path_with(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def test_what_it_is_told_comes_back_and_what_it_prints_does_not(start: Start) -> None:
    values = [0, "na\u00efve\n\udcff", {"how": [True, None]}, math.inf]
    with start(TALKS) as child:
        for value in values:
            tell(child, value)
        assert [answer(child) for _ in values] == values


def test_it_knows_the_environment_and_what_is_added(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALENET_TEST", "seen")
    text = "import os\nfrom scalenet.children import conversation\n"
    text += "def main(): conversation()[1]([os.environ['SCALENET_TEST'], os.environ['PYTHONPATH']])"
    with start(text) as child:
        seen, path = answer(child)
    assert seen == "seen"
    assert path == path_with(Path(path.split(os.pathsep)[0]))["PYTHONPATH"]


def test_modules_beside_the_user_are_not_taken_for_others(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "random.py").write_text("raise SystemExit")
    monkeypatch.chdir(elsewhere)
    with start("import random\n" + TALKS) as child:
        tell(child, 1)
        assert answer(child) == 1


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit",
        "def main(): pass",
        "def main(): raise MemoryError",
        "import os\ndef main(): os.kill(os.getpid(), 9)",
    ],
    ids=["not begun", "ended", "raised", "killed"],
)
def test_one_that_died_neither_answers_nor_listens(start: Start, text: str) -> None:
    with start(text) as child:
        with pytest.raises(ChildDied, match=f"{child.pid}"):
            answer(child)
        child.wait(60)
        with pytest.raises(ChildDied, match=f"{child.pid}"):
            tell(child, "are you there?")


def test_one_that_dies_while_it_is_told_leaves_as_quietly(start: Start) -> None:
    with start("def main(): pass") as child:
        child.wait(60)
        assert child.stdin is not None
        child.stdin.write("never sent")  # and still there when the pipe is closed
    assert child.returncode == 0


def test_an_answer_that_is_no_json_is_none(start: Start) -> None:
    with start("def main(): print('42 pictures', flush=True); input()") as child, pytest.raises(ChildDied):
        answer(child)


def test_one_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("scalenet.children.sys.executable", str(tmp_path / "python"))
    with pytest.raises(ChildDied, match=r"stopwatch cannot be started \(No such file"), started("scalenet.stopwatch"):
        pass


def test_it_ends_with_the_context_whatever_it_is_doing(start: Start) -> None:
    busy = "import time\nfrom scalenet.children import conversation\n"
    busy += "def main(): conversation()[1]('busy'); time.sleep(20)"
    with start(busy) as child:
        assert answer(child) == "busy"
    assert child.returncode == -9
    with pytest.raises(KeyError), start(busy) as child:
        raise KeyError
    assert child.returncode == -9


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "written_here.py").write_text(LAST_WORD)
    file = tmp_path / "last word"
    parent = "import os, sys\nfrom scalenet.children import answer, started, tell\n"
    parent += "with started('written_here') as child: tell(child, sys.argv[1]); answer(child); os.kill(os.getpid(), 9)"
    environment = os.environ | path_with(tmp_path)
    assert subprocess.run([sys.executable, "-c", parent, str(file)], env=environment, check=False).returncode == -9
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.02)
