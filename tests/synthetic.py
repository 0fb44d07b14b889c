"""Run directories made up without training: known truths, known noise, and the mishaps that real runs have."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from scalenet.architecture import Scale, Size
from scalenet.coefficients import DataUsed, conclude
from scalenet.cost import Cost
from scalenet.data import DataRequest
from scalenet.data.values import Survey
from scalenet.mixture import lattice, lattice_name
from scalenet.projection import Candidate
from scalenet.recipe import Recipe
from scalenet.runs import Judge, Phase, RunDirectory, Session, TrialRecord
from scalenet.shares import EQUAL, NOTHING, PAPER_EXPONENTS, PAPER_MULTIPLIERS, Shares, multipliers, shares_of
from scalenet.space import SearchSpace
from scalenet.verdict import decide

BASELINE = Cost(60_000, 2_500_000, 90_000)
CORNERS = {"depth": Shares(1, 0, 0), "width": Shares(0, 1, 0), "resolution": Shares(0, 0, 1)}
SEARCH_SEED, CONFIRM_SEEDS = 0, (101, 102)


def candidate(*names: str, shares: Shares | None = None, ratio: float = 2.0, rejected: str | None = None) -> Candidate:
    named = CORNERS | {"equal": EQUAL, "paper": shares_of(PAPER_MULTIPLIERS, PAPER_EXPONENTS), "baseline": NOTHING}
    shares = shares or named.get(names[0], EQUAL)
    scale = Scale() if shares == NOTHING else multipliers(shares, PAPER_EXPONENTS)
    ratio = 1.0 if shares == NOTHING else ratio
    return Candidate(
        key=hashlib.sha256(repr((names[0], shares)).encode()).hexdigest()[:12],
        names=names,
        shares=shares,
        scale=scale,
        spec={
            "depths": [round(4 * scale.depth), 4],
            "width": 16 * scale.width,
            "resolution": round(32 * scale.resolution),
        },
        size=Size(round(8 * scale.depth), 16 * scale.width, round(32 * scale.resolution)),
        cost=replace(BASELINE, params=round(60_000 * scale.width**2 * scale.depth), flops=round(2_500_000 * ratio)),
        ratio=ratio,
        realised=shares,
        off_target=abs(ratio / 2 - 1) > 0.1 and shares.single is not None,
        rejected=rejected,
    )


def trial(
    of: Candidate,
    top1: float | None,
    *,
    seed: int = 101,
    judge: Judge = "held",
    phase: Phase = "confirm",
    epochs: int = 20,
) -> TrialRecord:
    curve = (
        [] if top1 is None else [0.1 + (top1 - 0.1) * (1 - 0.8 ** (e + 1)) / (1 - 0.8**epochs) for e in range(epochs)]
    )
    return TrialRecord(
        key=of.key,
        names=of.names,
        phase=phase,
        seed=seed,
        judge=judge,
        state="failed" if top1 is None else "complete",
        reason="memory ran out" if top1 is None else None,
        top1=top1,
        epochs=tuple({"epoch": float(e), "top1": score, "loss": 2.0 / e} for e, score in enumerate(curve, 1)),
        seconds=42.0 * of.ratio,
        params=of.cost.params,
        flops=of.cost.flops,
    )


def design(m: int = 5) -> list[Candidate]:
    """The lattice with its corners named, equal shares, the paper's point, the baseline; ratios as after rounding."""
    rng = np.random.default_rng(5)
    made = [candidate("baseline")]
    for shares in lattice(m):
        corner = shares.single
        names = (corner, lattice_name(shares, m)) if corner else (lattice_name(shares, m),)
        ratio = 2.27 if corner == "depth" else 2.0 + rng.normal(0, 0.02)
        made.append(candidate(*names, shares=shares, ratio=ratio))
    return [*made, candidate("equal"), candidate("paper", ratio=2.03)]


def truth(of: Candidate, spread: float) -> float:
    """top1 without noise: best inside, nearer to depth and resolution; the baseline well below."""
    if of.shares == NOTHING:
        return 0.62
    distance = (of.shares.depth - 0.4) ** 2 + (of.shares.width - 0.2) ** 2 + (of.shares.resolution - 0.4) ** 2
    return 0.68 - spread * distance


def survey(name: str) -> Survey:
    """Ten classes, one of them named to do harm, in pictures of 40 px."""
    classes = (*(f"class {i}" for i in range(9)), "<b>ten</b>")
    counts = {"fit": 600, "select": 200, "held": 200}
    return Survey(
        name=name,
        fingerprint="0123456789abcdef",
        native_size=40,
        classes=classes,
        pictures=1000,
        counts=counts,
        class_counts={c: {part: n // 10 for part, n in counts.items()} for c in classes},
        unreadable=(),
        conflicts=0,
        duplicates=0,
        crossing=0,
        ignored=0,
        flip=True,
        demonstration=name == "shapes",
        warnings=("Two pictures are copies.",),
    )


def make_run(
    root: Path,
    *,
    spread: float = 0.08,
    noise: float = 0.004,
    confirm: bool = True,
    finished: bool = True,
    mishaps: bool = False,
    data: str = "shapes",
    m: int = 5,
) -> RunDirectory:
    """A run directory as a search would leave it: 23 candidates, three replicates, the best and marked confirmed."""
    rng = np.random.default_rng(7)
    run = RunDirectory.create(root, "toy")
    space = SearchSpace(
        data=DataRequest(source=data), lattice=m, recipe=Recipe(epochs=20), scheduler="asha" if mishaps else "none"
    )
    run.write_space(space)
    run.write_data(survey(data))
    candidates = design(m)
    if mishaps:
        candidates.append(
            candidate("lattice 9/9/9", shares=Shares(0.9, 0.1, 0.0), ratio=2.6, rejected="costs 2.60 x the baseline's")
        )
    run.append_candidates(candidates)

    def score(of: Candidate) -> float:
        return float(truth(of, spread) + rng.normal(0, noise))

    trials = []
    for number, of in enumerate(c for c in candidates if c.rejected is None):
        phase: Phase = "baseline" if of.shares == NOTHING else "search"
        made = trial(of, score(of), seed=SEARCH_SEED, judge="select", phase=phase)
        if mishaps and number in (3, 8, 14):
            made = replace(made, state="pruned", epochs=made.epochs[:6], top1=made.epochs[5]["top1"], reason="asha")
        if mishaps and number == 5:
            made = replace(
                made, state="failed", epochs=(), top1=None, reason="memory ran out <script>alert(1)</script>"
            )
        trials.append(made)
    centre = next(c for c in candidates if "equal" in c.names)
    trials += [trial(centre, score(centre), seed=seed, judge="select", phase="replicate") for seed in (1, 2, 3)]
    if confirm:
        best = sorted(
            (t for t in trials if t.phase == "search" and t.state == "complete"), key=lambda t: -(t.top1 or 0)
        )
        keys = [t.key for t in best[:3]]
        marked = [c for c in candidates if {"baseline", "equal", "paper", *CORNERS} & set(c.names) or c.key in keys]
        for seed in CONFIRM_SEEDS:
            block = rng.normal(0, 0.006)
            trials += [
                trial(c, score(c) + block, seed=seed, phase="baseline" if c.shares == NOTHING else "confirm")
                for c in marked
            ]
        if mishaps:
            trials[-1] = trial(marked[-1], None, seed=CONFIRM_SEEDS[-1])
    for made in trials:
        run.append_trial(made)
    if finished and confirm:
        run.append_session(
            Session("2026-01-01T12:00:00+01:00", 2500.0, 2, ("The last feature map of 3 candidates is below 2x2.",))
        )
        verdict = decide(candidates, trials, num_classes=10)
        assert verdict is not None
        run.write_coefficients(
            conclude(
                verdict,
                candidates,
                plugin="toy",
                space=space,
                exponents=PAPER_EXPONENTS,
                data=DataUsed(data, survey(data).fingerprint, survey(data).native_size),
                num_classes=10,
                demonstration=data == "shapes",
            )
        )
    return run
