"""coefficients.json: a search's answer and the regime it holds in, as `scale` reads it and a person does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scalenet.architecture import Size
from scalenet.cost import Cost, CostName
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain
from scalenet.recipe import Recipe
from scalenet.shares import Exponents, Shares

if TYPE_CHECKING:
    from scalenet.landscape import Landscape
    from scalenet.projection import Candidate
    from scalenet.space import SearchSpace
    from scalenet.verdict import Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DataUsed:
    """The pictures a search ran on."""

    name: str
    fingerprint: str
    native_size: int  # median shorter side, pixels


@dataclass(frozen=True)
class WinnersCost:
    """What the coefficients were measured at."""

    baseline: Cost
    ratio: float  # the winner's cost over the baseline's, in `cost_metric`


@dataclass(frozen=True)
class Tied:
    """A candidate that confirmation does not tell apart from the best; the winner is the first of them."""

    key: str
    names: tuple[str, ...]
    shares: Shares
    alpha: float
    beta: float
    gamma: float
    top1: float | None  # confirmed mean, in [0, 1]; None where it ran with no seed that the others ran with


@dataclass(frozen=True)
class Rival:
    """A named point against the search's own pick, at equal cost; all of them hold at once with 95 % confidence."""

    key: str
    label: str
    behind: float  # the pick's top1 less this one's
    margin: float
    told_apart: bool


@dataclass(frozen=True)
class SurfaceFound:
    """What the response surface over the search's scores says; shares are realised ones."""

    model: str  # "quadratic" or "linear blend": Scheffe's polynomials
    r2: float
    lack_of_fit_p: float | None  # None without replicates
    flat_p: float  # how often noise alone shows as much shape
    flat: bool  # at the 5 % level
    optimum: Shares
    region_level: float  # confidence
    region_area: float  # part of the simplex in which the optimum lies with that confidence
    sentence: str


@dataclass(frozen=True)
class FamilyMember:
    """A network of the answer's family: the baseline grown to 2^phi times its cost."""

    phi: float  # as measured
    size: Size
    cost: Cost


@dataclass(frozen=True)
class CoefficientsFile:
    """The content of coefficients.json."""

    schema_version: int
    plugin: str
    variant: str
    law: Literal["measured", "paper"]
    alpha: float  # of the winner as built; along `shares`, the measured cost meets the target
    beta: float
    gamma: float
    shares: Shares  # nominal
    realised_shares: Shares
    exponents: Exponents
    cost: WinnersCost
    noise_sd: float | None  # of one run's top1
    tied_set: tuple[Tied, ...]
    verdict: str
    method: str
    data: DataUsed
    epochs: int
    recipe: Recipe
    seeds: tuple[int, ...]  # of the confirmation runs
    demonstration: bool
    num_classes: int
    baseline: dict[str, Any]  # the spec that phi = 0 means, plain
    surface: SurfaceFound | None = None  # None where there were too few scores for one
    family: tuple[FamilyMember, ...] = ()  # the baseline first
    pick: str | None = None  # key of what the search alone would have answered
    rivals: tuple[Rival, ...] = ()  # the named points, against the pick
    cost_metric: CostName = "flops"  # what shares, exponents and ratio are of; latency's is in latency.json beside


def conclude(
    verdict: Verdict,
    candidates: Sequence[Candidate],
    *,
    plugin: str,
    space: SearchSpace,
    exponents: Exponents,
    data: DataUsed,
    num_classes: int,
    demonstration: bool,
    landscape: Landscape | None = None,
    family: Sequence[FamilyMember] = (),
) -> CoefficientsFile:
    """The answer to write, from a verdict and the records it was made from; the baseline is among `candidates`."""
    by_key = {candidate.key: candidate for candidate in candidates}
    tops = {estimate.key: estimate.mean for estimate in verdict.estimates}
    winner = by_key[verdict.winner]
    baseline = next(candidate for candidate in candidates if "baseline" in candidate.names)
    return CoefficientsFile(
        schema_version=SCHEMA_VERSION,
        plugin=plugin,
        variant=space.variant,
        law=space.law,
        alpha=winner.scale.depth,
        beta=winner.scale.width,
        gamma=winner.scale.resolution,
        shares=winner.shares,
        realised_shares=winner.realised,
        exponents=exponents,
        cost=WinnersCost(baseline.cost, winner.ratio),
        noise_sd=verdict.noise_sd,
        tied_set=tuple(
            Tied(c.key, c.names, c.shares, c.scale.depth, c.scale.width, c.scale.resolution, tops.get(c.key))
            for c in (by_key[key] for key in verdict.tied_set)
        ),
        verdict=verdict.sentence,
        method=verdict.method,
        data=data,
        epochs=space.recipe.epochs,
        recipe=space.recipe,
        seeds=verdict.seeds,
        demonstration=demonstration,
        num_classes=num_classes,
        baseline=baseline.spec,
        cost_metric=space.cost,
        family=tuple(family),
        pick=verdict.pick,
        rivals=verdict.rivals,
        surface=_surface(landscape) if landscape else None,
    )


def _surface(landscape: Landscape) -> SurfaceFound:
    found, region = landscape.surface, landscape.region
    polynomial = found.polynomial
    return SurfaceFound(
        model=polynomial.model.name,
        r2=polynomial.r2,
        lack_of_fit_p=polynomial.lack_of_fit.p if polynomial.lack_of_fit else None,
        flat_p=found.flat_p,
        flat=found.flat,
        optimum=found.optimum,
        region_level=region.level,
        region_area=region.area,
        sentence=landscape.says,
    )


def parse(plain: Any, where: str) -> CoefficientsFile:
    """The content of a coefficients.json from its plain data.

    Raises:
        ScalenetError: another version of the schema, an unknown key or a wrong type, with `where` named.
    """
    found = plain.get("schema_version") if isinstance(plain, dict) else None
    if found != SCHEMA_VERSION:
        raise ScalenetError(f"{where}: schema_version is {found}; this scalenet reads {SCHEMA_VERSION}.")
    return from_plain(CoefficientsFile, plain, where)
