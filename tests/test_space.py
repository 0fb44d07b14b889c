"""Search spaces: what overrides what, and what is refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain
from scalenet.space import SearchSpace, for_training, given_keys, resolve


def test_later_sources_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe:\n  epochs: 7\n  lr: 0.5\nlattice: 3\n")
    space = resolve("mobilevit", file, ["recipe.lr=0.25", "seed=9"], {"data.subset": 50, "seed": 11, "variant": None})
    assert (space.recipe.epochs, space.recipe.lr, space.lattice) == (7, 0.25, 3)
    assert (space.data.subset, space.seed, space.variant) == (50, 11, "micro")
    assert space.recipe.batch_size == resolve("mobilevit").recipe.batch_size


def test_keys_that_the_user_gave_are_known_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("confirm:\n  seeds: 4\nlattice: 3\n")
    told = given_keys(file, ["recipe={epochs: 3}", "seed=9"], {"data.subset": 50, "variant": None})
    assert told == {"confirm.seeds", "lattice", "recipe.epochs", "seed", "data.subset"}
    assert given_keys() == frozenset()
    assert "lattice" in given_keys(Path("smoke"))


def test_default_file_names_every_key() -> None:
    import yaml

    written = yaml.safe_load((files("scalenet_searchspaces") / "default.yaml").read_text())
    everything = to_plain(SearchSpace())
    assert set(written) == set(everything)
    assert set(written["data"]) == set(everything["data"])
    assert set(written["confirm"]) == set(everything["confirm"])


def test_a_shipped_space_goes_by_its_name() -> None:
    assert resolve("mobilenet", Path("smoke")).lattice == 1


def test_round_trip_through_plain() -> None:
    space = resolve("efficientnet")
    assert from_plain(SearchSpace, to_plain(space), "space.yaml") == space


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("recipe.epoch=3", r"--set recipe\.epoch=3: recipe: No key 'epoch'\. Did you mean 'epochs'\?"),
        ("recipe.epochs=x", r"recipe\.epochs must be a whole number, got 'x'"),
        ("recipe.epochs=0", r"epochs must be at least 1, got 0"),
        ("sampler=grd", r"sampler must be one of grid, guided, tpe, gp, random, named, got 'grd'"),
        ("target=1", r"target must be above 1"),
        ("resolution=8", r"resolution must be at least 16, got 8"),
        ("confirm.seeds=0", r"confirm\.seeds must be at least 1, got 0"),
        ("data=5", r"data: must be a mapping"),
        ("points=[{depth: 0, width: 0, resolution: 0}]", r"points must be directions"),
        (
            "points=[{depth: 0.5, width: 0.25, resolution: 0.25}, {depth: 0.5, width: 0.2501, resolution: 0.2499}]",
            r"points must differ .*, got two of point 0.50/0.25/0.25",
        ),
        ("points=[{depth: 1, width: 1, resolution: 0}]", r"points.* Shares must sum to 1"),
        ("lattice", r"must be KEY=VALUE"),
    ],
)
def test_bad_settings_are_named(setting: str, complaint: str) -> None:
    with pytest.raises(ScalenetError, match=complaint):
        resolve("mobilevit", None, [setting])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["sampler=guided", "confirm.seeds=1"], r"confirm\.seeds must be at least 2 with the sampler guided .*got 1"),
        (["sampler=guided", "racing=true"], r"racing must be false with the sampler guided .*got true"),
        (["sampler=guided", "seeds=3"], r"seeds must be 1 with the sampler guided \(it has no search phase\), got 3"),
        (["sampler=guided", "scheduler=asha"], r"scheduler must be none with the sampler guided .*got asha"),
        (["sampler=guided", "adaptive=2"], r"adaptive must be 0 with the sampler guided .*got 2"),
        (["sampler=named", "seeds=3"], r"seeds must be 1 with the sampler named"),
        (["sampler=named", "scheduler=asha"], r"scheduler must be none with the sampler named"),
    ],
)
def test_what_only_a_search_phase_can_have_is_refused_without_one(settings: list[str], complaint: str) -> None:
    with pytest.raises(ScalenetError, match=complaint):
        resolve("mobilevit", None, settings)


def test_samplers_differ_in_what_they_propose_and_in_phases() -> None:
    found = {name: resolve("mobilevit", None, [f"sampler={name}"]) for name in ("grid", "guided", "tpe", "named")}
    assert {name for name, space in found.items() if space.has_lattice} == {"grid", "guided"}
    assert {name for name, space in found.items() if space.has_search_phase} == {"grid", "tpe"}
    assert {name: space.draws for name, space in found.items() if space.draws} == {"tpe": 21}
    assert {name for name, space in found.items() if space.mapped == "held"} == {"guided"}


def test_bad_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lattis: 3\n")
    with pytest.raises(ScalenetError, match=r"mine\.yaml: No key 'lattis'\. Did you mean 'lattice'\?"):
        resolve("mobilevit", file)
    with pytest.raises(ScalenetError, match=r"gone\.yaml: cannot be read"):
        resolve("mobilevit", tmp_path / "gone.yaml")


def test_training_takes_the_searchs_pictures_and_recipe_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "data: {source: here, subset: 50, root: there}\nrecipe: {epochs: 7, precision: bf16}\n"
    )
    request, recipe = for_training(tmp_path, "mobilevit", ["lr=0.5"])
    assert recipe.precision == "auto"  # the training may run on another machine than the search
    assert (request.source, request.subset, request.root) == ("here", 50, "there")
    assert (recipe.epochs, recipe.lr) == (7, 0.5)
    other, _ = for_training(tmp_path, "mobilevit", (), {"data.source": "cifar10"})
    assert (other.source, other.subset, other.root) == ("cifar10", None, None)
    assert for_training(tmp_path / "elsewhere", "mobilevit")[0].source == "shapes"


def test_the_shipped_subset_is_only_of_the_shipped_pictures(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {source: here}\n")
    assert resolve("mobilevit").data.subset is not None
    assert resolve("mobilevit", file).data.subset is None
    assert resolve("mobilevit", None, ["data.source=here"]).data.subset is None
    assert resolve("mobilevit", None, (), {"data.source": "here"}).data.subset is None
    assert resolve("mobilevit", None, (), {"data.source": "here", "data.subset": 50}).data.subset == 50
