"""Verifications: what is proposed, how two runs are compared, and the command, without training and with a little."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scalenet import trial as trials
from scalenet.coefficients import CoefficientsFile
from scalenet.comparison import fit
from scalenet.errors import ScalenetError
from scalenet.latency import Setting, calibration
from scalenet.mixture import point_name
from scalenet.plain import from_plain
from scalenet.projection import Candidate
from scalenet.ranking import read
from scalenet.runs import RunDirectory
from scalenet.shares import NOTHING, Shares
from scalenet.space import Confirm, SearchSpace
from scalenet.verify import Verification, _scores, _winner, changes, judge, propose, unfinished
from scalenet.wording import direction
from tests.pictures import png_folder
from tests.synthetic import candidate, make_run, trial, truth
from tests.test_cli import Run, refused, scalenet
from tests.test_verdict import GRID, guided_runs

__all__ = ["scalenet"]  # the fixture

NAMED = ("depth", "width", "resolution", "equal", "paper")
SEEDS = (201, 202, 203)
Truth = Callable[[Candidate], float]


def clear(of: Candidate) -> float:
    """The truth of `make_run`, spread wide; only depth and resolution alone are equally good."""
    return truth(of, 0.4)


def answer_of(run: RunDirectory) -> CoefficientsFile:
    found = run.coefficients()
    assert found is not None
    return found


def verification(
    run: RunDirectory,
    scores: Truth,
    *,
    noise: float = 0.0005,
    merged: tuple[str, ...] = (),
    seeds: tuple[int, ...] = SEEDS,
    without: tuple[str, ...] = (),
) -> RunDirectory:
    """A verification of `run` as it would be left: the named points and the winner's at 4 x, made-up scores.

    `merged` are names that build one network there; `without` those that failed.
    """
    rng = np.random.default_rng(3)
    answer, space = answer_of(run), run.space()
    made = RunDirectory.create(run.path, "toy", "verify")
    made.write_space(
        replace(
            space,
            target=4.0,
            sampler="named",
            points=(answer.shares,),
            confirm=Confirm(3, len(seeds)),
            recipe=replace(space.recipe, epochs=40),
        )
    )
    data = run.data()
    assert data is not None
    made.write_data(data)
    point = point_name(answer.shares)
    named = [candidate(name, ratio=4.0) for name in NAMED]
    same = [c for c in named if c.shares == answer.shares]
    if same:
        named[named.index(same[0])] = replace(same[0], names=(*same[0].names, point))
    else:
        named.append(candidate(point, shares=answer.shares, ratio=4.0))
    if merged:
        kept = next(c for c in named if merged[0] in c.names)
        named = [
            replace(c, names=merged) if c is kept else c for c in named if c is kept or not set(merged) & {*c.names}
        ]
    tried = [candidate("baseline"), *named]
    made.append_candidates(tried)
    for seed in seeds:
        block = rng.normal(0, 0.01)
        for of in tried:
            lost = bool({*of.names} & {*without})
            made.append_trial(trial(of, None if lost else scores(of) + block + rng.normal(0, noise), seed=seed))
    return made


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path, spread=0.4, noise=0.0005)


def test_a_ranking_that_held(run: RunDirectory) -> None:
    found = judge(run, verification(run, clear))
    assert found.outcome == "held"
    assert found.agreement.tau is not None
    assert found.agreement.tau >= 13 / 15 - 1e-9  # one pair of 15, of equal truths, may have turned
    assert found.agreement.high == 1
    assert found.ranking.startswith(f"The ranking held: Kendall's tau is {found.agreement.tau:.2f} (95 % interval ")
    assert found.winner_tied is True
    assert found.winner.endswith("is the best here too.")
    *directions, baseline = found.directions
    assert [d.after.rank for d in directions if d.after] == list(range(1, len(directions) + 1))
    assert sorted(d.before.rank or 0 for d in directions if d.before) == list(range(1, len(directions) + 1))
    assert [d.winner for d in directions] == [True] + [False] * (len(directions) - 1)
    assert baseline.label == "the baseline"
    assert baseline.before is not None
    assert baseline.before.rank is None
    assert (found.before.target, found.after.target) == (2, 4)
    assert (found.before.epochs, found.after.epochs) == (20, 40)
    assert (found.before.seeds, found.after.seeds) == ((101, 102), SEEDS)
    assert found.changed == "4 x the baseline's FLOPs (2 x in the run), 40 epochs (20 in the run), 3 fresh seeds"


def test_a_ranking_that_turned(run: RunDirectory) -> None:
    def turned(of: Candidate) -> float:
        return 0.7 if of.shares == NOTHING else 1.5 - clear(of)

    found = judge(run, verification(run, turned))
    assert found.outcome == "not held"
    assert found.agreement.tau is not None
    assert found.agreement.tau <= -13 / 15 + 1e-9
    assert found.agreement.low == -1
    assert found.ranking.startswith(f"The ranking did not hold: Kendall's tau is {found.agreement.tau:.2f} (95 % ")
    told = f"; of the {found.agreement.pairs} pairs of directions, at least {found.agreement.turned} turned."
    assert found.ranking.endswith(told)
    assert found.winner_tied is False
    assert "is no longer in the tied set" in found.winner


def test_a_ranking_of_noise(tmp_path: Path) -> None:
    flat = make_run(tmp_path, spread=0.0, noise=0.01)
    found = judge(flat, verification(flat, lambda of: truth(of, 0.0), noise=0.01))
    assert found.outcome == "open"
    assert found.ranking.startswith("Whether the ranking held cannot be said: Kendall's tau is ")
    assert "but its 95 % interval runs from -1.00 to 1.00; noise may have ordered each of the " in found.ranking


@pytest.mark.parametrize(
    ("scores", "noise", "said"),
    [
        (clear, 0.0005, "The ranking held: .*; the only pair of directions kept its order."),
        (lambda of: -clear(of), 0.0005, "The ranking did not hold: .*; the only pair of directions turned."),
        (
            lambda _: 0.5,
            0.05,
            "Whether the ranking held cannot be said: .*; noise may have ordered the only pair of dir",
        ),
    ],
)
def test_two_directions_are_one_pair(run: RunDirectory, scores: Truth, noise: float, said: str) -> None:
    found = judge(run, verification(run, scores, noise=noise, without=("depth", "width", "resolution", "paper")))
    assert found.agreement.pairs == 1
    assert re.match(said, found.ranking)


def test_one_seed_shows_no_noise(run: RunDirectory) -> None:
    found = judge(run, verification(run, clear, seeds=(201,)))
    assert found.outcome == "open"
    assert found.agreement.tau == pytest.approx(1)
    assert "as nothing shows the noise of the verification;" in found.ranking


def test_tau_is_that_of_the_scores_that_are_shown(run: RunDirectory) -> None:
    found = judge(run, verification(run, clear, noise=0.05))
    both = [(d.before.top1, d.after.top1) for d in found.directions[:-1] if d.before and d.after]
    assert found.agreement.tau == pytest.approx(stats.kendalltau(*zip(*both, strict=True)).statistic)
    assert found.agreement.pairs == math.comb(len(both), 2)


def test_two_names_of_one_network_count_once(run: RunDirectory) -> None:
    point = point_name(answer_of(run).shares)
    found = judge(run, verification(run, clear, merged=("equal", "paper", point)))
    mine = next(d for d in found.directions if d.winner)
    assert mine.label == "equal shares = the paper's 1.2/1.1/1.15"
    assert mine.before is not None
    assert mine.before.key == answer_of(run).tied_set[0].key  # the winner before the other names
    assert found.agreement.pairs == math.comb(4, 2)  # and the three corners


def test_a_direction_without_a_finished_run_is_shown_but_not_compared(run: RunDirectory) -> None:
    found = judge(run, verification(run, clear, without=("width",)))
    lost = next(d for d in found.directions if d.label == "width alone")
    assert lost.after is None
    assert lost.before is not None
    assert lost.before.rank is None
    assert found.directions.index(lost) == len(found.directions) - 2  # before the baseline
    whole = judge(run, verification(run, clear))
    assert found.agreement.pairs < whole.agreement.pairs
    point = point_name(answer_of(run).shares)
    beaten = judge(run, verification(run, clear, without=(point,)))
    assert beaten.winner_tied is None
    assert beaten.winner.endswith("has no confirmation run here that can be compared.")


def test_scores_and_errors_are_those_of_the_whole_fit(run: RunDirectory) -> None:
    """As in `verdict.decide`: the means of a layout with blocks, moved to equal cost along the slope."""
    findings = read(run)
    verdict = findings.verdict
    assert verdict is not None
    assert verdict.noise_sd is not None
    keys = [e.key for e in verdict.estimates]
    ratios = {c.key: c.ratio for c in findings.candidates}
    held = {(t.key, t.seed): t.top1 for t in findings.trials if t.judge == "held" and t.top1 is not None}
    layout = fit(held)
    at = [layout.keys.index(key) for key in [*keys, next(c.key for c in findings.candidates if c.shares == NOTHING)]]
    growth = np.log2([ratios[key] for key in keys])
    gain = np.append(np.full(len(keys), 1 / len(keys)), -1)
    adjusting = np.eye(len(keys), len(at)) - np.outer(growth - 1, gain / growth.mean())
    spread = adjusting @ layout.covariance[np.ix_(at, at)] @ adjusting.T * verdict.noise_sd**2
    expected = np.sqrt(np.diag(spread)[:, None] + np.diag(spread)[None, :] - 2 * spread)
    found = _scores(findings, keys)
    off = ~np.eye(len(keys), dtype=bool)
    assert found.errors[off] == pytest.approx(expected[off], rel=1e-6)
    assert np.ptp(expected[off]) > 0.005 * expected[off].min()  # the depth corner is dearer, and its errors larger
    assert found.df == verdict.noise_df
    assert found.means == pytest.approx(adjusting @ layout.means[at])
    assert np.abs(found.means - [e.mean for e in verdict.estimates]).max() > 1e-3


def test_errors_are_wider_where_a_race_gave_fewer_seeds(run: RunDirectory) -> None:
    """Two candidates on their own, one with half of the seeds: what links them is the seed they share."""
    made = RunDirectory.create(run.path, "toy", "verify")
    space = run.space()
    made.write_space(space)
    of = [candidate("equal"), candidate("width"), candidate("depth", ratio=2.0)]
    made.append_candidates(of)
    for seed, first in ((1, 0.50), (2, 0.53), (3, 0.52), (4, 0.56)):
        made.append_trial(trial(of[0], first, seed=seed))
        made.append_trial(trial(of[1], first - 0.1 + 0.001 * seed**2, seed=seed))
    made.append_trial(trial(of[2], 0.3, seed=1))
    findings = read(made)
    verdict = findings.verdict
    assert verdict is not None
    assert verdict.noise_sd is not None
    found = _scores(findings, [c.key for c in of])
    # The third's only run less its seed's effect, which the two others tell: their mean with it less that with all.
    assert found.errors[0, 1] == pytest.approx(verdict.noise_sd * math.sqrt(2 / 4))
    effect = np.zeros((3, 4))  # weights of the runs in "third less first"
    effect[2, 0] += 1
    effect[:2, 0] -= 1 / 2
    effect[:2, :] += 1 / 8
    effect[0, :] -= 1 / 4
    assert found.errors[0, 2] == pytest.approx(verdict.noise_sd * math.sqrt((effect**2).sum()))
    assert found.errors[0, 2] > verdict.noise_sd * math.sqrt(1 + 1 / 4)  # as if the seeds were no part of it


def test_a_guided_runs_errors_are_those_of_its_surface(tmp_path: Path) -> None:
    guided = RunDirectory.create(tmp_path, "toy")
    guided.write_space(SearchSpace(sampler="guided", lattice=4))
    guided.append_candidates(GRID)
    for made in guided_runs():
        guided.append_trial(made)
    findings = read(guided)
    verdict = findings.verdict
    assert verdict is not None
    assert verdict.noise_sd is not None
    assert verdict.noise_source == "surface"
    once = [e for e in verdict.estimates if e.runs == 1]
    found = _scores(findings, [e.key for e in once])
    off = ~np.eye(len(once), dtype=bool)
    assert (found.errors[off] < 0.99 * verdict.noise_sd * math.sqrt(2)).all()  # of two runs that know of no others
    assert found.means == pytest.approx([e.adjusted for e in once])
    assert found.df == verdict.noise_df


def test_only_what_was_compared_is_counted_among_the_others(run: RunDirectory) -> None:
    made = verification(run, lambda of: truth(of, 0.0), noise=0.01)
    stranger = candidate("lattice 9/9/9", shares=Shares(0.9, 0.1, 0.0), ratio=4.0)
    made.append_candidates([stranger])
    made.append_trial(trial(stranger, 0.5, seed=999))  # shares no seed with the others
    verdict = read(made).verdict
    assert verdict is not None
    assert stranger.key in verdict.tied_set
    names = {c.key: direction(c) for c in made.candidates()}
    others, tied = len(verdict.estimates) - 1, len(verdict.tied_set) - 2
    assert tied > 1
    said = _winner(names, verdict.winner, verdict)
    assert said.endswith(f" is the best here too, though tied with {tied} of the {others} others.")


def test_without_noise_nobody_is_called_tied(run: RunDirectory) -> None:
    found = judge(run, verification(run, clear, seeds=(201,)))
    assert found.winner.endswith(" is the best here too, but nothing shows the noise.")


def test_verify_json_reads_back(run: RunDirectory) -> None:
    made = verification(run, clear)
    found = judge(run, made)
    plain = json.loads(made.write_verification(found).read_text())
    assert plain["schema_version"] == 1
    assert from_plain(Verification, plain, "verify.json") == found


def test_the_unfinished_one_is_found(run: RunDirectory) -> None:
    with pytest.raises(ScalenetError, match=r"has no unfinished verification; `scalenet verify .*` begins one"):
        unfinished(run)
    first, second = verification(run, clear), verification(run, clear)
    empty = RunDirectory.create(run.path, "toy", "verify")  # broken off before anything was known
    assert unfinished(run) == second != empty
    second.write_verification(judge(run, second))
    assert unfinished(run) == first


def test_what_is_as_in_the_run_is_called_so(run: RunDirectory) -> None:
    space = run.space()
    told = changes(space, replace(space, confirm=Confirm(3, 4)))
    assert told == "2 x the baseline's FLOPs (as in the run), 20 epochs (as in the run), 4 fresh seeds"


def test_runs_without_an_answer_are_refused(tmp_path: Path) -> None:
    begun = make_run(tmp_path, finished=False)
    with pytest.raises(
        ScalenetError, match=r"has no coefficients.json yet, so there is no winner to verify; .*--resume"
    ):
        propose(begun)
    lost = make_run(tmp_path / "lost")
    (lost.path / "trials.jsonl").unlink()
    with pytest.raises(ScalenetError, match=r"no candidate has a finished confirmation run"):
        propose(lost)


# Through the command, with an architecture; trainings are a formula


def train_by_formula(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """top1 that grows with width and side, and noise that candidate and seed fix."""
    spec = job["spec"]
    noise = np.random.default_rng([int(job["key"], 16), job["seed"]]).normal(0, 0.002)
    for epoch in range(1, job["recipe"]["epochs"] + 1):
        top1 = 0.5 + 0.1 * math.log(spec["stem"]) + 0.05 * math.log(spec["resolution"]) + noise
        yield {"epoch": epoch, "loss": 1.0 / epoch, "top1": top1, "seconds": 0.01}


SMOKE = ("--plugin", "mobilenet", "--space", "smoke", "--set", "data.subset=null", "--resolution", 16, "--workers", 0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return png_folder(tmp_path / "pictures")


@pytest.fixture
def searched(scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished search of mobilenet on `pictures`."""
    monkeypatch.setattr(trials, "run", train_by_formula)
    monkeypatch.setattr("scalenet.timing.baseline_seconds", lambda *_: 0.001)
    done = scalenet("search", "--data", pictures, *SMOKE, "--set", "confirm.seeds=2", "--json")
    assert done.code == 0, done.err
    return str(done.json()["run"])


def test_the_plan_says_what_is_changed_and_trains_nothing(scalenet: Run, searched: str) -> None:
    shown = scalenet("verify", searched, "--plan")
    assert shown.code == 0, shown.err
    said = f"verify    {searched} at 4 x the baseline's FLOPs (2 x in the run), 2 epochs (1 in the run), 3 fresh seeds"
    assert said in shown.out
    assert "of about 4 x the FLOPs" in shown.out
    planned = scalenet("verify", searched, "--plan", "--json", "--phi", 1, "--epochs", 7, "--seeds", 4).json()
    assert planned["space"]["sampler"] == "named"
    assert (planned["space"]["target"], planned["space"]["recipe"]["epochs"]) == (2, 7)
    answer = json.loads((Path(searched) / "coefficients.json").read_text())
    assert planned["space"]["points"] == [answer["shares"]]
    assert planned["trials"] == 4 * (1 + len(planned["candidates"]))
    names = {name for c in planned["candidates"] for name in c["names"]}
    assert names >= {*NAMED, point_name(Shares(**answer["shares"]))}
    assert not (Path(searched) / "verify").exists()


def test_from_search_to_verdict(scalenet: Run, searched: str) -> None:
    done = scalenet("verify", searched, "--workers", 0, "--json")
    assert done.code == 0, done.err
    found = done.json()
    made = Path(found.pop("run"))
    assert made.parent == Path(searched) / "verify"
    assert json.loads((made / "verify.json").read_text()) == found
    assert (made / "report.html").is_file()
    page = (Path(searched) / "report.html").read_text()
    assert "Whether it holds further out" in page
    for text in (found["changed"], found["ranking"], found["winner"]):
        assert html.escape(text).replace("&#x27;", "&#39;") in page
    opened, first = RunDirectory.open(made), RunDirectory.open(Path(searched))
    assert {t.judge for t in opened.trials()} == {"held"}
    assert not {t.seed for t in opened.trials()} & {t.seed for t in first.trials()}
    assert {len(t.epochs) for t in opened.trials()} == {2}
    for c in opened.candidates():
        # depth takes whole blocks; what else is off by more than a tenth is not trained
        assert c.ratio == pytest.approx(1 if "baseline" in c.names else 4, rel=0.1) or "depth" in c.names
    # By the formula width pays most and depth nothing, at 2 x as at 4 x
    labels = [d["label"] for d in found["directions"]]
    assert labels[0] == "width alone"
    assert labels[-2:] == ["depth alone", "the baseline"]
    assert found["winner_tied"] is True
    assert found["agreement"]["tau"] > 0.5


def test_ctrl_c_and_resume(scalenet: Run, searched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, int]] = []

    def interrupted(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        trained.append((job["key"], job["seed"]))
        if len(trained) == 5:
            raise KeyboardInterrupt
        yield from train_by_formula(job)

    monkeypatch.setattr(trials, "run", interrupted)
    refused(scalenet("verify", searched, "--resume"), "has no unfinished verification")
    done = scalenet("verify", searched, "--workers", 0)
    assert done.code == 130
    assert f"`scalenet verify {searched} --resume` finishes it" in done.err
    (begun,) = (Path(searched) / "verify").iterdir()
    assert "not come to its end: 4 confirmation runs finished" in scalenet("report", begun).out
    refused(scalenet("verify", searched, "--resume", "--phi", 2), "leave out phi")
    resumed = scalenet("verify", searched, "--resume", "--workers", 0, "--json")
    assert resumed.code == 0, resumed.err
    del trained[4]  # the one that was interrupted was trained again
    assert len(trained) == len(set(trained)) == len(RunDirectory.open(Path(resumed.json()["run"])).trials())
    assert len(list((Path(searched) / "verify").iterdir())) == 1
    refused(scalenet("verify", searched, "--resume"), "has no unfinished verification")


def test_changed_pictures_are_refused(scalenet: Run, searched: str, pictures: Path) -> None:
    (pictures / "dark" / "0.png").unlink()
    refused(scalenet("verify", searched, "--workers", 0), "have changed since")
    assert not (Path(searched) / "verify").exists()


def test_a_winner_that_cannot_be_built_is_refused(
    scalenet: Run, searched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(searched) / "coefficients.json"
    answer = json.loads(file.read_text())
    file.write_text(json.dumps(answer | {"shares": {"depth": 0.5, "width": 0.5, "resolution": 0.0}}))
    monkeypatch.setattr("scalenet.projection.OFF_TARGET", 1e-9)
    refused(scalenet("verify", searched, "--plan"), "its winner, depth 0.5 / width 0.5", "choose another phi than 2")


def test_a_winner_that_would_be_the_baseline_is_refused(scalenet: Run, searched: str) -> None:
    file = Path(searched) / "coefficients.json"
    answer = json.loads(file.read_text())
    file.write_text(json.dumps(answer | {"shares": {"depth": 1.0, "width": 0.0, "resolution": 0.0}}))
    refused(
        scalenet("verify", searched, "--plan", "--phi", 0.05),
        "at phi 0.05 its winner, depth 1 / width 0 / resolution 0, is the baseline itself",
        "choose a larger phi",
    )


def test_latency_beyond_what_was_timed_is_pointed_out(scalenet: Run, searched: str) -> None:
    first = RunDirectory.open(Path(searched))
    known = [(c.cost, c.size) for c in first.candidates()]
    timed = calibration(Setting("a device", 8, 1, "fp32", "contiguous"), known, [c.flops / 1e6 for c, _ in known])
    first.write_latency(timed)
    first.write_space(replace(first.space(), cost="latency"))
    at_its_own, further = propose(first, phi=1), propose(first, phi=2)
    assert not any("is extrapolated" in warning for warning in at_its_own.warnings)
    (told,) = [warning for warning in further.warnings if "is extrapolated" in warning]
    assert told.startswith("The latency of depth alone, ")
    largest = max(timed.beyond(c.cost) for c in further.contestants)
    assert 1.5 < largest < 4
    assert f"up to {largest:.1f} x the cost of the largest network that the run timed" in told


def test_bad_requests_are_one_sentence(scalenet: Run, tmp_path: Path) -> None:
    refused(scalenet("verify", "nowhere"), "nowhere: not a run directory")
    refused(scalenet("verify", make_run(tmp_path, finished=False).path), "has no coefficients.json yet")
    refused(scalenet("verify", "nowhere", "--phi", 0), "--phi")
    refused(scalenet("verify", "nowhere", "--seeds", 1), "--seeds")


def test_named_points_can_be_searched_by_themselves(scalenet: Run, searched: str, pictures: Path) -> None:
    done = scalenet("search", "--data", pictures, *SMOKE, "--sampler", "named", "--json")
    assert done.code == 0, done.err
    made = RunDirectory.open(Path(done.json()["run"]))
    assert {t.phase for t in made.trials()} == {"confirm"}
    assert made.coefficients() is not None


@pytest.mark.slow
def test_a_verification_that_really_trains(scalenet: Run) -> None:
    search = ("search", *SMOKE[:4], *SMOKE[6:], "--subset", 60, "--set", "recipe.batch_size=12")
    run = scalenet(*search, "--sampler", "named", "--set", "confirm.seeds=2", "--json").json()["run"]
    done = scalenet("verify", run, "--workers", 0, "--seeds", 2, "--epochs", 1, "--phi", 1.5)
    assert done.code == 0, done.err
    assert "1 epoch (as in the run), 2 fresh seeds" in done.out
    assert "2.83 x, 1 epoch " in done.out
    assert "Kendall's tau" in done.out
    assert "The run's winner, " in done.out
