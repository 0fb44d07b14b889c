"""A run's ranked table for the terminal, and its one self-contained page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from scalenet import charts
from scalenet.coefficients import CoefficientsFile
from scalenet.console import duration, si
from scalenet.cost import label
from scalenet.data.values import resolution_warning
from scalenet.landscape import Landscape, searched
from scalenet.plain import to_plain
from scalenet.ranking import Findings, Row, ranked, read
from scalenet.runs import RunDirectory, TrialRecord
from scalenet.scheffe import FTest, NoSurface
from scalenet.shares import Shares
from scalenet.verdict import Gain, is_decisive
from scalenet.wording import direction, points

MARKS = {"winner": "best", "tied": "tied", "confirmed": "behind", "searched": "", "baseline": "baseline"}
NO_VERDICT = "There is no verdict yet: no candidate has a finished confirmation run."
COLUMNS = (
    *("#", "direction", "shares", "alpha", "beta", "gamma", "depth", "width", "px", "FLOPs", "x baseline"),
    *("search", "confirmed", "verdict"),
)
SPARE = ("shares", "FLOPs", "depth", "width", "px", "search", "x baseline")  # where a terminal has no room for all


def as_plain(findings: Findings) -> dict[str, Any]:
    """The verdict and the ranked rows as JSON data; top1 in [0, 1]."""
    return {"verdict": to_plain(findings.verdict), "candidates": to_plain(ranked(findings))}


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is printed, in the order of COLUMNS; top1 in percent, `confirmed` as mean +- sd over its seeds."""
    search = "" if row.search_top1 is None else f"{100 * row.search_top1:.1f}"
    spread = "" if row.confirmed_sd is None else f" ± {100 * row.confirmed_sd:.1f}"
    return (
        "" if row.rank is None else str(row.rank),
        row.short,
        "" if row.role == "baseline" else shares_text(row.shares),
        *(f"{multiplier:.3f}" for multiplier in (row.alpha, row.beta, row.gamma)),
        str(row.depth),
        f"{row.width:.1f}",
        str(row.resolution),
        si(row.flops, 3),
        f"{row.ratio:.2f}{' !' if row.off_target else ''}",
        search if row.state in ("complete", "confirmed") else f"{search} {row.state}".strip(),
        "" if row.confirmed_top1 is None else f"{100 * row.confirmed_top1:.1f}{spread}",
        MARKS[row.role],
    )


def shares_text(shares: Shares) -> str:
    """Depth, width and resolution, two digits each."""
    return f"{shares.depth:.2f} / {shares.width:.2f} / {shares.resolution:.2f}"


def html(run: RunDirectory) -> Path:
    """Writes the run's report.html, finished or not, and returns its path.

    The page needs nothing beside itself: no script, no font, no request.
    """
    import jinja2

    loader = jinja2.PackageLoader("scalenet", "templates")
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return run.write_report(templates.get_template("report.html.j2").render(_page(run, read(run))))


def _page(run: RunDirectory, findings: Findings) -> dict[str, Any]:
    rows = ranked(findings)
    verdict = findings.verdict
    landscape = None if isinstance(findings.landscape, NoSurface) else findings.landscape
    space = run.path / "space.yaml"
    return {
        "plugin": findings.env.plugin,
        "stamp": run.path.resolve().name,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "demonstration": findings.data is not None and findings.data.demonstration,
        "verdict": verdict,
        "unfinished": unfinished(findings),
        "gains": list(_gains(findings)),
        "warnings": list(_warnings(findings)),
        "simplex": charts.simplex(rows, landscape),
        "landscape": landscape,
        "no_landscape": findings.landscape.reason if isinstance(findings.landscape, NoSurface) else None,
        "fit": list(_fit(landscape, findings)) if landscape else [],
        "residuals": charts.residuals(landscape, rows) if landscape else None,
        "metric": label(findings.metric),
        "family": list(_family(findings.coefficients)) if findings.coefficients else [],
        "rivals": list(_rivals(findings)),
        "verifications": list(_verifications(run)),
        "pick": next((direction(c) for c in findings.candidates if verdict and c.key == verdict.pick), None),
        "curves": charts.curves(_lines(findings)),
        "cost": charts.cost(rows),
        "forest": charts.forest(verdict.estimates) if verdict else None,
        "columns": COLUMNS,
        "rows": [(row, cells(row)) for row in rows],
        "no_verdict": NO_VERDICT,
        "stopped": any(row.state in ("pruned", "failed") and row.confirmed_top1 is None for row in rows),
        "off_target": any(row.off_target for row in rows),
        "rejected": [(direction(c), ", ".join(c.names), c.rejected) for c in findings.candidates if c.rejected],
        "failures": [(t, _label(findings, t)) for t in findings.trials if t.state == "failed"],
        "regime": list(_regime(findings)),
        "effort": list(_effort(findings)),
        "space": space.read_text(encoding="utf-8") if space.is_file() else "",
    }


def _gains(findings: Findings) -> Iterator[tuple[str, str, str]]:
    """(what, figure, explanation) of the three numbers that put the verdict into proportion."""
    verdict = findings.verdict
    if verdict is None:
        return
    if verdict.doubling:
        number = len(verdict.estimates)
        who = "The only confirmed candidate" if number == 1 else f"The mean of the {number} confirmed candidates"
        text = f"{who} over the baseline, for {verdict.growth:.2f} x its {label(findings.metric)}."
        growing = "doubling" if abs(verdict.growth / 2 - 1) < 0.1 else "growth"
        yield f"What {growing} bought", points(verdict.doubling.value), _interval(verdict.doubling) + text
    if verdict.direction:
        text = "The best over the mean of the confirmed candidates, at equal cost."
        if verdict.by_luck is not None:
            text += f" Equally good candidates would show {points(verdict.by_luck)} by luck alone."
        yield "What direction bought", points(verdict.direction.value), _interval(verdict.direction) + text
    if verdict.noise_sd is not None:
        text = f"Standard deviation of one run's top1 between repeats, from {verdict.noise_df} degrees of freedom"
        text += {
            "confirmation": " of the confirmation runs.",
            "replicates": " of the search's replicates.",
            "surface": " of the repeats and of what the surface misses.",
            "none": ".",
        }[verdict.noise_source]
        yield "Noise", f"{100 * verdict.noise_sd:.2f} points", text


def _family(answer: CoefficientsFile) -> Iterator[tuple[str, ...]]:
    """(phi, depth, width, px, params, FLOPs, activations, x baseline) of the baseline and what it grows into."""
    for member in answer.family:
        size, cost = member.size, member.cost
        built = (f"{member.phi:.2f}", str(size.depth), f"{size.width:.4g}", str(size.resolution))
        yield (*built, *(si(n, 3) for n in (cost.params, cost.flops, cost.activations)), f"{2**member.phi:.2f}")


def _rivals(findings: Findings) -> Iterator[tuple[str, str, str]]:
    """(named point, how far behind the search's pick, whether that is more than noise)."""
    for rival in findings.verdict.rivals if findings.verdict else ():
        word = "told apart" if rival.told_apart else "not told apart"
        yield rival.label, f"{-100 * rival.behind:+.1f} ± {100 * rival.margin:.1f}", word


def _verifications(run: RunDirectory) -> Iterator[tuple[str, ...]]:
    """(what was changed, whether the ranking held, where the winner came) of each, the latest last."""
    for file in sorted(run.path.glob("verify/*/verify.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one costs the page only itself
            plain = json.loads(file.read_text(encoding="utf-8"))
            yield tuple(str(plain[key]) for key in ("changed", "ranking", "winner"))


def _fit(landscape: Landscape, findings: Findings) -> Iterator[tuple[str, str]]:
    """(name, value) of how well the surface describes the search's scores."""
    found, region = landscape.surface.polynomial, landscape.region
    yield "model", f"{found.model.name}, {len(found.model.terms)} terms" + (f" ({found.note})" if found.note else "")
    runs = len(searched(findings.trials, landscape.judge))
    yield "points", f"{len(found.residuals)} candidates, {runs} runs with the baseline's"
    yield "R squared", f"{found.r2:.2f} of the variation between candidates"
    yield "shape", _tested(found.shape)
    lack = found.lack_of_fit
    yield "lack of fit", _tested(lack) if lack else "cannot be told from noise: nothing was repeated"
    yield "departure from it, as fitted", f"{100 * landscape.surface.departure:.2f} points over the simplex"
    yield "error of one run", f"{100 * found.variance**0.5:.2f} points, {found.df} degrees of freedom"
    yield (
        "optimum",
        f"realised shares {shares_text(landscape.surface.optimum)}; nearest candidate: {direction(landscape.best)}",
    )
    yield f"{100 * region.level:.0f} % region", f"{100 * region.area:.0f} % of the simplex"


def _tested(test: FTest) -> str:
    chance = "p below 0.0001" if test.p < 1e-4 else f"p = {test.p:.2g}"
    return f"F = {test.statistic:.2f} on {test.df[0]} and {test.df[1]} degrees of freedom, {chance}"


def _interval(gain: Gain) -> str:
    return "" if gain.margin is None else f"± {100 * gain.margin:.1f} (95 %). "


def unfinished(findings: Findings) -> str | None:
    """How far a search without an answer has come; None where it has come to its end."""
    if findings.coefficients:
        return None
    states = Counter(row.state for row in ranked(findings) if row.role != "baseline")
    kept = sum(states.values())
    done = kept - states["waiting"] - states["confirmed"]
    runs = sum(is_decisive(trial) and trial.state == "complete" for trial in findings.trials)
    searches = findings.space is None or findings.space.has_search_phase
    return (
        f"This search has not come to its end: {f'{done} of {kept} candidates searched, ' if searches else ''}"
        f"{runs} confirmation {'run' if runs == 1 else 'runs'} finished. What stands here is provisional."
    )


def _warnings(findings: Findings) -> Iterator[str]:
    verdict, answer, data = findings.verdict, findings.coefficients, findings.data
    told = [*(data.warnings if data else ()), *(w for session in findings.sessions for w in session.warnings)]
    if data and (above := resolution_warning(data, _largest_side(findings))):
        told.append(above)
    yield from dict.fromkeys(told)
    if verdict is None:
        return
    yield from verdict.notes
    if answer and answer.verdict != verdict.sentence:
        yield "The records of this run now give another verdict than coefficients.json, which was written before."


def _largest_side(findings: Findings) -> int:
    return max((c.size.resolution for c in findings.candidates if c.rejected is None), default=0)


def _lines(findings: Findings) -> list[charts.Line]:
    """Search runs one by one; confirmed candidates and the baseline as means over their seeds."""
    verdict = findings.verdict
    lines, grouped = [], dict[str, list[TrialRecord]]()
    baselines = {c.key for c in findings.candidates if "baseline" in c.names}
    for trial in findings.trials:
        if trial.state != "failed" and (is_decisive(trial) or trial.key in baselines):
            grouped.setdefault(trial.key, []).append(trial)
        elif trial.state != "failed" and trial.epochs:
            title = f"{_label(findings, trial)}, {trial.phase} run{' (stopped)' if trial.state == 'pruned' else ''}"
            lines.append(charts.Line(title, "search", _mean_curve([trial])))
    for key, trials in grouped.items():
        held = [trial for trial in trials if is_decisive(trial)] or trials
        kind: charts.LineKind = "confirmed"
        if key in baselines:
            kind = "baseline"
        elif verdict and key in verdict.tied_set:
            kind = "winner" if key == verdict.winner else "tied"
        lines.append(charts.Line(f"{_label(findings, held[0])}, mean of {len(held)}", kind, _mean_curve(held)))
    return [line for line in lines if line.points]


def _mean_curve(trials: Sequence[TrialRecord]) -> tuple[tuple[float, float], ...]:
    """top1 by epoch, over the epochs that all of `trials` have."""
    curves = [
        {e["epoch"]: top1 for e in trial.epochs if (top1 := e.get("top1")) is not None and e.get("epoch") is not None}
        for trial in trials
    ]
    shared = set.intersection(*map(set, curves))
    return tuple(
        (epoch, fmean(curve[epoch] for curve in curves)) for epoch in sorted(e for e in shared if e is not None)
    )


def _label(findings: Findings, trial: TrialRecord) -> str:
    return next(direction(c) for c in findings.candidates if c.key == trial.key)


def _regime(findings: Findings) -> Iterator[tuple[str, str]]:
    """(name, value) of what the answer holds for."""
    env, space, data, answer = findings.env, findings.space, findings.data, findings.coefficients
    yield "architecture", f"{env.plugin}{f', variant {space.variant}' if space else ''}"
    if env.origin:
        yield "plugin from", f"{env.origin.package} {env.origin.version} ({env.origin.module})"
    if data:
        counts = ", ".join(f"{number} {part}" for part, number in data.counts.items())
        yield "data", f"{data.name}, {data.pictures} pictures ({counts}), fingerprint {data.fingerprint}"
        yield (
            "classes",
            f"{len(data.classes)}: {', '.join(data.classes[:20])}{', ...' if len(data.classes) > 20 else ''}",
        )
        yield "native size", f"{data.native_size} px; candidates look at up to {_largest_side(findings)} px"
    elif space:
        yield "data", space.data.source
    if answer:
        yield "cost exponents", " / ".join(f"{e:.2f}" for e in to_plain(answer.exponents).values()) + " (d / w / r)"
    if space:
        yield "target", f"{space.target:g} x the baseline's {label(space.cost)}, law {space.law}"
        if findings.latency:
            yield "latency", findings.latency.summary
        yield "sampler", f"{space.sampler}{f' (m = {space.lattice})' if space.has_lattice else ''}"
        yield "recipe", ", ".join(f"{key} {_short(value)}" for key, value in to_plain(space.recipe).items())
        yield "threads of a trial", str(space.threads or 1)
    yield from _seeds(findings.trials)
    yield "device", env.device or "not recorded"
    yield "machine", f"{env.platform}, {env.cpus} {'CPU' if env.cpus == 1 else 'CPUs'}, Python {env.python}"
    yield "versions", ", ".join(f"{name} {found}" for name, found in env.versions.items() if found)
    if env.git:
        yield "git", f"{env.git.commit[:12]}{', with changes not committed' if env.git.dirty else ''}"


def _seeds(trials: Iterable[TrialRecord]) -> Iterator[tuple[str, str]]:
    used: dict[str, set[int]] = {}
    for trial in trials:
        used.setdefault("confirmation" if is_decisive(trial) else "search", set()).add(trial.seed)
    for phase in ("search", "confirmation"):
        if phase in used:
            yield f"{phase} seeds", ", ".join(map(str, sorted(used[phase])))


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} {_short(inner)}" for key, inner in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _effort(findings: Findings) -> Iterator[tuple[str, str]]:
    """(name, value) of what the run took."""
    trials, sessions, space = findings.trials, findings.sessions, findings.space
    states = Counter(trial.state for trial in trials)
    counted = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    yield "trials", f"{len(trials)}{f' ({counted})' if counted else ''}"
    training = sum(trial.seconds for trial in trials if not trial.reused)
    if reused := sum(trial.reused for trial in trials):
        yield "reused", f"{reused} of them, which earlier searches had trained"
    yield "training time", f"{duration(training)}, all trials together"
    wall = sum(session.seconds for session in sessions)
    if wall > 0:
        capacity = sum(session.seconds * session.workers for session in sessions)
        idle = max(0.0, 1 - training / capacity)
        again = f" in {len(sessions)} sessions" if len(sessions) > 1 else ""
        workers = " or ".join(map(str, sorted({session.workers for session in sessions})))
        yield "wall time", f"{duration(wall)}{again}, {workers} at a time; {100 * idle:.0f} % of it not spent training"
    if space and space.scheduler == "asha":
        searched = [trial for trial in trials if trial.phase == "search" and trial.state != "failed"]
        planned = space.recipe.epochs * len(searched)
        saved = sum(space.recipe.epochs - len(trial.epochs) for trial in searched if trial.state == "pruned")
        stopped = sum(trial.state == "pruned" for trial in searched)
        share = 100 * saved / planned if planned else 0.0
        yield (
            "early stopping (asha)",
            f"{stopped} of {len(searched)} search runs stopped; {saved} of {planned} epochs saved ({share:.0f} %)",
        )
