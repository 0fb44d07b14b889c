"""What a run was made with: versions, the state of the checkout, the plugin's origin, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalenet.plugins import Origin

FORMAT = 1  # of a run directory: raised when the meaning of one of its files changes
PACKAGES = ("scalenet", "torch", "torchvision", "ray", "optuna", "numpy", "scipy")


@dataclass(frozen=True)
class GitState:
    """The checkout that scalenet was imported from."""

    commit: str
    dirty: bool


@dataclass(frozen=True)
class PluginOrigin:
    """The package that brought the architecture."""

    package: str
    version: str
    module: str


@dataclass(frozen=True)
class Environment:
    """What a run was made with: env.json, which also marks a directory as a run's."""

    schema_version: int
    plugin: str
    started: str  # local time, ISO 8601
    python: str
    platform: str
    cpus: int
    versions: dict[str, str | None]  # None: not installed
    git: GitState | None = None
    origin: PluginOrigin | None = None
    device: str | None = None


def environment(plugin: str, *, origin: Origin | None = None, device: str | None = None) -> Environment:
    """What this process runs on; imports none of the packages whose versions it names."""
    return Environment(
        schema_version=FORMAT,
        plugin=plugin,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpus=cpus(),
        versions={package: _version(package) for package in PACKAGES},
        git=_git_state(Path(__file__)),
        origin=PluginOrigin(origin.package, origin.version, origin.module) if origin else None,
        device=device,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpus() -> int:
    """The CPUs this process may use, not the machine's."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git_state(file: Path) -> GitState | None:
    """The state of the checkout that `file` is tracked in; None for an installed copy or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # an environment inside someone's repository is not its code
        return GitState(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return None
