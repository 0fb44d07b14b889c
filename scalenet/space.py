"""What a search does, as one frozen value: default.yaml + <plugin>.yaml + `--space FILE` + `--set key=value`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from scalenet.cost import CostName
from scalenet.data import DataRequest
from scalenet.errors import ScalenetError
from scalenet.mixture import point_name
from scalenet.plain import from_plain, parse_yaml, read_yaml
from scalenet.recipe import Recipe
from scalenet.shares import NOTHING, Shares

if TYPE_CHECKING:
    from scalenet.runs import Judge

Sampler = Literal["grid", "guided", "tpe", "gp", "random", "named"]
Scheduler = Literal["none", "asha"]
LawName = Literal["measured", "paper"]


@dataclass(frozen=True)
class Confirm:
    """The runs that decide: fresh seeds, judged on pictures that nothing before them has read."""

    best: int = 3  # of the search phase; the corners, equal shares and 1.2/1.1/1.15 always join them
    seeds: int = 2

    def __post_init__(self) -> None:
        _at_least("confirm.best", self.best, 1)
        _at_least("confirm.seeds", self.seeds, 1)


@dataclass(frozen=True)
class Latency:
    """How a forward pass is timed where latency is the cost: as the network will be used."""

    batch_size: int | None = None  # pictures of a pass; None: one, or of small networks enough to keep the device busy
    threads: int = 1  # of the CPU

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            _at_least("latency.batch_size", self.batch_size, 1)
        _at_least("latency.threads", self.threads, 1)


@dataclass(frozen=True)
class SearchSpace:
    """A search, resolved: every key of the YAML, nothing implied."""

    variant: str = "micro"
    resolution: int | None = None  # the baseline's input side in pixels; None: the variant's own
    data: DataRequest = field(default_factory=DataRequest)
    target: float = 2.0  # measured cost of a candidate over the baseline's
    cost: CostName = "flops"  # what `target` is a multiple of
    latency: Latency = field(default_factory=Latency)
    law: LawName = "measured"
    sampler: Sampler = "grid"
    lattice: int = 5  # m of the {3, m} simplex lattice of grid and guided: (m + 1)(m + 2) / 2 points
    trials: int = 21  # points drawn by tpe, gp or random
    points: tuple[Shares, ...] = ()  # further points: proposed, and always confirmed
    seeds: int = 1  # of the search phase; every candidate is trained with each of them
    adaptive: int = 0  # points added near the surface's optimum once the grid's first seed is through
    racing: bool = False  # who falls behind the best gets no further seeds, in the search phase and in confirmation
    replicates: int = 1  # further seeds with which the corners and the centre (equal shares) are trained again
    scheduler: Scheduler = "none"
    confirm: Confirm = field(default_factory=Confirm)
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    threads: int | None = None  # of one trial, part of the result as sums depend on their order; None: timed, or 1

    def __post_init__(self) -> None:
        if self.resolution is not None:
            _at_least("resolution", self.resolution, 16)
        if not self.target > 1:
            raise ScalenetError(f"target must be above 1 (cost of a candidate over the baseline's), got {self.target}")
        for key, least in (
            ("lattice", 1),
            ("trials", 1),
            ("seeds", 1),
            ("replicates", 0),
            ("adaptive", 0),
            ("seed", 0),
        ):
            _at_least(key, getattr(self, key), least)
        if self.adaptive and self.sampler != "grid":
            raise ScalenetError(
                f"adaptive must be 0 with the sampler {self.sampler} (it refines a grid), got {self.adaptive}"
            )
        if not self.has_search_phase:
            self._refuse_a_search_phase()
        if NOTHING in self.points:
            raise ScalenetError("points must be directions: shares of 0, 0, 0 grow nothing")
        named = [point_name(shares) for shares in self.points]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise ScalenetError(f"points must differ in a hundredth of a share at least, got two of {twice}")
        if self.threads is not None:
            _at_least("threads", self.threads, 1)

    @property
    def has_search_phase(self) -> bool:
        """Whether candidates are scored on select before some are confirmed; else all is trained as confirmation is."""
        return self.sampler not in ("named", "guided")

    @property
    def has_lattice(self) -> bool:
        """Whether the simplex lattice is proposed beside the named points."""
        return self.sampler in ("grid", "guided")

    @property
    def draws(self) -> int:
        """Points that a sampler draws while the search goes on."""
        return self.trials if self.sampler in ("tpe", "gp", "random") else 0

    @property
    def mapped(self) -> Judge:
        """On which part the runs are judged that the response surface is fitted to."""
        return "held" if self.sampler == "guided" else "select"

    def _refuse_a_search_phase(self) -> None:
        """Refuses what can only be said of a search phase; `replicates` and `confirm.best`, which have defaults, wait.

        Raises:
            ScalenetError: it was said.
        """
        none = f"with the sampler {self.sampler} (it has no search phase)"
        if self.seeds != 1:
            raise ScalenetError(f"seeds must be 1 {none}, got {self.seeds}: confirm.seeds are all that it trains with")
        if self.scheduler != "none":
            raise ScalenetError(f"scheduler must be none {none}, got {self.scheduler}")
        if self.sampler != "guided":
            return
        if self.racing:
            raise ScalenetError("racing must be false with the sampler guided (its surface says who goes on), got true")
        if self.confirm.seeds < 2:
            raise ScalenetError(
                "confirm.seeds must be at least 2 with the sampler guided (with one seed nothing is repeated, so the "
                f"noise stays unknown), got {self.confirm.seeds}"
            )


def resolve(
    plugin: str, file: Path | None = None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> SearchSpace:
    """The space of a search for `plugin`; later sources override earlier ones key by key.

    Args:
        plugin: the architecture's name; its own YAML is read where the package has one.
        file: `--space`, a YAML file that says only what differs, or the name of a shipped one (smoke).
        settings: `--set` texts, "recipe.epochs=20"; the value is read as YAML.
        flags: values of the command's own flags by dotted key; None means not given.

    Raises:
        ScalenetError: an unknown key, a wrong type or a value out of range, with the file or flag named.
    """
    plain: dict[str, Any] = {}
    shipped = files("scalenet_searchspaces")
    for name in ("default.yaml", f"{plugin}.yaml"):
        source = shipped / name
        if source.is_file():
            plain = _merge(plain, parse_yaml(source.read_text(encoding="utf-8")) or {}, name)
    told = _read(file) if file is not None else {}
    if _names_data(told, settings, flags or {}):
        plain["data"] = {**plain.get("data", {}), "subset": None}  # the shipped subset is of the shipped pictures
    if file is not None:
        plain = _merge(plain, told, str(file))
        from_plain(SearchSpace, plain, str(file))
    for setting in settings:
        plain = _merge(plain, _parse(setting), f"--set {setting}")
        from_plain(SearchSpace, plain, f"--set {setting}")
    for key, value in (flags or {}).items():
        if value is not None:
            plain = _merge(plain, _nest(key.split("."), value), key)
    return from_plain(SearchSpace, plain, "search space")


def _names_data(told: Any, settings: Sequence[str], flags: Mapping[str, Any]) -> bool:
    """Whether anything but the shipped files says which pictures."""
    own = told.get("data") if isinstance(told, Mapping) else None
    in_file = isinstance(own, Mapping) and "source" in own
    return in_file or flags.get("data.source") is not None or any(s.startswith("data.source=") for s in settings)


def given_keys(
    file: Path | None = None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> frozenset[str]:
    """The dotted keys that the user named, by what `resolve` takes: what nothing else may change."""
    plain: dict[str, Any] = _merge({}, _read(file), str(file)) if file is not None else {}
    for setting in settings:
        plain = _merge(plain, _parse(setting), f"--set {setting}")
    named = [key for key, value in (flags or {}).items() if value is not None]
    return frozenset([*_dotted(plain), *named])


def for_training(
    folder: Path, plugin: str, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> tuple[DataRequest, Recipe]:
    """Pictures and recipe of a longer training: those of the search in `folder` (its space.yaml), else the default's.

    `settings` are keys of the recipe; `flags` as for `resolve`. How it is computed is left open again: what
    was settled for the search's trials was settled on its machine, which need not be this one.
    """
    own = folder / "space.yaml"
    texts = [f"recipe.{key}=auto" for key in ("precision", "memory_format", "execution")]
    texts += [f"recipe.{setting}" for setting in settings]
    if flags and flags.get("data.source") is not None:  # other pictures: the search's subset and root were not for them
        texts += ["data.subset=null", "data.root=null", "data.clean=false"]
    space = resolve(plugin, own if own.is_file() else None, texts, flags)
    return space.data, space.recipe


def _read(file: Path) -> Any:
    """A file of the user's, or a shipped one by its bare name."""
    shipped = files("scalenet_searchspaces") / f"{file}.yaml"
    if not file.exists() and file.name == str(file) and shipped.is_file():
        return parse_yaml(shipped.read_text(encoding="utf-8")) or {}
    return read_yaml(file) or {}


def _parse(setting: str) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ScalenetError(f"--set {setting!r}: must be KEY=VALUE, such as recipe.epochs=20.")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ScalenetError(f"--set {setting!r}: the value is not valid YAML.") from error
    return _nest(key.strip().split("."), value)


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    for step in reversed(path):
        value = {step: value}
    return dict(value)


def _dotted(plain: Mapping[str, Any]) -> Iterator[str]:
    for key, value in plain.items():
        yield from (f"{key}.{inner}" for inner in _dotted(value)) if isinstance(value, Mapping) else [key]


def _merge(base: Mapping[str, Any], over: Any, where: str) -> dict[str, Any]:
    """`over` on `base`, mapping by mapping; everything else is replaced whole."""
    if not isinstance(over, Mapping):
        raise ScalenetError(f"{where}: must be a mapping of keys to values, got {over!r}.")
    merged = dict(base)
    for key, value in over.items():
        inner = base.get(key)
        merged[key] = _merge(inner, value, f"{where}: {key}") if isinstance(inner, Mapping) else value
    return merged


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ScalenetError(f"{key} must be at least {least}, got {value}")
