from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from scalenet import report
from scalenet.architecture import Size
from scalenet.cli import cli
from scalenet.coefficients import FamilyMember
from scalenet.cost import Cost, CostName
from scalenet.latency import Setting, calibration
from scalenet.plain import to_plain
from scalenet.ranking import ranked, read
from scalenet.runs import RunDirectory
from scalenet.space import SearchSpace
from tests.synthetic import candidate, make_run, trial
from tests.test_verdict import GRID, guided_runs


class Page(HTMLParser):
    """Tags with attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, mark: str) -> int:
        return sum(t == tag and mark in (a.get("class") or "").split() for t, a in self.tags)


def rendered(run: RunDirectory) -> tuple[Page, str]:
    source = report.html(run).read_text(encoding="utf-8")
    return Page(source), source


def test_ranking_puts_the_confirmed_first_and_the_baseline_apart(tmp_path: Path) -> None:
    findings = read(make_run(tmp_path))
    rows = ranked(findings)
    assert findings.verdict is not None
    assert rows[0].key == findings.verdict.winner
    assert [row.rank for row in rows] == [*range(1, len(rows)), None]
    assert rows[-1].role == "baseline"
    roles = [row.role for row in rows[:-1]]
    assert roles.index("searched") == len(findings.verdict.estimates)
    assert sum(role in ("winner", "tied") for role in roles) == len(findings.verdict.tied_set)
    searched = [row.search_top1 or 0.0 for row in rows if row.role == "searched"]
    assert searched == sorted(searched, reverse=True)


def test_a_row_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, m=2)
    row = next(row for row in ranked(read(run)) if "width" in row.names)
    held = [t.top1 for t in run.trials() if t.key == row.key and t.judge == "held"]
    first, second = (100 * (top1 or 0.0) for top1 in held)
    cells = dict(zip(report.COLUMNS, report.cells(row), strict=True))
    assert cells["direction"] == "width alone"
    assert cells["shares"] == "0.00 / 1.00 / 0.00"
    assert (cells["alpha"], cells["beta"], cells["gamma"]) == ("1.000", "1.414", "1.000")
    assert (cells["depth"], cells["width"], cells["px"]) == ("8", "22.6", "32")
    assert cells["FLOPs"] == f"{row.flops / 1e6:.2f} M"
    assert cells["confirmed"] == f"{(first + second) / 2:.1f} ± {abs(first - second) / 2**0.5:.1f}"  # sd of two


def test_a_hard_seed_that_few_were_given_moves_nobody_down(tmp_path: Path) -> None:
    run = make_run(tmp_path, m=3)
    before = [row for row in ranked(read(run)) if row.role == "searched"]
    by_key = {c.key: c for c in run.candidates()}
    for row in before[:2]:
        assert row.search_top1 is not None
        run.append_trial(trial(by_key[row.key], row.search_top1 - 0.3, seed=50, judge="select", phase="search"))
    assert [row.key for row in ranked(read(run)) if row.role == "searched"] == [row.key for row in before]


def test_json_is_plain_and_complete(tmp_path: Path) -> None:
    findings = read(make_run(tmp_path, m=2))
    plain = json.loads(json.dumps(report.as_plain(findings), allow_nan=False))
    assert plain["verdict"] == to_plain(findings.verdict)
    assert len(plain["candidates"]) == len(findings.candidates)


def test_the_page_says_what_was_found_and_asks_for_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    page, source = rendered(run)
    answer = run.coefficients()
    assert answer is not None
    assert answer.verdict in page.text
    for said in (
        "What doubling bought",
        "What direction bought",
        "0123456789abcdef",
        "epochs 20",
        "101, 102",
        "below 2x2",
    ):
        assert said in page.text
    assert "ranked at equal cost.\n! marks a cost" in page.text
    assert not re.search(r"(fairly|come out best|read do)\.[A-Z]", page.text)  # a space between sentences
    assert "Demonstration." in page.text
    assert "up to 45 px, but the pictures of shapes are 40 px" in page.text
    assert "not spent training" in page.text
    assert not re.search(r"https?://|@import|url\(|\bsrc=|<script|<link", source)
    assert page.count("tr", "winner") == 1
    assert page.count("tr", "tied") == len(answer.tied_set) - 1


def test_the_figures_are_well_formed_and_show_every_candidate(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    _, source = rendered(run)
    figures = [ET.fromstring(svg) for svg in re.findall(r'<svg viewBox="0 0 440.*?</svg>', source, re.DOTALL)]
    assert len(figures) == 5
    simplex, forest, cost, curves, residuals = figures
    confirmed = {t.key for t in run.trials() if t.judge == "held"}
    assert len(simplex.findall(".//g")) == len(run.candidates()) + 1  # the surface's optimum
    cells = [p.get("class", "") for p in simplex.iter("polygon") if p.get("class", "").startswith("cell")]
    assert len(cells) == 231  # the {3, 20} lattice
    assert 0 < cells.count("cell") < 231  # the truth is a peak, so that the region is a part
    assert len(residuals.findall(".//g")) == len(run.candidates()) - 1
    assert len(forest.findall(".//g")) == len(confirmed) - 1  # the baseline is not compared
    assert len(cost.findall(".//g")) == len(run.candidates()) + len(confirmed)
    kinds = [line.get("class", "").split()[-1] for line in curves.iter("polyline")]
    assert kinds.count("winner") == kinds.count("baseline") == 1
    for figure in figures:
        _, _, width, height = map(float, figure.get("viewBox", "").split())
        for text in figure.iter("text"):
            assert 0 <= float(text.get("x", "nan")) <= width
            assert 0 <= float(text.get("y", "nan")) <= height


def test_the_corners_of_the_triangle_are_where_they_are_labelled(tmp_path: Path) -> None:
    _, source = rendered(make_run(tmp_path, m=1))
    simplex = ET.fromstring(re.findall(r'<svg viewBox="0 0 440.*?</svg>', source, re.DOTALL)[0])
    labels = {t.text: (float(t.get("x", 0)), float(t.get("y", 0))) for t in simplex.iter("text")}
    for group in simplex.iter("g"):
        title = group.findtext("title") or ""
        mark = group.find("circle")
        for corner in ("depth", "width", "resolution"):
            if title.startswith(f"{corner} alone") and mark is not None:
                x, y = float(mark.get("cx", 0)), float(mark.get("cy", 0))
                near = min(labels, key=lambda name: (labels[name][0] - x) ** 2 + (labels[name][1] - y) ** 2)
                assert near == corner


def test_marks_in_the_corners_leave_the_labels_free(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "toy")
    of = [candidate(name) for name in ("baseline", "depth", "width", "resolution")]
    of = [of[0], *(replace(c, names=(*c.names, "paper", "dwr")) for c in of[1:])]  # as where steps are coarse
    run.append_candidates(of)
    for seed in (101, 102):
        for i, c in enumerate(of):
            run.append_trial(trial(c, 0.5 + 0.01 * i + 0.001 * seed * i, seed=seed))
    _, source = rendered(run)
    simplex = ET.fromstring(re.findall(r'<svg viewBox="0 0 440.*?</svg>', source, re.DOTALL)[0])
    heights = {t.text: float(t.get("y", 0)) for t in simplex.iter("text") if t.get("class") == "corner"}
    drawn = [p.get("points", "").split() for p in simplex.iter("polygon") if p.get("class") == "paper"]
    assert len(drawn) == 6  # a diamond and a square at each corner
    for shape in drawn:
        ys = [float(point.split(",")[1]) for point in shape]
        for y in heights.values():  # of the line that letters stand on; in the page's CSS they are up to 17 px high
            assert max(ys) < y - 13 or min(ys) > y + 1


def test_the_surface_ends_at_the_triangle_and_shows_its_optimum(tmp_path: Path) -> None:
    _, source = rendered(make_run(tmp_path))
    simplex = ET.fromstring(re.findall(r'<svg viewBox="0 0 440.*?</svg>', source, re.DOTALL)[0])
    parts = list(simplex)
    around = next(i for i, part in enumerate(parts) if part.get("class") == "around")
    cells = [i for i, part in enumerate(parts) if (part.get("class") or "").startswith("cell")]
    optimum = next(i for i, part in enumerate(parts) if "the surface's optimum" in (part.findtext("title") or ""))
    assert max(cells) < around < optimum
    hole = [tuple(map(float, xy.split())) for xy in parts[around].get("d", "").split("ZM")[1].rstrip("Z").split("L")]
    frame = next(part for part in parts if part.get("class") == "frame").get("points", "")
    assert hole == [tuple(map(float, xy.split(","))) for xy in frame.split()]


def test_a_guided_runs_page_speaks_of_its_runs(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "toy")
    space = SearchSpace(sampler="guided", lattice=4)
    run.write_space(space)
    run.append_candidates(GRID)
    for made in guided_runs():
        run.append_trial(made)
    page, _ = rendered(run)
    text = " ".join(page.text.split())
    for said in (
        "came out best by a surface through all runs",
        "surface over all runs",
        "the surface fitted to all runs at equal cost",
        "The winner against the named points",
        "as wide as they must be whoever had come out best",
        "of the repeats and of what the surface misses",
        "There was no search phase",
        "guided (m = 4)",
        "27 confirmation runs",
        "17 candidates, 27 runs with the baseline's",
        "Predicted by the surface through all runs, a standard error to each side.",
    ):
        assert said in text
    for unsaid in ("The pick", "candidates searched", "search's scores", "search seeds"):
        assert unsaid not in text
    findings = read(run)
    assert findings.verdict is not None
    assert [row.key for row in ranked(findings)[:-1]] == [e.key for e in findings.verdict.estimates]


def test_a_candidate_whose_only_trainings_failed_waits_for_nothing(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "toy")
    run.write_space(SearchSpace(sampler="guided", lattice=4))
    run.append_candidates(GRID)
    made = guided_runs()
    lost = made[len(GRID) - 1].key  # trained with one seed
    for record in made:
        run.append_trial(replace(record, top1=None, state="failed", reason="no") if record.key == lost else record)
    rows = {row.key: row for row in ranked(read(run))}
    assert rows[lost].state == "failed"
    assert "failed" in report.cells(rows[lost])
    assert {row.state for key, row in rows.items() if key != lost} == {"confirmed"}


def test_a_region_of_a_flat_surface_is_called_a_hint(tmp_path: Path) -> None:
    hint = "As the surface is flat within noise, this is a hint at most."
    flat, _ = rendered(make_run(tmp_path / "flat", spread=0.0, noise=0.05))
    assert "is flat within noise (p = " in flat.text
    assert hint in flat.text
    clear, _ = rendered(make_run(tmp_path / "clear"))
    assert hint not in clear.text


@pytest.mark.parametrize(("cost", "said"), [("flops", "FLOPs, measured"), ("latency", "latency, predicted")])
def test_the_family_says_what_phi_doubles(tmp_path: Path, cost: CostName, said: str) -> None:
    run = make_run(tmp_path, m=1)
    run.write_space(replace(run.space(), cost=cost))
    answer = run.coefficients()
    assert answer is not None
    width = next(c for c in run.candidates() if "width" in c.names)
    run.write_coefficients(replace(answer, family=(FamilyMember(1.0129, width.size, width.cost),)))
    page, _ = rendered(run)
    assert f"phi doublings of {said};" in page.text
    cells = [f"{width.size.depth}", f"{width.size.width:.4g}", f"{width.size.resolution}"]
    assert "".join(["1.01", *cells]) in page.text.replace("\n", "")


def test_a_damaged_verification_costs_the_page_only_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path, m=1)
    page, _ = rendered(run)
    assert "further out" not in page.text
    told = {"changed": "4 x", "ranking": "It <held>.", "winner": "The best."}
    for name, text in {"1": json.dumps(told), "2": "{", "3": "[]", "4": '{"changed": "77 x"}'}.items():
        file = run.path / "verify" / name / "verify.json"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    page, _ = rendered(run)
    assert "At 4 x: It <held>. The best." in page.text
    assert "77 x" not in page.text


def test_on_paper_headings_stay_with_what_they_head(tmp_path: Path) -> None:
    _, source = rendered(make_run(tmp_path, m=1))
    rules = source[source.index("@media print") : source.index("* { box-sizing")]
    assert re.search(r"h2 \{[^}]*break-after: avoid", rules)
    assert re.search(r"figure,[^{]* \.box,[^{]* li,[^{]*\{ break-inside: avoid", rules)
    assert re.search(r"\.figures \{ grid-template-columns: 1fr 1fr", rules)  # four figures on two pages
    assert "details:not([open]) { display: none" in rules  # what is folded cannot be unfolded there


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    page, source = rendered(make_run(tmp_path, mishaps=True, data="/x/<script>alert(1)</script>"))
    assert "<script" not in source
    assert "memory ran out <script>alert(1)</script>" in page.text
    assert "/x/<script>alert(1)</script>" in page.text
    assert "<b>ten" in page.text
    assert "Demonstration." not in page.text
    assert not any(tag == "script" for tag, _ in page.tags)


def test_mishaps_are_told(tmp_path: Path) -> None:
    page, _ = rendered(make_run(tmp_path, mishaps=True))
    for said in ("Rejected before training", "costs 2.60 x", "Failed runs", "pruned", "3 of 22 search runs stopped"):
        assert said in page.text
    assert "42 of 440 epochs saved (10 %)" in page.text  # 3 runs stopped 14 of 20 epochs early
    assert page.count("circle", "stopped") == 5  # three stopped, one failed, and the legend


@pytest.mark.parametrize("confirm", [False, True])
def test_an_unfinished_run_has_a_page_that_says_so(tmp_path: Path, confirm: bool) -> None:
    page, _ = rendered(make_run(tmp_path, confirm=confirm, finished=False))
    assert "This search has not come to its end: 23 of 23 candidates searched" in page.text
    assert ("There is no verdict yet" in page.text) is not confirm
    assert "0123456789abcdef" in page.text


def one_candidate(root: Path) -> RunDirectory:
    run = RunDirectory.create(root, "toy")
    both = [candidate("baseline"), candidate("equal")]
    run.append_candidates(both)
    for seed in (101, 102):
        run.append_trial(trial(both[0], 0.5, seed=seed))
        run.append_trial(trial(both[1], 0.55 + 0.0001 * seed, seed=seed))
    return run


def test_a_run_of_one_candidate_speaks_of_one(tmp_path: Path) -> None:
    page, source = rendered(one_candidate(tmp_path))
    assert "The only confirmed candidate over the baseline" in page.text
    assert "(1 candidate and the baseline, 2 seeds)" in page.text
    assert "the 1 " not in page.text
    assert "told apart from the best" not in page.text  # no noise, no mark to explain
    assert source.count("<rect") == 0  # one score has no scale of colours


def test_growth_that_is_no_doubling_is_not_called_one(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "toy")
    of = [candidate("baseline"), candidate("equal", ratio=4.0), candidate("width", ratio=4.0)]
    run.append_candidates(of)
    for seed in (101, 102):
        for c in of:
            run.append_trial(trial(c, 0.5 + 0.01 * len(c.names[0]) + 0.001 * seed * len(c.names[0]), seed=seed))
    page, _ = rendered(run)
    assert "What growth bought" in page.text
    assert "What doubling bought" not in page.text


def test_the_command_says_what_the_table_cannot(tmp_path: Path) -> None:
    def said(run: RunDirectory) -> str:
        result = CliRunner().invoke(cli, ["report", str(run.path)])
        assert result.exit_code == 0, result.output
        return result.output

    begun = said(make_run(tmp_path / "begun", confirm=False, finished=False))
    assert "There is no verdict yet: no candidate has a finished confirmation run." in begun
    assert "This search has not come to its end: 23 of 23 candidates searched" in begun
    broken = said(make_run(tmp_path / "broken", mishaps=True))
    assert "(seed 102) is missing, failed: memory ran out." in broken
    assert "has not come to its end" not in broken


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    page, _ = rendered(RunDirectory.create(tmp_path, "toy"))
    assert "0 of 0 candidates searched" in page.text


def test_an_answer_that_the_records_no_longer_give_is_pointed_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, m=2)
    file = run.path / "coefficients.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps(plain | {"verdict": "Something else."}))
    page, _ = rendered(run)
    assert "another verdict than coefficients.json" in page.text


def test_the_cost_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    page, _ = rendered(run)
    for text in ("FLOPs, measured, over the baseline's", "x its FLOPs", "x the baseline's FLOPs along"):
        assert text in page.text
    networks = [(Cost(10**5 * n, 10**6 * n**2, 10**4 * n), Size(n, 16.0, 32)) for n in range(3, 12)]
    timed = calibration(Setting("a device", 8, 1, "fp32", "contiguous"), networks, [1.0 + n for n in range(9)])
    run.write_latency(timed)
    run.write_space(replace(run.space(), cost="latency"))
    page, _ = rendered(run)
    for text in (
        "latency, predicted, over the baseline's",
        "x its latency",
        "x the baseline's latency along",
        timed.summary,
    ):
        assert text in page.text
    assert "baseline's FLOPs" not in page.text
    assert "its FLOPs" not in page.text
