"""What a search found, by its confirmation runs alone: search-phase scores are selected and decide nothing.

Where a surface guided the search, all runs are such runs, and candidates are compared through a surface as they were
then: who got few seeds is known by its neighbours' as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from scalenet.coefficients import Rival
from scalenet.comparison import (
    Comparison,
    FloatArray,
    Layout,
    at_equal_cost,
    connected,
    fit,
    with_a_control,
    with_the_best,
)
from scalenet.cost import CostName
from scalenet.errors import ScalenetError
from scalenet.landscape import picked, searched
from scalenet.pooling import pooled
from scalenet.racing import final_level
from scalenet.wording import direction, is_baseline, is_landmark, method, notes, sentence

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import TrialRecord
    from scalenet.space import SearchSpace

LEVEL = 0.95
CLEAR_OF_CHANCE = 5.0  # noise standard deviations
NoiseSource = Literal["confirmation", "replicates", "surface", "none"]  # surface: repeats, and what it misses


@dataclass(frozen=True)
class Noise:
    """The standard deviation of one run's top1 between repeats, and where it was seen."""

    sd: float
    df: int
    source: NoiseSource


@dataclass(frozen=True)
class Gain:
    """A difference of top1; `margin` is half of its 95 % interval, None without a noise estimate.

    Where the data picked what is compared (the best), the interval allows for the picking.
    """

    value: float
    margin: float | None


@dataclass(frozen=True)
class Estimate:
    """A confirmed candidate: top1 in [0, 1] as over all seeds alike, and `adjusted` to the target's cost.

    Where candidates are compared through a surface both are its predictions, in which all runs have a say.
    """

    key: str
    label: str
    runs: int
    mean: float
    adjusted: float
    error: float | None  # standard error of `mean`, seeds apart; through a surface, of the prediction less all's mean
    behind: float  # the best's adjusted top1 less this one's
    margin: float | None  # `behind` from which it counts as behind
    tied: bool  # not told apart from the best


@dataclass(frozen=True)
class Verdict:
    """The answer of a search."""

    winner: str  # key
    tied_set: tuple[str, ...]  # keys, the winner first; one of them is the best with 95 % confidence
    estimates: tuple[Estimate, ...]  # the best first
    baseline: Estimate | None
    noise_sd: float | None
    noise_df: int | None
    noise_source: NoiseSource
    slope: Gain | None  # top1 per doubling of cost, from the baseline to the candidates' mean
    growth: float  # cost of the confirmed candidates over the baseline's, geometric mean
    doubling: Gain | None  # the candidates' mean less the baseline; where a surface guided, with the first seed alone
    direction: Gain | None  # the best less the candidates' mean, at equal cost
    pick: str | None  # key of what the search alone would have answered, settled before any confirmation run
    rivals: tuple[Rival, ...]  # the named points, against it; without a search phase, against the winner
    by_luck: float | None  # what `direction` would be on average if all candidates were equally good
    chance: float | None  # 1 / classes
    above_chance: bool | None  # the winner is, by five noise_sd; without noise only False can be said
    seeds: tuple[int, ...]
    sentence: str
    method: str
    notes: tuple[str, ...]


def decide(
    candidates: Sequence[Candidate],
    trials: Sequence[TrialRecord],
    *,
    num_classes: int | None = None,
    target: float = 2.0,
    cost: CostName = "flops",
    guided: bool = False,
    level: float = LEVEL,
) -> Verdict | None:
    """The verdict of a run, or None while no candidate but the baseline has a finished confirmation run.

    Args:
        candidates: what was proposed, the baseline (named "baseline") among them.
        trials: all that was trained; what was judged on the held-out part decides.
        num_classes: for the comparison with chance; left out without.
        target: cost over the baseline's at which scores are compared.
        cost: what that is of, for the wording.
        guided: whether a surface said who got further seeds; candidates are then compared through one (`pooling`).
        level: of the tied set; more than LEVEL where a race has spent a part of the error (`racing.final_level`).

    Raises:
        ScalenetError: a trial of a candidate that is not among `candidates`.
    """
    by_key = {candidate.key: candidate for candidate in candidates}
    if strangers := sorted({trial.key for trial in trials} - by_key.keys()):
        raise ScalenetError(f"trials of {', '.join(strangers)}: no such candidate in the records.")
    scores, apart = _comparable(_confirmed(trials), by_key)
    keys = tuple(dict.fromkeys(key for key, _ in scores if not is_baseline(by_key[key])))
    if not keys:
        return None
    baseline = next((key for key, _ in scores if is_baseline(by_key[key])), None)
    layout = _reordered(fit(scores), (*keys, *([baseline] if baseline else [])))
    baselines = {key for key, candidate in by_key.items() if is_baseline(candidate)}
    own = {cell: score for cell, score in scores.items() if cell[0] in keys}
    noise = _noise(own, trials, baselines)
    growth = {key: math.log2(by_key[key].ratio) for key in keys}
    runs = Counter(key for key, _ in scores)
    moved = at_equal_cost(layout, growth, baseline, target)
    found, rise = moved.layout, moved.slope
    if guided and noise is not None:
        found, noise = _through_a_surface(found, own, noise, by_key)
    through = noise is not None and noise.source == "surface"
    adjusted, spread = found.means, found.covariance
    centred = np.eye(len(keys)) - 1 / len(keys)
    own_errors = np.sqrt(np.diag(centred @ spread @ centred)) if through else [1 / math.sqrt(runs[key]) for key in keys]
    shift = layout.means[: len(keys)] - moved.layout.means  # from the target's cost back to each one's own
    gain = np.append(np.full(len(keys), 1 / len(keys)), -1.0)  # the candidates' mean less the baseline
    compared = with_the_best(adjusted, spread, noise.sd**2, noise.df, level) if noise else [None] * len(keys)
    pick = picked(trials, by_key, keys, target)
    of_gain = _before_the_first_choice(scores, layout) if through else layout
    error_of = dict(zip(keys, own_errors, strict=True))

    def estimate(key: str, mean: float, score: float, told: Comparison | None, tied: bool) -> Estimate:
        return Estimate(
            key=key,
            label=direction(by_key[key]),
            runs=runs[key],
            mean=mean,
            adjusted=score,
            error=noise.sd * float(error_of.get(key, 1 / math.sqrt(runs[key]))) if noise else None,
            behind=float(adjusted.max()) - score,
            margin=told.margin if told else None,
            tied=tied,
        )

    estimates = sorted(
        (
            estimate(key, float(score + more), float(score), told, tied=told is None or told.tied)
            for key, score, more, told in zip(keys, adjusted, shift, compared, strict=True)
        ),
        key=lambda e: (-e.adjusted, e.key),
    )
    winner = estimates[0]
    at_baseline = float(layout.means[-1])
    reference = estimate(baseline, at_baseline, at_baseline, None, tied=False) if baseline else None
    tied_set = (*(e.key for e in estimates if e.tied), *apart)
    chance = 1 / num_classes if num_classes else None
    clear = _clear(winner.mean, chance, noise) if chance is not None else None
    lead = (np.arange(len(keys)) == adjusted.argmax()) - 1 / len(keys)  # the best less the mean
    return Verdict(
        winner=winner.key,
        tied_set=tied_set,
        estimates=tuple(estimates),
        baseline=reference,
        noise_sd=noise.sd if noise else None,
        noise_df=noise.df if noise else None,
        noise_source=noise.source if noise else "none",
        slope=_gain(rise, layout, noise) if rise is not None else None,
        growth=float(2 ** np.mean(list(growth.values()))),
        doubling=_gain(gain, of_gain, noise) if baseline else None,
        direction=_gain(lead, found, noise, picked_from=len(keys)) if len(keys) > 1 else None,
        pick=pick,
        rivals=_rivals(by_key, found, winner.key if guided else pick, noise, picked=guided),
        by_luck=_expected_lead(spread, noise) if noise and len(keys) > 1 else None,
        chance=chance,
        above_chance=clear,
        seeds=tuple(sorted({seed for _, seed in scores})),
        sentence=sentence(
            by_key=by_key,
            estimates=estimates,
            tied_set=tied_set,
            baseline=reference,
            noise=noise,
            chance=chance if clear is False else None,
        ),
        method=method(
            scores, estimates, noise, float(rise @ layout.means) if rise is not None else None, target, cost, level
        ),
        notes=tuple(notes(by_key, trials, noise, reference, apart)),
    )


def decide_for(
    space: SearchSpace, candidates: Sequence[Candidate], trials: Sequence[TrialRecord], *, num_classes: int | None
) -> Verdict | None:
    """The verdict of a run of `space`; see `decide`."""
    return decide(
        candidates,
        trials,
        num_classes=num_classes,
        target=space.target,
        cost=space.cost,
        guided=space.sampler == "guided",
        level=final_level(space.confirm.seeds) if space.racing else LEVEL,
    )


def is_decisive(trial: TrialRecord) -> bool:
    """Whether a trial was judged on the part that only confirmation runs read."""
    return trial.judge == "held"


def _confirmed(trials: Iterable[TrialRecord]) -> dict[tuple[str, int], float]:
    """top1 of each finished confirmation run, by candidate and seed; a repeated run counts once, the last."""
    return {
        (trial.key, trial.seed): trial.top1
        for trial in trials
        if is_decisive(trial) and trial.state == "complete" and trial.top1 is not None
    }


def _comparable(
    scores: Mapping[tuple[str, int], float], by_key: Mapping[str, Candidate]
) -> tuple[dict[tuple[str, int], float], tuple[str, ...]]:
    """The scores of the largest group linked by shared seeds, and the candidates outside it."""
    groups = [group for group in connected(list(scores)) if any(not is_baseline(by_key[key]) for key in group)]
    kept = groups[0] if groups else frozenset()
    apart = dict.fromkeys(key for key, _ in scores if key not in kept and not is_baseline(by_key[key]))
    return {cell: score for cell, score in scores.items() if cell[0] in kept}, tuple(apart)


def _reordered(layout: Layout, keys: tuple[str, ...]) -> Layout:
    at = [layout.keys.index(key) for key in keys]
    return Layout(keys, layout.means[at], layout.covariance[np.ix_(at, at)], layout.residual, layout.df)


def _noise(
    confirmed: Mapping[tuple[str, int], float], trials: Iterable[TrialRecord], baselines: Collection[str]
) -> Noise | None:
    """From the residuals of the confirmed candidates' layout, or else from what the search has repeated."""
    layout = fit(confirmed)
    # Repeats that agree to the last digit (a part of very few pictures) say nothing about noise.
    if layout.df > 0 and layout.residual > 1e-18:
        return Noise(math.sqrt(layout.residual / layout.df), layout.df, "confirmation")
    repeated = {cell: score for cell, score in searched(trials).items() if cell[0] not in baselines}
    if not repeated:
        return None
    layout = fit(repeated)
    if layout.df > 0 and layout.residual > 1e-18:
        return Noise(math.sqrt(layout.residual / layout.df), layout.df, "replicates")
    return None


def _through_a_surface(
    moved: Layout, own: Mapping[tuple[str, int], float], noise: Noise, by_key: Mapping[str, Candidate]
) -> tuple[Layout, Noise]:
    """The means at equal cost as a surface through all of them predicts them, and the noise with what it misses.

    As they are where too few are left for a surface. Without repeats there is no noise to begin with, and nothing is
    predicted: what the surface misses might then be the candidates' own.
    """
    repeats = fit(own)
    layout = replace(moved, residual=repeats.residual, df=repeats.df)
    found = pooled(layout, {key: by_key[key].realised for key in moved.keys})
    return found, noise if found is layout else Noise(math.sqrt(found.residual / found.df), found.df, "surface")


def _before_the_first_choice(scores: Mapping[tuple[str, int], float], layout: Layout) -> Layout:
    """The fit of the first seed alone, which everybody had; `layout`, of all seeds, where somebody lacks it.

    Who has further ones was chosen by luck too, and comes out lower with them. Seeds apart, that lowers the level of
    these seeds and so raises the baseline: with four of them, of candidates all alike, its 95 % interval held in 84 %.
    """
    first = min(seed for _, seed in scores)
    found = {cell: score for cell, score in scores.items() if cell[1] == first}
    return _reordered(fit(found), layout.keys) if len(found) == len(layout.keys) else layout


def _rivals(
    by_key: Mapping[str, Candidate], found: Layout, control: str | None, noise: Noise | None, *, picked: bool
) -> tuple[Rival, ...]:
    """The named points against `control`, by Dunnett's comparison with it.

    Args:
        picked: by the same runs, so that the intervals must cover the picking: each named point is the control of a
            comparison with all candidates, whichever is then read, and the named points share the error (Bonferroni).
    """
    landmarks = [key for key in found.keys if is_landmark(by_key[key])]
    named = [key for key in landmarks if key != control]
    if control is None or noise is None or not named:
        return ()
    if not picked:
        part = _reordered(found, (control, *named))
        compared = dict(
            zip(part.keys, with_a_control(part.means, part.covariance, noise.sd**2, noise.df, 0, LEVEL), strict=True)
        )
        told = [(key, compared[key].value, compared[key].margin) for key in named]
    else:
        level = 1 - (1 - LEVEL) / len(landmarks)
        at = found.keys.index(control)
        told = []
        for key in named:
            place = found.keys.index(key)
            less = with_a_control(found.means, found.covariance, noise.sd**2, noise.df, place, level)[at]
            told.append((key, -less.value, less.margin))
    return tuple(
        Rival(key, direction(by_key[key]), behind, margin, abs(behind) > margin) for key, behind, margin in told
    )


def _clear(top1: float, chance: float, noise: Noise | None) -> bool | None:
    if noise is None:  # one run may be above chance by luck, but not learned and below it
        return None if top1 > chance + 1e-9 else False
    return top1 - chance >= CLEAR_OF_CHANCE * noise.sd


def _gain(contrast: FloatArray, layout: Layout, noise: Noise | None, picked_from: int = 1) -> Gain:
    """`contrast` of the means. One that the data picked from several is covered as all of them are (Bonferroni)."""
    value = float(contrast @ layout.means)
    if noise is None:
        return Gain(value, None)
    error = noise.sd * math.sqrt(max(0.0, float(contrast @ layout.covariance @ contrast)))
    return Gain(value, error * float(stats.t.ppf(1 - (1 - LEVEL) / (2 * picked_from), noise.df)))


def _expected_lead(covariance: FloatArray, noise: Noise) -> float:
    """E(largest - mean) of normals with the mean variance of a difference that these have: equal truths, luck alone."""
    k = len(covariance)
    centred = np.eye(k) - 1 / k
    sd = noise.sd * math.sqrt(float(np.trace(centred @ covariance @ centred)) / (k - 1))
    x = np.linspace(-8, 8, 4001)
    density = k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1)
    return sd * float(np.sum(x * density) * (x[1] - x[0]))
