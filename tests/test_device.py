from __future__ import annotations

from typing import Any

import pytest
import torch

from scalenet.device import Numerics, isolated, numerics, pick_device, seed_of
from scalenet.errors import ScalenetError
from scalenet.recipe import Recipe

CPU, MPS = torch.device("cpu"), torch.device("mps")


def test_auto_prefers_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "xpu", "gpu", "cuda:-1", ""])
def test_a_device_that_is_not_here_is_an_error_with_the_choices(name: str) -> None:
    with pytest.raises(ScalenetError, match=r"it must be auto, cpu|this machine has cpu"):
        pick_device(name)


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_what_auto_means(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert numerics(Recipe(), torch.device("cuda", 0)) == Numerics(channels_last=True, bf16=bf16)
    assert numerics(Recipe(), CPU) == Numerics(channels_last=True, bf16=False)
    assert numerics(Recipe(), MPS) == Numerics(channels_last=False, bf16=False)


def test_a_recipe_can_insist() -> None:
    assert numerics(Recipe(precision="bf16", memory_format="contiguous"), CPU) == Numerics(False, True)
    assert numerics(Recipe(precision="fp32", memory_format="channels_last"), MPS) == Numerics(True, False)


def test_seeds_depend_on_every_part_and_never_change() -> None:
    # printf '["epoch", 0, 1]' | sha256sum: the first 16 digits, without the last bit
    assert seed_of("epoch", 0, 1) == 0xECB50CCAD6DFAF5D >> 1
    seeds = [seed_of("a", 1), seed_of(1, "a"), seed_of("a", "1"), seed_of("a", 1, 0), seed_of("a")]
    assert len(set(seeds)) == 5


def test_isolated_asks_the_accelerator_it_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: torch.tensor([7]))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: kept.append(state.item()))
    with isolated(3, MPS):
        assert kept == []
    assert kept == [7]


def test_isolated_work_leaves_no_trace_even_when_it_fails() -> None:
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    seen: list[Any] = []

    def fail() -> None:
        with isolated(3, CPU, threads + 1):
            seen.extend([torch.rand(2), torch.get_num_threads()])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen[1] == threads + 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    with isolated(3, CPU):
        assert torch.equal(torch.rand(2), seen[0])


def tiny() -> float:
    """1e-39, which single precision holds only as a denormal number."""
    return float((torch.full((64,), 1e-38) * 0.1).sum())


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot be told to flush denormal numbers")
def test_one_thread_flushes_denormal_numbers_inside_and_leaves_that_as_it_was() -> None:
    assert tiny() > 0
    with isolated(0, CPU, 1):
        assert tiny() == 0
        with isolated(0, CPU, 2):
            pass
        assert tiny() == 0
    assert tiny() > 0
    with isolated(0, CPU, 2):
        assert tiny() > 0
    torch.set_flush_denormal(True)
    try:
        with isolated(0, CPU, 1):
            pass
        assert tiny() == 0  # who wants it so keeps it
    finally:
        torch.set_flush_denormal(False)
