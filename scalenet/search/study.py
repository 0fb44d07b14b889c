"""The queue and the memory of a search: two Optuna studies in one storage, which only the driver writes.

"search" holds the candidates, enqueued or sampled, with their shares as parameters; "repeats" holds the baseline, the
replicates and the confirmation, which have nothing to choose. Everything else is in user attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from scalenet.errors import ScalenetError
from scalenet.shares import Shares

Which = Literal["search", "repeats"]
Ended = Literal["complete", "pruned", "failed"]
RowState = Literal["waiting", "running", "complete", "pruned", "failed"]

# The unit square onto the simplex, (u, v) -> depth 1 - sqrt(u), width sqrt(u) (1 - v), resolution sqrt(u) v: two
# independent uniform draws give shares uniform on the triangle (its area between depth d and 1 is (1 - d)^2).
SQUARE: dict[str, BaseDistribution] = {
    "beyond_depth": FloatDistribution(0.0, 1.0),  # u
    "to_resolution": FloatDistribution(0.0, 1.0),  # v
}
_STATES: dict[TrialState, RowState] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def to_params(shares: Shares) -> dict[str, float]:
    """The point of the unit square that stands for `shares`; at the depth corner, where a whole edge does, v is 0."""
    beyond = 1.0 - shares.depth
    return {
        "beyond_depth": min(1.0, max(0.0, beyond * beyond)),
        "to_resolution": min(1.0, max(0.0, shares.resolution / beyond)) if beyond > 1e-12 else 0.0,
    }


def to_shares(params: Mapping[str, float]) -> Shares:
    """The shares that a point of the unit square stands for."""
    beyond = math.sqrt(params["beyond_depth"])
    return Shares(
        depth=1.0 - beyond,
        width=beyond * (1.0 - params["to_resolution"]),
        resolution=beyond * params["to_resolution"],
    )


@dataclass(frozen=True)
class Row:
    """What the storage knows of one trial."""

    number: int
    state: RowState
    params: dict[str, float]
    attrs: dict[str, Any]


class Ledger:
    """The two studies of one run. Writes go through at once: what was told survives the driver's death.

    Args:
        url: a SQLAlchemy URL, such as sqlite:////path/study.db or postgresql://host/name.
        prefix: put before the studies' names, which must be one run's own in a storage shared by several.
        sampler: "tpe", "gp" or "random" for `ask`; unused by a grid and by named points alone.
        seed: of the sampler.

    Raises:
        ScalenetError: the storage cannot be opened.
    """

    def __init__(self, url: str, *, prefix: str = "", sampler: str = "random", seed: int = 0) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sampler, self.seed = sampler, seed
        self.guided: int | None = None  # points from this number on are uniform, whatever the sampler
        try:
            # Postgres and others wait for a lock by themselves; SQLite gives up after 5 s, less than a busy disk takes.
            options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            self.url = sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            self._studies = {
                name: optuna.create_study(
                    study_name=f"{prefix}{name}",
                    storage=self._storage,
                    direction="maximize",
                    sampler=optuna.samplers.RandomSampler(seed=0),
                    load_if_exists=True,
                )
                for name in ("search", "repeats")
            }
            self._ids = {name: self._storage.get_study_id_from_name(f"{prefix}{name}") for name in self._studies}
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
            text = str(error).strip().splitlines()[0]
            raise ScalenetError(f"The study storage {getattr(self, 'url', url)} cannot be opened: {text}") from error

    def close(self) -> None:
        """Lets go of the storage's connections."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def settings(self) -> dict[str, Any]:
        """What `remember` was given; empty in a new study."""
        found = self._studies["search"].user_attrs.get("settings", {})
        return dict(found)

    def remember(self, settings: Mapping[str, Any]) -> None:
        """Keeps what the search was started with, for the resumed one to be compared with."""
        self._studies["search"].set_user_attr("settings", dict(settings))

    def rows(self, which: Which) -> list[Row]:
        """All trials by number; the parameters of one that a dying driver left half-drawn are completed first."""
        found = self._frozen(which)
        if which == "search":
            for trial in found:
                if trial.state is TrialState.RUNNING and len(trial.params) < len(SQUARE):
                    self._draw(trial.number)
                    found = self._frozen(which)
        return [Row(t.number, _STATES[t.state], dict(t.params), dict(t.user_attrs)) for t in found]

    def enqueue(self, which: Which, attrs: Mapping[str, Any], shares: Shares | None = None) -> int:
        """Adds a waiting trial; returns its number. `Campaign` looks first whether it is there already."""
        number = len(self._frozen(which))
        self._studies[which].enqueue_trial(to_params(shares) if shares else {}, user_attrs=dict(attrs))
        return number

    def start(self, which: Which) -> int:
        """Marks the first waiting trial as running; returns its number."""
        return self._studies[which].ask(SQUARE if which == "search" else None).number

    def ask(self) -> tuple[int, Shares]:
        """A running trial at a point that the sampler chose, and its shares.

        Every draw has a fresh sampler, seeded from the search's seed and the trial's number: a sampler that lived on
        would start over when a run is resumed, and draw its first points again.
        """
        number = len(self._frozen("search"))
        self._studies["search"].sampler = self._fresh_sampler(number)
        trial = self._studies["search"].ask(SQUARE)
        return trial.number, to_shares(trial.params)

    def note(self, which: Which, number: int, **attrs: Any) -> None:
        """Sets attributes of a trial that has not ended."""
        for name, value in attrs.items():
            self._storage.set_trial_user_attr(self._trial_id(which, number), name, value)

    def end(
        self, which: Which, number: int, state: Ended, *, value: float | None, epoch: int, attrs: Mapping[str, Any]
    ) -> None:
        """Tells a running trial's outcome: COMPLETE with its value, PRUNED with its last one, or FAIL."""
        self.note(which, number, **attrs)
        study = self._studies[which]
        if state == "complete":
            study.tell(number, value)
        elif state == "pruned":
            # Optuna takes a pruned trial's value from its last report; tell(value, PRUNED) raises.
            if value is not None:
                self._storage.set_trial_intermediate_value(self._trial_id(which, number), epoch, value)
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, state=TrialState.FAIL)

    def _frozen(self, which: Which) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._ids[which], deepcopy=False)

    def _trial_id(self, which: Which, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._ids[which], number)

    def _draw(self, number: int) -> None:
        study = self._studies["search"]
        study.sampler = self._fresh_sampler(number)
        study.get_trials(deepcopy=False)  # Optuna's cache refuses parameters of a trial that it has not met
        trial = optuna.trial.Trial(study, self._trial_id("search", number))
        for name, distribution in SQUARE.items():
            limits = cast(FloatDistribution, distribution)
            trial.suggest_float(name, limits.low, limits.high)  # keeps what was drawn, fixed or not

    def _fresh_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.guided is not None and number >= self.guided:
            return optuna.samplers.RandomSampler(seed=seed)
        if self.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if self.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)
