"""`scalenet plugins new`: an installable package that holds one architecture and passes every check."""

from __future__ import annotations

import re
from pathlib import Path

from scalenet import plugins
from scalenet.errors import ScalenetError

FILES = {  # in the package -> its template
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "scalenet_{name}.py": "module.py.j2",
    "test_{name}.py": "test.py.j2",
}


def new_plugin(name: str, folder: Path) -> list[Path]:
    """Writes the package into `folder`, which must not exist yet or be empty; returns its files.

    Raises:
        ScalenetError: no name for an architecture, one that is taken, or a folder in use.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise ScalenetError(
            f"An architecture's name must be lower-case letters, digits and _, beginning with a letter, got {name!r}."
        )
    if name in plugins.architectures():
        raise ScalenetError(f"The architecture {name!r} is installed already; take another name.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScalenetError(f"{folder}: is there already; take another --out.")
    # Code, not HTML: nothing to escape, and the one variable is a checked name.
    environment = Environment(
        loader=PackageLoader("scalenet", "templates/plugin"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    title = "".join(part.capitalize() for part in name.split("_"))
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, template in FILES.items():
            text = environment.get_template(template).render(name=name, title=title, dashed=name.replace("_", "-"))
            written.append(folder / file.format(name=name))
            written[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScalenetError(f"The folder {folder} cannot be written ({error.strerror or error}).") from error
    return written
