"""The verdict in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from scalenet.cost import CostName, label
from scalenet.shares import FACTORS, Shares

if TYPE_CHECKING:
    from scalenet.landscape import Landscape
    from scalenet.projection import Candidate
    from scalenet.runs import TrialRecord
    from scalenet.verdict import Estimate, Noise


INNER = {"equal": "equal shares", "paper": "the paper's 1.2/1.1/1.15", "dwr": "dWr's 0.1/0.8/0.1"}


def is_baseline(candidate: Candidate) -> bool:
    """Whether this is the network that phi = 0 means."""
    return "baseline" in candidate.names


def is_landmark(candidate: Candidate) -> bool:
    """Whether this is a corner, equal shares, the paper's point or dWr's: what every run confirms."""
    return _corner(candidate) or any(name in candidate.names for name in INNER)


def direction(candidate: Candidate) -> str:
    """A candidate in words: "width alone", "equal shares", "the paper's 1.2/1.1/1.15", or its nominal shares.

    Where steps are coarse one network may be both of the latter two; it is then named as both.
    """
    for factor in FACTORS:  # also the names of the corners
        if factor in candidate.names:
            return f"{factor} alone"
    if found := [text for name, text in INNER.items() if name in candidate.names]:
        return " = ".join(found)
    if is_baseline(candidate):
        return "the baseline"
    return shares_in_words(candidate.shares)


def multipliers(candidate: Candidate) -> str:
    """Alpha, beta and gamma as built."""
    scale = candidate.scale
    return f"alpha {scale.depth:.3g}, beta {scale.width:.3g}, gamma {scale.resolution:.3g}"


def capital(text: str) -> str:
    """`text` as a sentence begins."""
    return text[:1].upper() + text[1:]


def percent(fraction: float) -> str:
    """A top1 in [0, 1] as it is printed."""
    return f"{100 * fraction:.1f} %"


def points(difference: float) -> str:
    """A difference of top1 in percentage points, with its sign."""
    return f"{100 * difference:+.1f} points"


def listed(names: Sequence[str], joint: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


def sentence(
    *,
    by_key: Mapping[str, Candidate],
    estimates: Sequence[Estimate],
    tied_set: Sequence[str],
    baseline: Estimate | None,
    noise: Noise | None,
    chance: float | None,
) -> str:
    """The verdict in one sentence.

    Args:
        by_key: the candidates.
        estimates: the confirmed ones, the best first.
        tied_set: keys of those not told apart from the best, itself among them.
        baseline: its estimate, if it finished.
        noise: None where nothing was repeated.
        chance: 1 / classes where the best is *not* clear of it, else None.
    """
    best = estimates[0]
    winner = by_key[best.key]
    who = f"{direction(winner)} ({multipliers(winner)})"
    what = f"top1 {percent(best.mean)}{_over(best, baseline)}"
    others = ({e.key for e in estimates} | set(tied_set)) - {winner.key}
    if chance is not None:
        short = (
            f"above chance ({percent(chance)})"
            if noise is None
            else f"clear of chance ({percent(chance)}) by five times the noise ({100 * noise.sd:.2f} points)"
        )
        return f"Nothing can be concluded: even the best candidate, {who}, reaches only {what}, which is not {short}."
    if not others:
        return f"{capital(who)} is the only candidate with a finished confirmation run, {what}: there is no comparison."
    equal_cost = any(e.mean > best.mean + 1e-9 for e in estimates)  # a dearer one has the higher top1
    through = noise is not None and noise.source == "surface"
    said = [*["by a surface through all runs"] * through, *["at equal cost"] * equal_cost]
    came = f"{who} came out best {', '.join(said)}{', ' * bool(said)}with {what}"
    if noise is None:
        return (
            f"{capital(came)}, but there is no noise estimate, so nothing tells it apart from "
            f"the {_other_confirmed(len(others))}."
        )
    tied = [by_key[key] for key in tied_set if key != winner.key]
    landmarks = [direction(candidate) for candidate in tied if is_landmark(candidate)]
    among = "" if not landmarks else f"{', among them' if len(landmarks) < len(tied) else ':'} {listed(landmarks)}"
    part = "" if len(others) == 1 else "any of " if len(tied) == len(others) else f"{len(tied)} of "
    within = f"it cannot be told apart from {part}the {_other_confirmed(len(others))}{among}"
    corners = [direction(candidate) for candidate in (winner, *tied) if _corner(candidate)]
    if tied and corners:
        return f"No evidence here that compound scaling beats {listed(corners, 'or')}: {came}, but {within}."
    confirmed = {name for e in estimates for name in by_key[e.key].names}
    claim = "" if corners or not confirmed.issuperset(FACTORS) else "compound scaling beats any one direction alone: "
    end = f"though {within}" if tied else "and every other confirmed candidate is behind it by more than noise"
    return capital(f"{claim}{came}, {end}.")


def surface_sentence(landscape: Landscape) -> str:
    """What the surface over the search's scores shows, in one sentence."""
    surface, region = landscape.surface, landscape.region
    over = "the search's scores" if landscape.judge == "select" else "all runs"
    kind = f"the {surface.polynomial.model.name} surface over {over}"
    if surface.flat:
        return (
            f"{capital(kind)} is flat within noise (p = {surface.flat_p:.2f}): by it every direction may be as good "
            "as any other."
        )
    there = shares_in_words(surface.optimum)
    size = "under 1" if region.area < 0.01 else f"{min(99, round(100 * region.area))}"  # a corner is little
    what = "all of the simplex" if region.area >= 1 else f"{size} % of the simplex"
    corners = [factor for factor in FACTORS if region.contains(Shares(**{f: float(f == factor) for f in FACTORS}))]
    with_them = f", {listed([f'{corner} alone' for corner in corners])} included" if corners else ", no corner among it"
    return (
        f"{capital(kind)} (p = {surface.flat_p:.2g} that it is flat) is highest at {there}; with "
        f"{100 * region.level:.0f} % confidence its optimum lies in {what}{with_them}."
    )


def shares_in_words(shares: Shares) -> str:
    """Depth 0.2 / width 0.3 / resolution 0.5."""
    return f"depth {shares.depth:.2g} / width {shares.width:.2g} / resolution {shares.resolution:.2g}"


def method(
    scores: Mapping[tuple[str, int], float],
    estimates: Sequence[Estimate],
    noise: Noise | None,
    slope: float | None,
    target: float,
    cost: CostName,
    level: float,
) -> str:
    """What was done to come to the verdict, for coefficients.json and the report's foot."""
    seeds, number = len({seed for _, seed in scores}), len(estimates)
    parts = [
        f"Least squares on candidate + seed over {len(scores)} runs judged on the held-out part "
        f"({number} {'candidate' if number == 1 else 'candidates'}"
        f"{' and the baseline' if len(scores) > sum(e.runs for e in estimates) else ''}, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'})"
    ]
    if noise is not None:
        where = {
            "confirmation": "the residuals of the confirmed candidates, pooled",
            "replicates": "what the search repeated with further seeds, seeds apart",
            "surface": "the repeats and what the surface below misses",
            "none": "nowhere",
        }[noise.source]
        parts.append(f"noise of one run {100 * noise.sd:.2f} points, from {where}, {noise.df} degrees of freedom")
    parts.append(
        f"scores moved to {target:g} x the baseline's {label(cost)} along {points(slope)} per doubling "
        "(the candidates' mean over the trained baseline), its error carried along"
        if slope is not None
        else "scores not adjusted for cost"
    )
    if noise is not None and noise.source == "surface":
        parts.append(
            "every run speaks for all candidates: means predicted by Scheffe's quadratic in the realised shares and a "
            "departure of each candidate's own (mixed model), all of one normal distribution: one alone far off the "
            "surface may be missed; further seeds went to the better half by such means, and what doubling bought is "
            "of the first seed, which all had"
        )
    spent = "" if level < 0.96 else ", the race having spent the rest of 5 %"
    parts.append(
        "tied set by Hsu's one-sided multiple comparison with the best at family level "
        f"{100 * (1 - level):.2g} %{spent}, with Dunnett's critical value by quadrature at the smallest correlation of "
        "the differences"
        if noise is not None
        else "no noise estimate, so every confirmed candidate is in the tied set"
    )
    return "; ".join(parts) + "."


def notes(
    by_key: Mapping[str, Candidate],
    trials: Iterable[TrialRecord],
    noise: Noise | None,
    baseline: Estimate | None,
    apart: Sequence[str],
) -> Iterator[str]:
    """What weakens the verdict, a sentence each."""
    finished = {(t.key, t.seed) for t in trials if t.judge == "held" and t.state == "complete" and t.top1 is not None}
    for trial in {(t.key, t.seed): t for t in trials if t.judge == "held"}.values():  # a repeated run counts once
        if (trial.key, trial.seed) not in finished:
            reason = f": {trial.reason.rstrip('.')}" if trial.reason else ""
            who = direction(by_key[trial.key])
            yield f"A confirmation run of {who} (seed {trial.seed}) is missing, {trial.state}{reason}."
    if noise is None:
        yield "Neither the confirmation runs nor replicates of the search show the noise: nothing can be told apart."
    elif noise.source == "replicates":
        yield "The noise is taken from the search's replicates: confirmation has too few runs to show it."
    if baseline is None:
        yield "The baseline has no finished confirmation run beside the candidates': no adjustment for cost."
    for key in apart:
        yield f"{capital(direction(by_key[key]))} shares no seed with the others, so it cannot be compared with them."


def _over(best: Estimate, baseline: Estimate | None) -> str:
    if baseline is None:
        return ""
    gain = best.mean - baseline.mean
    return f", {100 * abs(gain):.1f} points {'over' if gain >= 0 else 'below'} the baseline"


def _other_confirmed(number: int) -> str:
    return "one other confirmed candidate" if number == 1 else f"{number} other confirmed candidates"


def _corner(candidate: Candidate) -> bool:
    return any(factor in candidate.names for factor in FACTORS)
